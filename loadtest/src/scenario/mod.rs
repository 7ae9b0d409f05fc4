//! What the scenarios share: a stage with the server, the swarm, the screen and the readings taken between phases.

mod canary;
pub(crate) mod d2d;
pub(crate) mod idle;
pub(crate) mod push;
mod reading;
mod sending;
pub(crate) mod stream;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use thiserror::Error;

use crate::arg::{CommonArg, LineArg, TlsArg};
use crate::clock::Clock;
use crate::descriptor;
use crate::dialect::Dialect;
use crate::machine;
use crate::node::{Node, NodeError, ServerPlan};
use crate::report::{Figure, Record};
use crate::scenario::canary::Canary;
use crate::scenario::reading::{Reading, count, live_text};
use crate::screen::Screen;
use crate::swarm::tally::Total;
use crate::swarm::{Catch, Cut, Swarm, SwarmPlan, loopback_sources};
use crate::tls::{TlsError, TlsPlan};
use crate::token::TokenError;

/// Why a run has no result at all.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// There is no server.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The kernel refused something the generator itself needs.
    #[error("the generator cannot go on")]
    Generator(#[from] io::Error),
    /// The lines have no tokens.
    #[error("the lines' tokens cannot be signed")]
    Token(#[from] TokenError),
    /// The lines cannot speak TLS.
    #[error("the lines' TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// A server that is there does not take senders.
    #[error("the sending connections cannot be opened")]
    Sender(#[source] io::Error),
    /// The canary was not well before anything began.
    #[error("the canary's lines do not open: {0}")]
    Canary(String),
    /// The command line lacks something.
    #[error("{0}")]
    Usage(&'static str),
}

/// A run in progress.
pub(crate) struct Stage {
    node: Node,
    swarm: Swarm,
    tls: Option<Arc<TlsPlan>>,
    lines: u32,
    canary: Option<Canary>,
    clock: Clock,
    screen: Screen,
    record: Record,
    pulse: Poll,
    is_interrupted: Arc<AtomicBool>,
    last: Reading,
}

/// How often the screen is drawn and conditions are looked at.
const TICK: Duration = Duration::from_millis(250);
/// One point of the curve each so many seconds.
const POINT_INTERVAL: Duration = Duration::from_secs(1);
/// Lines for each reactor of a server we start: below the descriptor limit of most machines, with room for skew.
const REACTOR_LINES: u32 = 15_000;
/// The second byte of the loopback addresses that lines connect from.
const LINE_NET: u8 = 1;
/// A generator later than this in more than one of a hundred cases tells of itself, not of the server.
const LATE_SHARE_MAX: f64 = 0.01;

impl Stage {
    /// Starts the server, the canary and the ramp; also returns what was read before the first line of the ramp.
    /// `settings` are the scenario's own for a server that is started.
    pub(crate) fn open(
        scenario: &str,
        arg: &CommonArg,
        settings: &[String],
        dialect: Dialect,
    ) -> Result<(Self, Reading), RunError> {
        let record = Record::new(scenario);
        let screen = Screen::open();
        let is_interrupted = watch_signals()?;
        let node = open_node(arg, settings, &screen)?;
        let clock = Clock::start();
        let tls = tls_plan(&node, &arg.tls)?;
        let canary = Canary::open(arg, &node, tls.clone(), clock)?;
        let before = Reading::take(&node, Total::default(), clock)?;
        let lines = dialect.names.lines();
        let plan = swarm_plan(&node, &arg.lines, tls.clone(), dialect)?;
        let swarm = Swarm::start(plan, clock)?;
        let pulse = Poll::new()?;
        let stage = Self {
            node,
            swarm,
            tls,
            lines,
            canary,
            clock,
            screen,
            record,
            pulse,
            is_interrupted,
            last: before,
        };
        Ok((stage, before))
    }

    /// Waits until every line has opened or failed.
    pub(crate) fn ramp(&mut self) -> Result<Reading, RunError> {
        let lines = u64::from(self.lines);
        self.watch("ramp", lines, |reading| reading.total.settled())
    }

    /// Lets time pass.
    pub(crate) fn hold(
        &mut self,
        phase: &'static str,
        time: Duration,
    ) -> Result<Reading, RunError> {
        let start = self.clock.now();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.watch(phase, ms(time), |reading| ms(reading.at - start))
    }

    /// Draws and reads until `step` has reached `steps`, or the run cannot go on, which the record then says.
    pub(crate) fn watch(
        &mut self,
        phase: &'static str,
        steps: u64,
        mut step: impl FnMut(&Reading) -> u64,
    ) -> Result<Reading, RunError> {
        self.screen.start_phase(phase, steps);
        if let Some(canary) = &mut self.canary {
            canary.start_lap(phase, self.clock.now());
        }
        loop {
            let reading = self.read()?;
            let done = step(&reading);
            self.screen
                .show(done.min(steps), live_text(&self.last, &reading), reading.at);
            self.keep_point(&reading);
            self.note_faults();
            if done >= steps || self.is_halted() {
                return Ok(reading);
            }
            self.wait_tick()?;
        }
    }

    /// Reads everything now.
    pub(crate) fn read(&self) -> Result<Reading, RunError> {
        Ok(Reading::take(&self.node, self.swarm.total(), self.clock)?)
    }

    /// Ends lines and server and judges the lines; the record is complete but for the scenario's own figures.
    pub(crate) fn close(mut self, failures_max: u64) -> Result<(Record, Screen, Catch), RunError> {
        let total = self.swarm.total();
        let failures = self.swarm.failures();
        if total.failed + total.lost > failures_max {
            let kinds: Vec<String> = failures
                .iter()
                .map(|(kind, n)| format!("{n} × {kind}"))
                .collect();
            self.record.faults.push(format!(
                "{} lines failed, {} were lost: {}",
                total.failed,
                total.lost,
                kinds.join("; ")
            ));
        }
        self.note_faults();
        let cut = cut(&self.node);
        if let Some(canary) = self.canary {
            canary.close(cut, &mut self.record)?;
        }
        if self.tls.is_some() {
            let resumed = Figure::new("tls.resumed", count(total.resumed), "");
            self.record.add([resumed]);
        }
        let catch = self.swarm.stop(cut)?;
        self.node.stop()?;
        Ok((self.record, self.screen, catch))
    }

    /// Whether waiting longer makes no sense.
    fn is_halted(&self) -> bool {
        !self.record.faults.is_empty() || self.swarm.is_broken()
    }

    fn note_faults(&mut self) {
        if self.is_interrupted.swap(false, Ordering::Relaxed) {
            self.record.faults.push("interrupted".to_owned());
        }
        self.record.faults.extend(self.node.obituary());
    }

    fn keep_point(&mut self, reading: &Reading) {
        if reading.at - self.last.at < POINT_INTERVAL {
            return;
        }
        self.record.points.push(reading.point());
        self.last = *reading;
    }

    /// A signal ends the wait early.
    fn wait_tick(&mut self) -> io::Result<()> {
        match self.pulse.poll(&mut Events::with_capacity(1), Some(TICK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Says so when lines started late because of this generator.
pub(crate) fn ramp_warning(total: &Total) -> Option<String> {
    let is_late = count(total.late) > LATE_SHARE_MAX * count(total.started);
    is_late.then(|| {
        format!(
            "the generator was overloaded: {} of {} lines started late, so the ramp was slower than asked",
            total.late, total.started
        )
    })
}

/// A server that lives on is told goodbye.
fn cut(node: &Node) -> Cut {
    if node.is_own() {
        Cut::Reset
    } else {
        Cut::Close
    }
}

fn open_node(arg: &CommonArg, settings: &[String], screen: &Screen) -> Result<Node, NodeError> {
    let (server, lines) = (&arg.server, &arg.lines);
    if !server.target.is_empty() {
        let (api, peer) = (server.api.as_deref(), server.peer.as_deref());
        return Node::attach(&server.target, api, peer, server.pid);
    }
    let cores = u32::try_from(machine::cores()).unwrap_or(1);
    let plan = ServerPlan {
        program: server.server.clone(),
        reactors: server
            .reactors
            .unwrap_or_else(|| lines.connections.div_ceil(REACTOR_LINES).max(cores)),
        is_tls: arg.tls.tls,
        settings: [settings, &server.set].concat(),
    };
    Node::start(&plan, |text| screen.say(text))
}

fn tls_plan(node: &Node, arg: &TlsArg) -> Result<Option<Arc<TlsPlan>>, TlsError> {
    let Some(names) = &node.tls_names else {
        return Ok(None);
    };
    let ca = arg.tls_ca.clone().or_else(|| node.certificate_file());
    let plan = TlsPlan::new(names, ca.as_deref(), arg.tls_resume)?;
    Ok(Some(Arc::new(plan)))
}

fn swarm_plan(
    node: &Node,
    lines: &LineArg,
    tls: Option<Arc<TlsPlan>>,
    dialect: Dialect,
) -> io::Result<SwarmPlan> {
    let thread_lines_max = descriptor::lines_per_thread()?;
    let sources = if lines.source.is_empty() && node.is_loopback() {
        loopback_sources(LINE_NET, &dialect.names)
    } else {
        lines.source.clone()
    };
    Ok(SwarmPlan {
        lanes: u32::try_from(machine::cores()).unwrap_or(1),
        thread_lines_max,
        targets: node.devices.clone(),
        sources,
        tls,
        dialect,
        pacing: lines.pacing(),
        open_timeout: lines.open_timeout,
    })
}

/// The first signal asks for an orderly end; a second one ends the process.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, is_second.clone())?;
        signal_hook::flag::register(signal, is_second.clone())?;
        signal_hook::flag::register(signal, is_interrupted.clone())?;
    }
    Ok(is_interrupted)
}
