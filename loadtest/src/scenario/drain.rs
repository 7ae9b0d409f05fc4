//! A node that is asked to leave: what its devices feel, and where they go.

use std::ops::Range;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ureq::http::Method;

use crate::arg::CommonArg;
use crate::make::Make;
use crate::report::{Figure, Record};
use crate::scenario::api::Api;
use crate::scenario::reading::{Reading, memory_figures, ramp_figures};
use crate::scenario::returning::{GOAWAY_GRACE, LeaveArg, ReturnArg, Spell};
use crate::scenario::traffic::{Traffic, TrafficArg};
use crate::scenario::{ONLY_OURS_AGAIN, RunError, Stage, api, ramp_warning, time_setting};
use crate::screen::Screen;

/// Drain a node, and measure what its devices feel
///
/// With --next, or --next-target, lines that come back go to a next node, as a load balancer would have it; else they come
/// back to the same one, which is started again on the same ports, or taken back into service. Pushes go on where the node
/// keeps its address; each is accounted for. A drain is polite: nothing that was promised may be lost. With --next --rounds 2
/// both nodes are restarted, one after the other, as in a rolling deployment.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrainArg {
    /// How the drain begins [default: signal, or with --target api]
    #[arg(long, value_enum)]
    pub(crate) by: Option<DrainBy>,
    /// Start a second server before, which takes over
    #[arg(long, conflicts_with = "target")]
    pub(crate) next: bool,
    /// With --next: how many drains there are, each of the node that has the lines, which is then started again
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1)]
    pub(crate) rounds: u32,
    /// How long the server takes to drain; one that is started is told
    #[arg(long, value_parser = humantime::parse_duration, default_value = "25s")]
    pub(crate) deadline: Duration,
    /// How long a started server waits for load balancers first
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s", conflicts_with = "target")]
    pub(crate) interval: Duration,
    /// With --by api: what to POST to for a drain, and to DELETE to take it back
    #[arg(long, value_name = "PATH", default_value = "/v1/nodes/loadtest/drain")]
    pub(crate) drain_path: String,
    /// How long all is quiet before
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) calm: Duration,
    /// How long to go on once all lines are back
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) after: Duration,
    #[command(flatten)]
    pub(crate) returning: ReturnArg,
    #[command(flatten)]
    pub(crate) leaving: LeaveArg,
    #[command(flatten)]
    pub(crate) traffic: TrafficArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// How a drain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrainBy {
    /// SIGTERM to the server that was started
    Signal,
    /// A call of its API
    Api,
    /// Somebody else drains it by then; lines are watched as they leave and come back
    Hand,
}

/// Curves of a drain are this fine.
const WINDOW: Duration = Duration::from_millis(100);
/// The name of a server that is started, for its API.
const NODE_ID: &str = "node.id=loadtest";

/// Runs the scenario.
pub(crate) fn run(arg: &DrainArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let by = by(arg)?;
    let moves = moves(arg);
    let names = lines.names();
    let dialect = lines.dialect(names.clone(), 0, arg.traffic.path(lines.against)?)?;
    let mut habit = arg.returning.habit(&names, WINDOW);
    habit.hands_over = arg.leaving.hand_over;
    let shadows = habit.shadows.clone();
    let settings = settings(arg);
    let cast = (dialect.clone(), habit);
    let (mut stage, before) =
        Stage::open_prepared("drain", &arg.common, &settings, cast, |node| {
            if arg.next { node.start_next() } else { Ok(()) }
        })?;
    let ramped = stage.ramp()?;
    // A push goes to the node that has the line, which is one address only as long as nobody moves.
    let rate = if moves { 0.0 } else { arg.traffic.push_rate };
    let rows = names.all().rows();
    let part = arg.traffic.part(&stage, "push", rows, rate)?;
    let parts = part.into_iter().collect();
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    stage.hold("calm", arg.calm)?;
    let drain = drain_all(&mut stage, arg, by, moves)?;
    stage.hold("after", arg.after)?;
    let account = traffic.finish(&mut stage)?;
    let end = stage.read()?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &end));
    record.add(drain.figures());
    drain.spell.report_back("drain", &catch, &mut record);
    drain.spell.report("drain", &catch, &mut record);
    record.warnings.extend(ramp_warning(&end.total));
    record.warnings.extend(arg.returning.warning(&catch));
    if moves && arg.traffic.push_rate > 0.0 {
        let text = "nothing was pushed: lines moved to a node with another API";
        record.warnings.push(text.to_owned());
    }
    record.faults.extend(drain.spell.fault(lines.failures_max));
    record.faults.extend(drain.faults(lines.failures_max));
    account.settle(&mut record, &mut catch);
    Ok((record, screen))
}

/// How the drain begins, if that can be.
fn by(arg: &DrainArg) -> Result<DrainBy, RunError> {
    let is_own = arg.common.server.target.is_empty();
    let usual = if is_own {
        DrainBy::Signal
    } else {
        DrainBy::Api
    };
    let by = arg.by.unwrap_or(usual);
    if by == DrainBy::Signal && !is_own {
        return Err(RunError::Usage(
            "--by signal is for a server that is started here",
        ));
    }
    if arg.common.canary.lines() > 0 {
        return Err(RunError::Usage(
            "the canary's lines are drained as well: no canary",
        ));
    }
    if arg.rounds > 1 && !(arg.next && by == DrainBy::Signal) {
        return Err(RunError::Usage(
            "--rounds are restarts of two nodes by turns: --next --by signal",
        ));
    }
    if is_own && arg.common.lines.against != Make::Tautline && (arg.next || by == DrainBy::Signal) {
        return Err(RunError::Usage(ONLY_OURS_AGAIN));
    }
    // Behind a --target there may be others.
    if arg.leaving.hand_over && is_own && !arg.next {
        return Err(RunError::Usage(
            "a node that drains takes no new lines to hand over to: --hand-over with --next",
        ));
    }
    Ok(by)
}

/// Whether lines come back to another node.
fn moves(arg: &DrainArg) -> bool {
    arg.next || !arg.common.server.next_target.is_empty()
}

/// A drain that is over.
struct Drain {
    spell: Spell,
    /// Of each round, the seconds until every line had left.
    left_after: Vec<f64>,
    /// Of each round, how many lines there were, and how many of them stayed.
    stayed: Vec<(u64, u64)>,
}

fn settings(arg: &DrainArg) -> [String; 4] {
    let grace = GOAWAY_GRACE.min(arg.deadline / 5);
    [
        NODE_ID.to_owned(),
        time_setting("drain.deadline", arg.deadline),
        time_setting("drain.interval", arg.interval),
        time_setting("lifetime.goaway_grace", grace),
    ]
}

/// Drains the node that has the lines, as often as it is asked for.
fn drain_all(
    stage: &mut Stage,
    arg: &DrainArg,
    by: DrainBy,
    moves: bool,
) -> Result<Drain, RunError> {
    let serving = stage.node.serving;
    let mut drain = drain(
        stage,
        arg,
        by,
        moves.then_some(serving..stage.node.devices.len()),
    )?;
    for round in 1..arg.rounds {
        stage.await_end(arg.deadline + arg.returning.back_timeout)?;
        stage.restart()?;
        stage.node.change_places();
        let place = usize::from(round % 2 == 0);
        let next = self::drain(stage, arg, by, Some(place..place + 1))?;
        drain.spell.after = next.spell.after;
        drain.left_after.extend(next.left_after);
        drain.stayed.extend(next.stayed);
    }
    Ok(drain)
}

/// Drains a node and waits until its lines are back, there or at other targets.
fn drain(
    stage: &mut Stage,
    arg: &DrainArg,
    by: DrainBy,
    next: Option<Range<usize>>,
) -> Result<Drain, RunError> {
    let before = stage.read()?;
    stage.swarm.start_storm(before.at);
    let moves = next.is_some();
    if let Some(next) = next {
        stage.swarm.direct(next);
    }
    match by {
        DrainBy::Signal => stage.node.terminate()?,
        DrainBy::Api => call(stage, arg, Method::POST)?,
        DrainBy::Hand => {}
    }
    let lines = before.total.open();
    let left = await_leaving(stage, arg, &before, lines)?;
    if !moves {
        match by {
            DrainBy::Signal => {
                stage.await_end(arg.deadline + arg.returning.back_timeout)?;
                stage.restart()?;
            }
            DrainBy::Api => take_back(stage, arg)?,
            DrainBy::Hand => {}
        }
    }
    let after = stage.await_returns("return", &before, lines, arg.returning.back_timeout)?;
    let ended = left.total.ended - before.total.ended;
    Ok(Drain {
        left_after: vec![left.seconds_since(&before)],
        stayed: vec![(lines, lines.saturating_sub(ended))],
        spell: Spell { before, after },
    })
}

fn await_leaving(
    stage: &mut Stage,
    arg: &DrainArg,
    before: &Reading,
    lines: u64,
) -> Result<Reading, RunError> {
    let deadline = before.at + arg.deadline + arg.returning.back_timeout;
    stage.watch_until("leave", lines, deadline, |reading| {
        reading.total.ended - before.total.ended
    })
}

/// A node that is just closing its last lines by force cannot be taken back yet.
fn take_back(stage: &mut Stage, arg: &DrainArg) -> Result<(), RunError> {
    let deadline = stage.clock.now() + arg.returning.back_timeout;
    loop {
        match call(stage, arg, Method::DELETE) {
            Err(RunError::Api(_)) if stage.clock.now() < deadline && !stage.is_halted() => {
                stage.hold("take back", RETRY_AFTER)?;
            }
            other => return other,
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(200);

fn call(stage: &Stage, arg: &DrainArg, method: Method) -> Result<(), RunError> {
    let api = api(&stage.node, "a drain by its API needs --api")?;
    let api = Api::new(&api, &arg.common.lines.header);
    let answer = api.call(method, &arg.drain_path);
    answer.map(drop).map_err(RunError::Api)
}

impl Drain {
    fn figures(&self) -> [Figure; 1] {
        let rounds = self.left_after.clone();
        [Figure::of_rounds("drain.left_after", rounds, "s")]
    }

    /// A node that keeps lines has not drained.
    fn faults(&self, failures_max: u64) -> Vec<String> {
        let stayed = self.stayed.iter();
        let stayed = stayed.filter(|(_, stayed)| *stayed > failures_max);
        stayed
            .map(|(lines, stayed)| format!("{stayed} of {lines} lines did not leave"))
            .collect()
    }
}
