//! What the scenarios that send have in common: a warm-up, a measured time, an account of every message.

use std::time::Duration;

use crate::arg::SendArg;
use crate::dialect::Dialect;
use crate::name::Row;
use crate::oracle::Verdict;
use crate::oracle::ledger::Ledger;
use crate::oracle::whereabouts::Whereabouts;
use crate::oracle::witness::Witness;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::{BUSY_MAX, LATE_SHARE_MAX, RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::sender::book::Book;
use crate::sender::{Medium, Sender, SenderPlan, Span};

/// A run that has sent all it had to send.
#[derive(Debug)]
pub(super) struct Sent {
    senders: usize,
    reached_lines: u32,
    warm: Reading,
    end: Reading,
    book: Book,
}

/// How long the last arrivals may take after the last answers.
pub(super) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);
/// An arrival taken up later than this was kept waiting by the generator.
const LATE: Duration = Duration::from_millis(1);

impl Sent {
    /// Sends to the open lines for as long as `arg` says, and waits for what is then under way.
    pub(super) fn send(
        stage: &mut Stage,
        arg: &SendArg,
        dialect: Dialect,
        medium: Medium,
        rows: Vec<Row>,
    ) -> Result<Self, RunError> {
        if rows.iter().any(|row| row.count == 0) {
            return Err(RunError::Usage(
                "there are more senders than lines to send to",
            ));
        }
        let senders = rows.len();
        let reached_lines = rows.iter().map(|row| row.count).sum();
        let plan = SenderPlan {
            rate: (arg.rate > 0.0).then_some(arg.rate),
            spread: arg.spread,
            body_bytes: arg.body_bytes,
            seed: arg.seed,
            ..SenderPlan::new(dialect, medium, rows)
        };
        let sender = Sender::open(plan, stage.clock).map_err(RunError::Sender)?;
        let record_from = stage.clock.now() + arg.warmup;
        stage.swarm.start_lap(record_from);
        sender.start(Span {
            record_from,
            until: record_from + arg.duration,
        })?;
        let warm = stage.hold("warm-up", arg.warmup)?;
        let end = stage.hold("send", arg.duration)?;
        let book = finish_sending(stage, sender)?;
        Ok(Self {
            senders,
            reached_lines,
            warm,
            end,
            book,
        })
    }

    /// Bytes of a frame as lines got it, on the average: the server's header before what it wrapped around the mark.
    pub(super) fn frame_bytes(&self) -> usize {
        let total = &self.end.total;
        let bytes = total.message_bytes / total.messages.max(1);
        let header = if bytes < 126 { 2 } else { 4 };
        usize::try_from(bytes + header).unwrap_or(usize::MAX)
    }

    /// Closes the stage and accounts for every message. `scenario` is the first word of the figures.
    pub(super) fn close(
        self,
        stage: Stage,
        scenario: &str,
        (before, ramped): (&Reading, &Reading),
        (failures_max, refusals_max): (u64, u64),
    ) -> Result<(Record, Screen), RunError> {
        let Self {
            senders,
            reached_lines,
            warm,
            end,
            book,
        } = &self;
        let (mut record, screen, catch) = stage.close(failures_max)?;
        let verdict = Verdict::reach(&book.ledger, &catch.witnesses, &Whereabouts::default());
        record.add(ramp_figures(before, ramped, &catch));
        record.add(memory_figures(before, ramped));
        let reach = [
            ("senders", count(*senders as u64)),
            ("reached_lines", f64::from(*reached_lines)),
        ];
        record.add([Figure::new("lines.lost", count(end.total.lost), "")]);
        record.add(reach.map(|(name, n)| Figure::new(format!("{scenario}.{name}"), n, "")));
        record.add(rate_figures(scenario, warm, end, book));
        record.add_quantiles(&format!("{scenario}.lateness"), &book.lateness);
        record.add_latency(&format!("{scenario}.delivery"), &catch.delivery());
        record.add_latency(&format!("{scenario}.round_trip"), &book.round_trip);
        record.add(verdict_figures("messages", &verdict));
        record.warnings.extend(ramp_warning(&ramped.total));
        record.warnings.extend(warnings(book));
        record.faults.extend(faults(&verdict, book, refusals_max));
        Ok((record, screen))
    }
}

/// Waits for the answers and the arrivals still under way, so that what is missing then is lost.
pub(super) fn finish_sending(stage: &mut Stage, sender: Sender) -> Result<Book, RunError> {
    stage.watch_done("answers", || sender.is_done())?;
    let book = sender.stop()?;
    await_arrivals(stage, book.ledger.accepted())?;
    Ok(book)
}

/// Waits until so many messages have arrived, all lines together, or the time for that is over.
pub(super) fn await_arrivals(stage: &mut Stage, accepted: u64) -> Result<(), RunError> {
    let deadline = stage.clock.now() + ARRIVAL_TIMEOUT;
    stage.watch_until("arrivals", accepted, deadline, |reading| {
        reading.total.messages
    })?;
    Ok(())
}

fn rate_figures(scenario: &str, from: &Reading, to: &Reading, book: &Book) -> Vec<Figure> {
    let delivered = count(to.total.messages - from.total.messages);
    let seconds = to.seconds_since(from).max(f64::MIN_POSITIVE);
    let own =
        |name: &str, value: f64, unit: &str| Figure::new(format!("{scenario}.{name}"), value, unit);
    let generator_cores = to.generator_cores_since(from);
    let mut figures = vec![
        own("rate", delivered / seconds, "/s"),
        own("sender_cpu", book.busy, "cores"),
        own("generator_cpu", generator_cores, "cores"),
    ];
    if let Some(us) = to.server_cpu_us_since(from) {
        let per_message = us / delivered.max(1.0);
        figures.extend([
            Figure::new(
                format!("server.{scenario}_cpu"),
                us / 1e6 / seconds,
                "cores",
            ),
            Figure::new(CPU_PER_MESSAGE, per_message, "µs"),
        ]);
    }
    let words = book.words.iter();
    figures.extend(words.map(|(word, (_, n))| own(&format!("status.{word}"), count(*n), "")));
    figures
}

/// The figure that says what a delivered message costs the server.
pub(super) const CPU_PER_MESSAGE: &str = "server.cpu_per_message";

/// What became of every message, below `key`.
pub(super) fn verdict_figures(key: &str, verdict: &Verdict) -> Vec<Figure> {
    let counts = [
        ("sent", verdict.sent),
        ("accepted", verdict.accepted),
        ("refused", verdict.refused),
        ("unknown", verdict.unknown),
        ("received", verdict.received),
        ("away", verdict.away),
        ("doubtful", verdict.doubtful),
        ("doubtful_received", verdict.doubtful_received),
    ];
    let all = counts.into_iter().chain(verdict.unaccounted());
    all.map(|(name, n)| Figure::new(format!("{key}.{}", name.replace(' ', "_")), count(n), ""))
        .collect()
}

/// What the generator itself has to answer for.
pub(super) fn warnings(book: &Book) -> Vec<String> {
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

/// What the server cannot account for.
fn lies(verdict: &Verdict) -> Vec<String> {
    let lies = verdict.unaccounted().into_iter().filter(|(_, n)| *n > 0);
    lies.map(|(name, n)| format!("{n} messages {name}"))
        .collect()
}

/// Judges lines that nothing was sent to: what came all the same is a fault, and only then a figure.
pub(super) fn judge_unsent<'w>(
    record: &mut Record,
    witnesses: impl IntoIterator<Item = &'w Witness>,
) {
    let verdict = Verdict::reach(&Ledger::empty(), witnesses, &Whereabouts::default());
    let strays = verdict_figures("messages", &verdict).into_iter();
    let is_stray = |figure: &Figure| figure.value > 0.0;
    record.add(strays.filter(is_stray));
    record.faults.extend(lies(&verdict));
}

/// What went wrong with messages and the connections they left on.
pub(super) fn faults(verdict: &Verdict, book: &Book, refusals_max: u64) -> Vec<String> {
    let mut faults = verdict_faults(verdict, &book.bad_answers(), refusals_max);
    faults.extend(book_faults(book));
    faults
}

/// A refusal to a line that is there is as much a fault as a lost message, unless the run expects some.
pub(super) fn verdict_faults(
    verdict: &Verdict,
    bad_answers: &str,
    refusals_max: u64,
) -> Vec<String> {
    let mut faults = lies(verdict);
    if verdict.refused + verdict.unknown > refusals_max {
        faults.push(format!(
            "{} messages refused, {} unknown: {bad_answers}",
            verdict.refused, verdict.unknown,
        ));
    }
    if verdict.accepted == 0 {
        faults.push("no message was accepted".to_owned());
    }
    faults
}

/// What went wrong with a sender's connections.
pub(super) fn book_faults(book: &Book) -> Vec<String> {
    let mut faults = Vec::new();
    if book.unasked > 0 {
        faults.push(format!(
            "{} answers or messages that no sender waits for",
            book.unasked
        ));
    }
    if let Some(first) = book.broken.first() {
        faults.push(format!(
            "{} sending connections broke: {first}",
            book.broken.len()
        ));
    }
    faults
}
