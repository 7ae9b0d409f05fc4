//! Messages over HTTP to random lines: what one costs, how long it takes, and whether all arrive.

use std::time::Duration;

use clap::Args;

use crate::arg::{LineArg, RecordArg, ServerArg, parse_rate};
use crate::dialect::{Dialect, Template};
use crate::oracle::Verdict;
use crate::oracle::mark::BODY_BYTES_MIN;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::{LATE_SHARE_MAX, RunError, Stage, ramp_warning};
use crate::schedule::Spread;
use crate::screen::Screen;
use crate::sender::{Book, Sender, SenderPlan};

/// Push messages over HTTP to random lines; every one is accounted for
#[derive(Clone, Debug, Args)]
pub(crate) struct PushArg {
    /// Keep-alive connections that send
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 16)]
    pub(crate) senders: u32,
    /// Unanswered messages on each connection
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1)]
    pub(crate) pipeline: u32,
    /// Messages per second, open loop, timed from when they were meant to leave; 0 sends on each answer
    #[arg(long, value_parser = parse_rate, default_value = "0")]
    pub(crate) rate: f64,
    /// How arrivals are spread when a rate is given
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) spread: Spread,
    /// How long to send and measure
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// How long to send before that
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    pub(crate) warmup: Duration,
    /// Level to wait for, added to the path as `wait`
    #[arg(long)]
    pub(crate) wait: Option<String>,
    /// Bytes of a message's body, at least 24
    #[arg(long, default_value_t = BODY_BYTES_MIN)]
    pub(crate) body_bytes: usize,
    /// Where messages go; {device} and {account} are filled in
    #[arg(long, default_value = "/v1/devices/{device}/messages")]
    pub(crate) push_path: Template,
    /// Messages the server may refuse, or not know of, before the run has failed
    #[arg(long, default_value_t = 0)]
    pub(crate) refusals_max: u64,
    /// Fixes targets and arrivals
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) lines: LineArg,
    #[command(flatten)]
    pub(crate) server: ServerArg,
    #[command(flatten)]
    pub(crate) record: RecordArg,
}

/// How long the last answers may take, and then the last arrivals.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);
/// An arrival taken up later than this was kept waiting by the generator.
const LATE: Duration = Duration::from_millis(1);
/// A sending thread busier than this is the limit itself.
const BUSY_MAX: f64 = 0.9;

/// Runs the scenario.
pub(crate) fn run(arg: &PushArg) -> Result<(Record, Screen), RunError> {
    if arg.senders > arg.lines.connections {
        return Err(RunError::Usage("there are more senders than lines"));
    }
    let dialect = arg.lines.dialect(push_path(arg))?;
    let (mut stage, before) = Stage::open("push", &arg.server, &arg.lines, dialect.clone())?;
    let ramped = stage.ramp(arg.lines.connections)?;
    let sender = start_sender(arg, &stage, dialect)?;
    let warm = stage.hold("warm-up", arg.warmup)?;
    let sent = stage.hold("push", arg.duration)?;
    let book = finish_sending(&mut stage, sender)?;
    let (mut record, screen, catch) = stage.close(arg.lines.failures_max)?;
    let verdict = Verdict::reach(&book.ledger, &catch.witnesses);
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &ramped));
    record.add([Figure::new("lines.lost", count(sent.total.lost), "")]);
    record.add(push_figures(&warm, &sent, &book));
    record.add(catch.delivery.figures("push.delivery"));
    record.add(book.round_trip.figures("push.round_trip"));
    record.add(verdict_figures(&verdict));
    record.warnings.extend(ramp_warning(&ramped.total));
    record.warnings.extend(sender_warnings(&book));
    record
        .faults
        .extend(faults(&verdict, &book, arg.refusals_max));
    Ok((record, screen))
}

fn push_path(arg: &PushArg) -> Template {
    match &arg.wait {
        Some(level) => arg.push_path.with_query("wait", level),
        None => arg.push_path.clone(),
    }
}

fn start_sender(arg: &PushArg, stage: &Stage, dialect: Dialect) -> Result<Sender, RunError> {
    let api = stage
        .node
        .api
        .ok_or(RunError::Usage("pushing to a --target needs --api"))?;
    let record_from = stage.clock.now() + arg.warmup;
    stage.swarm.record_from(record_from);
    let plan = SenderPlan {
        api,
        dialect,
        lines: arg.lines.connections,
        connections: arg.senders,
        pipeline: arg.pipeline,
        rate: (arg.rate > 0.0).then_some(arg.rate),
        spread: arg.spread,
        body_bytes: arg.body_bytes,
        record_from,
        until: record_from + arg.duration,
        answer_timeout: ANSWER_TIMEOUT,
        seed: arg.seed,
    };
    Ok(Sender::start(plan, stage.clock)?)
}

/// Waits for the answers and the arrivals still under way, so that what is missing then is lost.
fn finish_sending(stage: &mut Stage, sender: Sender) -> Result<Book, RunError> {
    stage.watch("answers", 1, |_| u64::from(sender.is_done()))?;
    let book = sender.stop()?;
    let accepted = book.ledger.accepted();
    let deadline = stage.clock.now() + ARRIVAL_TIMEOUT;
    stage.watch("arrivals", accepted, |reading| {
        if reading.at < deadline {
            reading.total.messages
        } else {
            accepted
        }
    })?;
    Ok(book)
}

fn push_figures(from: &Reading, to: &Reading, book: &Book) -> Vec<Figure> {
    let delivered = count(to.total.messages - from.total.messages);
    let seconds = to.seconds_since(from).max(f64::MIN_POSITIVE);
    let mut figures = vec![
        Figure::new("push.rate", delivered / seconds, "/s"),
        Figure::new("push.sender_cpu", book.busy, "cores"),
        Figure::new(
            "push.generator_cpu",
            to.generator_cores_since(from),
            "cores",
        ),
    ];
    if let Some(us) = to.server_cpu_us_since(from) {
        figures.push(Figure::new("server.push_cpu", us / 1e6 / seconds, "cores"));
        figures.push(Figure::new(
            "server.cpu_per_message",
            us / delivered.max(1.0),
            "µs",
        ));
    }
    figures.extend(book.lateness.figures("push.lateness"));
    let statuses = book.statuses.iter();
    figures.extend(
        statuses.map(|(status, n)| Figure::new(format!("push.status.{status}"), count(*n), "")),
    );
    figures
}

fn verdict_figures(verdict: &Verdict) -> Vec<Figure> {
    let counts = [
        ("sent", verdict.sent),
        ("accepted", verdict.accepted),
        ("refused", verdict.refused),
        ("unknown", verdict.unknown),
        ("received", verdict.received),
    ];
    let all = counts.into_iter().chain(verdict.unaccounted());
    all.map(|(name, n)| Figure::new(format!("messages.{}", name.replace(' ', "_")), count(n), ""))
        .collect()
}

fn sender_warnings(book: &Book) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_late = book.lateness.quantile(1.0 - LATE_SHARE_MAX) > LATE;
    if book.lateness.count() > 0 && is_late {
        warnings.push(
            "the generator was overloaded: one in a hundred messages left over 1 ms late"
                .to_owned(),
        );
    }
    if book.busy > BUSY_MAX {
        warnings.push(format!(
            "the sending thread was busy {:.0} % of the time: the rate is its limit",
            book.busy * 100.0
        ));
    }
    if book.unsent > 0 {
        warnings.push(format!(
            "the server did not keep up: {} messages never left the backlog",
            book.unsent
        ));
    }
    warnings
}

/// All lines are open, so a refusal is as much a fault as a lost message unless the run expects some.
fn faults(verdict: &Verdict, book: &Book, refusals_max: u64) -> Vec<String> {
    let lies = verdict.unaccounted().into_iter().filter(|(_, n)| *n > 0);
    let mut faults: Vec<String> = lies
        .map(|(name, n)| format!("{n} messages {name}"))
        .collect();
    if verdict.refused + verdict.unknown > refusals_max {
        faults.push(format!(
            "{} messages refused, {} unknown: {}",
            verdict.refused,
            verdict.unknown,
            book.bad_statuses()
        ));
    }
    if let Some(first) = book.broken.first() {
        faults.push(format!(
            "{} sending connections broke: {first}",
            book.broken.len()
        ));
    }
    if verdict.accepted == 0 {
        faults.push("no message was accepted".to_owned());
    }
    faults
}
