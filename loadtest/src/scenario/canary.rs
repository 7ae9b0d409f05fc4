//! Lines beside the measured ones that are pushed to all the while: what everybody else notices of the load.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::arg::CommonArg;
use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::name::Names;
use crate::node::Node;
use crate::oracle::Verdict;
use crate::oracle::whereabouts::Whereabouts;
use crate::precedence::Precedence;
use crate::report::{Figure, Record};
use crate::scenario::reading::count;
use crate::scenario::sending::{self, ARRIVAL_TIMEOUT, verdict_figures};
use crate::scenario::{RunError, api, push_path, sources, swarm_plan};
use crate::sender::{Medium, Sender, SenderPlan, Span};
use crate::swarm::ramp::Pacing;
use crate::swarm::{Cut, Habit, Swarm, SwarmPlan};
use crate::tls::TlsPlan;

/// A canary in its cage: lines of its own, a sender of its own.
#[derive(Debug)]
pub(super) struct Canary {
    swarm: Swarm,
    sender: Sender,
    clock: Clock,
    rate: f64,
    /// The phases so far, each a lap of the swarm's.
    phases: Vec<&'static str>,
    has_precedence: bool,
}

/// Pushes without an answer on each connection; what has to wait for room counts as late all the same.
const PIPELINE_MAX: u32 = 64;
/// Lines of the canary that open at once: it is not the storm.
const IN_FLIGHT_MAX: u32 = 64;
/// Far enough from the addresses of the measured lines.
const CANARY_NET: u8 = 64;
const POLL: Duration = Duration::from_millis(5);

impl Canary {
    /// Opens it and starts pushing; `None` if none is asked for.
    pub(super) fn open(
        arg: &CommonArg,
        node: &Node,
        tls: Option<Arc<TlsPlan>>,
        window: Duration,
        clock: Clock,
    ) -> Result<Option<Self>, RunError> {
        let lines = arg.canary.lines();
        if lines == 0 {
            return Ok(None);
        }
        let api = api(node, "a canary of a --target needs --api")?;
        let precedence = Precedence::take();
        let names = Names::tagged(rand::random(), lines);
        let rows = names.all().rows();
        let path = push_path(arg.canary.canary_path.as_ref(), arg.lines.against)?;
        let dialect = arg.lines.dialect(names, 0, path)?;
        let habit = Habit {
            window: Some(window),
            ..Habit::default()
        };
        let swarm = open_lines(arg, node, tls, (dialect.clone(), habit), clock)?;
        let medium = Medium::Http {
            api,
            pipeline: PIPELINE_MAX,
        };
        let plan = SenderPlan {
            rate: Some(arg.canary.canary_rate),
            seed: rand::random(),
            ..SenderPlan::new(dialect, medium, rows)
        };
        let sender = Sender::open(plan, clock).map_err(RunError::Sender)?;
        sender.start(Span {
            record_from: clock.now(),
            until: Duration::MAX,
        })?;
        Ok(Some(Self {
            swarm,
            sender,
            clock,
            rate: arg.canary.canary_rate,
            phases: Vec::new(),
            has_precedence: precedence.is_given(),
        }))
    }

    /// Keeps latencies from now on apart from those of other phases; phases of one name are one.
    pub(super) fn start_phase(&mut self, phase: &'static str, now: Duration) {
        let known = self.phases.iter().position(|known| *known == phase);
        if let Some(lap) = known {
            return self.swarm.resume_lap(lap, now);
        }
        self.phases.push(phase);
        self.swarm.start_lap(now);
    }

    /// Stops pushing and says how it went: what the canary missed is a fault of the run.
    pub(super) fn close(self, cut: Cut, record: &mut Record) -> io::Result<()> {
        let total = self.swarm.total();
        let book = self.sender.stop()?;
        let deadline = self.clock.now() + ARRIVAL_TIMEOUT;
        let accepted = book.ledger.accepted();
        while self.swarm.total().messages < accepted && self.clock.now() < deadline {
            thread::park_timeout(POLL);
        }
        let mut catch = self.swarm.stop(cut)?;
        let whereabouts = Whereabouts::default();
        let verdict = Verdict::reach(&book.ledger, &catch.witnesses, &whereabouts);
        let timeline = catch.timeline.take();
        record
            .series
            .extend(timeline.into_iter().flat_map(|line| line.series("canary")));
        record.add_latency("canary", &catch.delivery());
        for (phase, lap) in self.phases.iter().zip(&catch.laps) {
            record.add_quantiles(&format!("canary.{}", phase.replace('-', "_")), lap);
        }
        record.add_quantiles("canary.lateness", &book.lateness);
        record.add([Figure::new("canary.lines_lost", count(total.lost), "")]);
        record.add(verdict_figures("canary", &verdict));
        let as_canary = |text: String| format!("canary: {text}");
        let faults = sending::faults(&verdict, &book, 0);
        let warnings = sending::warnings(&book);
        record.faults.extend(faults.into_iter().map(as_canary));
        record.warnings.extend(warnings.into_iter().map(as_canary));
        record.warnings.push(format!(
            "the server's figures include {} pushes a second to the canary",
            self.rate
        ));
        if !self.has_precedence {
            record.warnings.push(
                "the canary's threads have no precedence over those that load, for want of CAP_SYS_NICE: its latencies include \
                 its own waiting for a core"
                    .to_owned(),
            );
        }
        if total.lost > 0 {
            let text = format!("canary: {} lines were lost", total.lost);
            record.faults.push(text);
        }
        Ok(())
    }
}

fn open_lines(
    arg: &CommonArg,
    node: &Node,
    tls: Option<Arc<TlsPlan>>,
    (dialect, habit): (Dialect, Habit),
    clock: Clock,
) -> Result<Swarm, RunError> {
    let lines = u64::from(dialect.names.lines());
    let plan = SwarmPlan {
        lanes: 1,
        sources: sources(node, &arg.lines, CANARY_NET),
        pacing: Pacing::InFlight(IN_FLIGHT_MAX),
        ..swarm_plan(node, &arg.lines, tls, dialect, habit)?
    };
    let swarm = Swarm::start(plan, clock)?;
    while swarm.total().settled() < lines && !swarm.is_broken() {
        thread::park_timeout(POLL);
    }
    if swarm.total().opened == lines {
        return Ok(swarm);
    }
    let failures = swarm.failures();
    let failures: Vec<_> = failures
        .iter()
        .map(|(kind, n)| format!("{n} × {kind}"))
        .collect();
    Err(RunError::Canary(failures.join("; ")))
}
