//! What the scenarios share: a stage with the server, the swarm, the screen and the readings taken between phases.

mod api;
pub(crate) mod broadcast;
mod canary;
pub(crate) mod churn;
pub(crate) mod connect;
mod curve;
pub(crate) mod d2d;
pub(crate) mod drain;
pub(crate) mod halfopen;
pub(crate) mod idle;
pub(crate) mod ladder;
mod ordeal;
pub(crate) mod push;
mod reading;
pub(crate) mod returning;
mod sending;
pub(crate) mod slow;
pub(crate) mod soak;
pub(crate) mod storm;
pub(crate) mod stream;
mod traffic;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use thiserror::Error;

use crate::address::{self, AddressBlock};
use crate::arg::{CommonArg, LineArg, TlsArg};
use crate::clock::{Clock, nanoseconds};
use crate::descriptor;
use crate::dialect::{Dialect, Template};
use crate::machine;
use crate::make::Make;
use crate::node::target::Target;
use crate::node::{Node, NodeError, ServerPlan};
use crate::plan::PlanError;
use crate::report::{Figure, Phase, Record};
use crate::scenario::canary::Canary;
use crate::scenario::curve::Curves;
use crate::scenario::ordeal::Peak;
use crate::scenario::reading::{Reading, count, live_text};
use crate::screen::Screen;
use crate::swarm::catch::Catch;
use crate::swarm::source::Sources;
use crate::swarm::tally::Total;
use crate::swarm::{Cut, Habit, Swarm, SwarmPlan};
use crate::task::TaskSample;
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
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Others have one table of descriptors for all their lines.
    #[error(
        "{0} lines are more than a server with one table of descriptors can have here: {1}, with a limit of {2} open files"
    )]
    Room(u32, u32, u32),
    /// A call beside the measured ones fails.
    #[error("the API does not do as it is asked: {0}")]
    Api(String),
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
    curves: Curves,
    pulse: Poll,
    is_interrupted: Arc<AtomicBool>,
    last: Reading,
    /// The server's memory at its most, and its CPU time at the last.
    peak: Peak,
}

/// How often the screen is drawn and conditions are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Rates on the screen, and latencies over time, are those of so much time.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// Points of the other curves are so far apart.
const CURVE_INTERVAL: Duration = Duration::from_millis(250);
/// Lines for each reactor of a server we start: below the descriptor limit of most machines, with room for skew.
const REACTOR_LINES: u32 = 15_000;
/// Scenarios that other makes know nothing of, and why.
const OWN_SCENARIOS: [(&str, &str); 3] = [
    ("broadcast", "of all makes only tautline broadcasts"),
    ("d2d", NO_RECORDS),
    ("stream", NO_RECORDS),
];
const NO_RECORDS: &str = "of all makes only tautline takes messages from lines or streams";
/// What is missing when nobody says where messages go.
const NO_PUSH_PATH: &str =
    "pushing to a raw server needs a path, such as --push-path /push/{device}";
/// What is missing when nobody says where they are posted.
const NO_API: &str = "pushing to a --target needs --api";
/// What is killed or drained and then started again.
const ONLY_OURS_AGAIN: &str = "of all makes only tautline is started again";
/// The second byte of the loopback addresses that lines connect from.
const LINE_NET: u8 = 1;
/// A generator later than this in more than one of a hundred cases tells of itself, not of the server.
const LATE_SHARE_MAX: f64 = 0.01;
/// A thread of the generator that is busier than this is the limit itself.
const BUSY_MAX: f64 = 0.9;

impl Stage {
    /// Starts the server, the canary and the ramp; also returns what was read before the first line of the ramp.
    /// `settings` are the scenario's own for a server that is started, `habit` is how its lines behave.
    pub(crate) fn open(
        scenario: &str,
        arg: &CommonArg,
        settings: &[String],
        dialect: Dialect,
        habit: Habit,
    ) -> Result<(Self, Reading), RunError> {
        let nothing = |_: &mut Node| Ok(());
        Self::open_prepared(scenario, arg, settings, (dialect, habit), nothing)
    }

    /// The same with a server that something is done to before the first line.
    pub(crate) fn open_prepared(
        scenario: &str,
        arg: &CommonArg,
        settings: &[String],
        (dialect, habit): (Dialect, Habit),
        prepare: impl FnOnce(&mut Node) -> Result<(), NodeError>,
    ) -> Result<(Self, Reading), RunError> {
        let mut record = Record::new(scenario);
        let screen = Screen::open();
        let is_interrupted = watch_signals()?;
        let own = OWN_SCENARIOS.iter().find(|(name, _)| *name == scenario);
        if let Some((_, why)) = own.filter(|_| arg.lines.against != Make::Tautline) {
            return Err(RunError::Usage(why));
        }
        let mut node = open_node(arg, settings, &screen)?;
        prepare(&mut node)?;
        record.notes.clone_from(&node.notes);
        let clock = Clock::start();
        let tls = tls_plan(&node, &arg.tls)?;
        let window = habit.window.unwrap_or(RATE_INTERVAL);
        let interval = habit.window.unwrap_or(CURVE_INTERVAL);
        let canary = Canary::open(arg, &node, tls.clone(), window, clock)?;
        let before = Reading::take(&node, Total::default(), clock)?;
        let lines = dialect.names.lines();
        let plan = swarm_plan(&node, &arg.lines, tls.clone(), dialect, habit)?;
        record.warnings.extend(ports_warning(&plan, lines));
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
            curves: Curves::new(interval, before),
            pulse,
            is_interrupted,
            last: before,
            peak: Peak::default(),
        };
        Ok((stage, before))
    }

    /// Why lines failed or were lost so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failures = self.swarm.failures().into_iter();
        failures.map(|(kind, n)| format!("{n} × {kind}")).collect()
    }

    /// Opens more lines.
    pub(crate) fn grow(&mut self, lines: &LineArg, dialect: Dialect) -> Result<(), RunError> {
        self.lines += dialect.names.lines();
        let plan = swarm_plan(
            &self.node,
            lines,
            self.tls.clone(),
            dialect,
            Habit::default(),
        )?;
        Ok(self.swarm.grow(plan, self.clock)?)
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
        self.watch(phase, nanoseconds(time), |reading| {
            nanoseconds(reading.at - start)
        })
    }

    /// Draws and reads until `step` has reached `steps`, or the run cannot go on, which the record then says.
    pub(crate) fn watch(
        &mut self,
        phase: &'static str,
        steps: u64,
        mut step: impl FnMut(&Reading) -> u64,
    ) -> Result<Reading, RunError> {
        self.screen.start_phase(phase, steps);
        self.record.phases.push(Phase {
            name: phase.to_owned(),
            at_s: self.clock.now().as_secs_f64(),
        });
        if let Some(canary) = &mut self.canary {
            canary.start_phase(phase, self.clock.now());
        }
        let (at, tasks) = (self.clock.now(), self.tasks());
        loop {
            let reading = self.read()?;
            let done = step(&reading);
            self.screen
                .show(done.min(steps), live_text(&self.last, &reading), reading.at);
            self.curves.note(&reading);
            self.peak.note(&reading);
            self.note_last(&reading);
            self.note_faults();
            if done >= steps || self.is_halted() {
                self.note_busiest(phase, at, tasks);
                return Ok(reading);
            }
            self.wait_tick()?;
        }
    }

    /// The same until a moment at the latest.
    pub(crate) fn watch_until(
        &mut self,
        phase: &'static str,
        steps: u64,
        deadline: Duration,
        mut step: impl FnMut(&Reading) -> u64,
    ) -> Result<Reading, RunError> {
        self.watch(phase, steps, |reading| {
            if reading.at > deadline {
                steps
            } else {
                step(reading)
            }
        })
    }

    /// The same for what is done or not.
    pub(crate) fn watch_done(
        &mut self,
        phase: &'static str,
        mut is_done: impl FnMut() -> bool,
    ) -> Result<Reading, RunError> {
        self.watch(phase, 1, |_| u64::from(is_done()))
    }

    /// Reads everything now.
    pub(crate) fn read(&self) -> Result<Reading, RunError> {
        Ok(Reading::take(&self.node, self.swarm.total(), self.clock)?)
    }

    /// Ends lines and server and judges the lines; the record is complete but for the scenario's own figures.
    pub(crate) fn close(mut self, failures_max: u64) -> Result<(Record, Screen, Catch), RunError> {
        let total = self.swarm.total();
        let setbacks = self.swarm.setbacks().into_iter();
        self.record
            .add(setbacks.map(|(kind, n)| Figure::new(format!("setbacks.{kind}"), count(n), "")));
        if total.failed + total.lost > failures_max {
            self.record.faults.push(format!(
                "{} lines failed, {} were lost: {}",
                total.failed,
                total.lost,
                self.failures().join("; ")
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
        self.record.series.extend(self.curves.finish());
        self.record.keep_distribution("ramp.open", &catch.opening);
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

    /// What the busiest threads of both ends used in a phase that lasted.
    fn note_busiest(&mut self, phase: &str, at: Duration, tasks: [Option<TaskSample>; 2]) {
        let time = self.clock.now() - at;
        if time < RATE_INTERVAL {
            return;
        }
        for ((end, now), then) in ["server", "generator"].iter().zip(self.tasks()).zip(tasks) {
            let (Some(now), Some(then)) = (now, then) else {
                continue;
            };
            let cores = now.busiest_since(&then).as_secs_f64() / time.as_secs_f64();
            let key = format!("{end}.busiest_thread.{}", phase.replace([' ', '-'], "_"));
            self.record.figures.retain(|figure| figure.key != key);
            self.record.add([Figure::new(key, cores, "cores")]);
            if *end == "generator" && cores > BUSY_MAX {
                self.record.warnings.push(format!(
                    "the generator was overloaded: during {phase} one of its threads was busy {:.0} % of the time",
                    cores * 100.0
                ));
            }
        }
    }

    /// What each thread has used, of the server and of this generator.
    fn tasks(&self) -> [Option<TaskSample>; 2] {
        [self.node.tasks(), TaskSample::read(std::process::id()).ok()]
    }

    fn note_last(&mut self, reading: &Reading) {
        if reading.at - self.last.at >= RATE_INTERVAL {
            self.last = *reading;
        }
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

/// Says so when there are more lines than pairs of addresses have ports.
fn ports_warning(plan: &SwarmPlan, lines: u32) -> Option<String> {
    let targets: BTreeSet<_> = plan.targets.iter().map(|target| target.address).collect();
    let pairs = plan.sources.count()? * targets.len();
    let room = u64::from(address::ports()) * pairs as u64;
    (u64::from(lines) > room).then(|| {
        format!(
            "{lines} lines are more than {pairs} pairs of addresses have ports, {room}: --sources and --destinations \
             make more pairs"
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

/// The server of a run: a running one, or one that is started.
pub(crate) fn open_node(
    arg: &CommonArg,
    settings: &[String],
    screen: &Screen,
) -> Result<Node, NodeError> {
    let (server, lines) = (&arg.server, &arg.lines);
    if !server.target.is_empty() {
        let (api, peer) = (server.api.as_deref(), server.peer.as_deref());
        let node = Node::attach(&server.target, api, peer, server.pid, &server.next_target)?;
        return Ok(node.at_addresses(&AddressBlock::all(&server.destinations)));
    }
    let make = lines.against;
    for setting in &server.set {
        ServerPlan::check_setting(make, setting)?;
    }
    let plan = ServerPlan {
        make,
        program: server.server.clone(),
        reactors: server.reactors.unwrap_or_else(|| {
            lines
                .connections
                .div_ceil(REACTOR_LINES)
                .max(machine::cores())
        }),
        is_tls: arg.tls.tls,
        settings: [settings, &server.set].concat(),
    };
    Node::start(&plan, |text| screen.say(text))
}

/// A setting for a server that is started.
fn time_setting(key: &str, time: Duration) -> String {
    format!("{key}={}ms", time.as_millis())
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
    habit: Habit,
) -> io::Result<SwarmPlan> {
    let elders = f64::from(u8::from(habit.hands_over));
    let sockets = 1.0 + elders + habit.ghosts.map_or(0.0, |ghosts| ghosts.per_line);
    Ok(SwarmPlan {
        lanes: machine::cores(),
        thread_lines_max: descriptor::lines_per_thread(sockets)?,
        targets: node.devices.clone(),
        serving: node.serving,
        sources: sources(node, lines, LINE_NET),
        tls,
        dialect,
        pacing: lines.pacing(),
        open_timeout: lines.open_timeout,
        habit,
    })
}

/// Where messages go: where one says, or else where servers of this make take them.
fn push_path(asked: Option<&Template>, make: Make) -> Result<Template, RunError> {
    let path = asked.cloned().or_else(|| make.push_path());
    path.ok_or(RunError::Usage(NO_PUSH_PATH))
}

/// The server's API; `missing` says what is needed for what.
fn api(node: &Node, missing: &'static str) -> Result<Target, RunError> {
    node.api.clone().ok_or(RunError::Usage(missing))
}

/// `net` keeps swarms apart on loopback.
fn sources(node: &Node, lines: &LineArg, net: u8) -> Sources {
    if !lines.sources.is_empty() {
        Sources::Given(AddressBlock::all(&lines.sources))
    } else if node.is_ipv4_loopback() {
        Sources::Loopback(net)
    } else {
        Sources::Kernel
    }
}

/// The first signal asks for an orderly end; a second one ends the process.
pub(crate) fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, is_second.clone())?;
        signal_hook::flag::register(signal, is_second.clone())?;
        signal_hook::flag::register(signal, is_interrupted.clone())?;
    }
    Ok(is_interrupted)
}
