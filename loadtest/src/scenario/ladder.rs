//! The same server with more and more lines: how costs grow.

use std::time::Duration;

use clap::Args;

use crate::arg::{CommonArg, parse_some_rate};
use crate::dialect::{Dialect, Template};
use crate::oracle::Verdict;
use crate::oracle::ledger::Ledger;
use crate::oracle::whereabouts::Whereabouts;
use crate::report::{Figure, Record};
use crate::scenario::idle::heartbeat_settings;
use crate::scenario::reading::{Reading, count};
use crate::scenario::sending::{self, finish_sending, verdict_figures};
use crate::scenario::{NO_API, RunError, Stage, api, push_path, ramp_warning};
use crate::screen::Screen;
use crate::sender::book::Book;
use crate::sender::{Medium, Sender, SenderPlan, Span};
use crate::swarm::Habit;

/// Measure bytes per line, CPU per heartbeat and CPU per message with more and more lines
///
/// At each rung the lines are held with heartbeats, then pushed to. `ladder.growth` compares the last rung with the first.
#[derive(Clone, Debug, Args)]
pub(crate) struct LadderArg {
    /// The rungs, in lines; those beyond --connections are left out, and these are the last
    #[arg(long, value_delimiter = ',', value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(default_value = "10000,20000,50000,100000,200000,500000,1000000")]
    pub(crate) rungs: Vec<u32>,
    /// How long to hold each rung
    #[arg(long, value_parser = humantime::parse_duration, default_value = "45s")]
    pub(crate) hold: Duration,
    /// Silence after which a started server pings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s", conflicts_with = "target")]
    pub(crate) ping_after: Duration,
    /// How long to push at each rung
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) send: Duration,
    /// Pushes per second
    #[arg(long, value_parser = parse_some_rate, default_value = "5000")]
    pub(crate) rate: f64,
    /// Where they go; {device} and {account} are filled in [default: as for --against]
    #[arg(long)]
    pub(crate) push_path: Option<Template>,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// What was measured at one rung.
#[derive(Debug)]
struct Rung {
    lines: u32,
    figures: Vec<(&'static str, f64, &'static str)>,
}

/// Pushes without an answer on each connection.
const PIPELINE_MAX: u32 = 16;

/// Runs the scenario.
pub(crate) fn run(arg: &LadderArg) -> Result<(Record, Screen), RunError> {
    let rungs = rungs(arg);
    let lines = &arg.common.lines;
    let settings = heartbeat_settings(arg.ping_after);
    let push_path = push_path(arg.push_path.as_ref(), lines.against)?;
    let part =
        |from: u32, to: u32| lines.dialect(lines.names_of(from, to - from), 0, push_path.clone());
    let first = part(0, rungs[0])?;
    let (mut stage, before) =
        Stage::open("ladder", &arg.common, &settings, first, Habit::default())?;
    let api = api(&stage.node, NO_API)?;
    let names = lines.names();
    let dialect = lines.dialect(names.clone(), 0, push_path.clone())?;
    let mut book = Book::empty(Ledger::of(&names));
    let mut measured = Vec::new();
    let mut start = before;
    for (turn, count) in rungs.iter().enumerate() {
        if turn > 0 {
            start = stage.read()?;
            stage.grow(lines, part(rungs[turn - 1], *count)?)?;
        }
        let ramped = stage.ramp()?;
        if stage.is_halted() {
            break;
        }
        let mut rung = climb(&mut stage, arg, *count, (&before, &start, &ramped))?;
        let medium = Medium::Http {
            api: api.clone(),
            pipeline: PIPELINE_MAX,
        };
        book = push(&mut stage, arg, &dialect, medium, book, &mut rung)?;
        measured.push(rung);
    }
    let end = stage.read()?;
    let (mut record, screen, catch) = stage.close(lines.failures_max)?;
    let verdict = Verdict::reach(&book.ledger, &catch.witnesses, &Whereabouts::default());
    for (rung, lap) in measured.iter().zip(&catch.laps) {
        record.add(rung.figures());
        record.add_quantiles(&format!("ladder.{}.delivery", rung.lines), lap);
    }
    record.add(growth(&measured));
    record.add(verdict_figures("messages", &verdict));
    record.warnings.extend(ramp_warning(&end.total));
    record.warnings.extend(sending::warnings(&book));
    record.faults.extend(sending::faults(&verdict, &book, 0));
    Ok((record, screen))
}

/// Rising, and up to all lines.
fn rungs(arg: &LadderArg) -> Vec<u32> {
    let all = arg.common.lines.connections;
    let mut rungs: Vec<u32> = arg.rungs.iter().copied().filter(|n| *n < all).collect();
    rungs.push(all);
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// Holds the lines of a rung.
fn climb(
    stage: &mut Stage,
    arg: &LadderArg,
    lines: u32,
    (before, start, ramped): (&Reading, &Reading, &Reading),
) -> Result<Rung, RunError> {
    // The first pings fall due one interval after the lines opened; only then is the load steady.
    let settled = stage.hold("settle", arg.ping_after.min(arg.hold / 2))?;
    let held = stage.hold("hold", arg.hold.saturating_sub(settled.at - ramped.at))?;
    let pings = count(held.total.pings - settled.total.pings);
    let open = count(held.total.open().max(1));
    let mut figures = Vec::new();
    if let (Some(first), Some(last)) = (before.server, held.server) {
        let grown = last - first;
        figures.push(("bytes_per_line", count(grown.rss) / open, "B"));
        figures.push(("anon_bytes_per_line", count(grown.rss_anon) / open, "B"));
    }
    let slab = held.kernel.slab.saturating_sub(before.kernel.slab);
    figures.push(("slab_per_line_all_ends", count(slab) / open, "B"));
    let generator = (held.generator - before.generator).rss;
    figures.push(("generator_bytes_per_line", count(generator) / open, "B"));
    if let Some(us) = ramped.server_cpu_us_since(start) {
        let new = ramped.total.opened - start.total.opened;
        figures.push(("cpu_per_new_line", us / count(new.max(1)), "µs"));
    }
    if let Some(us) = held.server_cpu_us_since(&settled).filter(|_| pings > 0.0) {
        figures.push(("cpu_per_heartbeat", us / pings, "µs"));
    }
    Ok(Rung { lines, figures })
}

/// Pushes to the lines of a rung, going on in the book of the rungs below.
fn push(
    stage: &mut Stage,
    arg: &LadderArg,
    dialect: &Dialect,
    medium: Medium,
    book: Book,
    rung: &mut Rung,
) -> Result<Book, RunError> {
    let reached = arg.common.lines.names_of(0, rung.lines);
    let rows = reached.all().rows();
    let plan = SenderPlan {
        rate: Some(arg.rate),
        seed: u64::from(rung.lines),
        ..SenderPlan::new(dialect.clone(), medium, rows)
    };
    let sender = Sender::resume(plan, book, stage.clock).map_err(RunError::Sender)?;
    let (before, from) = (stage.read()?, stage.clock.now());
    stage.swarm.start_lap(from);
    sender.start(Span {
        record_from: from,
        until: from + arg.send,
    })?;
    let after = stage.hold("send", arg.send)?;
    let book = finish_sending(stage, sender)?;
    let delivered = count(after.total.messages - before.total.messages);
    if let Some(us) = after
        .server_cpu_us_since(&before)
        .filter(|_| delivered > 0.0)
    {
        rung.figures.push(("cpu_per_message", us / delivered, "µs"));
    }
    Ok(book)
}

/// What the last rung costs, in times of the first.
fn growth(rungs: &[Rung]) -> Vec<Figure> {
    let (Some(first), Some(last)) = (rungs.first(), rungs.last()) else {
        return Vec::new();
    };
    let grown = first.figures.iter().filter_map(|(name, low, _)| {
        let (_, high, _) = last.figures.iter().find(|(other, ..)| other == name)?;
        let ratio = (*low > 0.0).then(|| high / low)?;
        Some(Figure::new(format!("ladder.growth.{name}"), ratio, "×"))
    });
    grown.collect()
}

impl Rung {
    fn figures(&self) -> Vec<Figure> {
        let figures = self.figures.iter();
        let named = figures.map(|(name, value, unit)| {
            Figure::new(format!("ladder.{}.{name}", self.lines), *value, unit)
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arg: LadderArg,
    }

    #[test]
    fn rungs_rise_to_all_lines() {
        let of = |args: &[&str]| {
            let line = Line::parse_from([&["ladder"], args].concat());
            rungs(&line.arg)
        };
        assert_eq!(of(&["-n", "30000"]), [10_000, 20_000, 30_000]);
        assert_eq!(of(&["-n", "500"]), [500]);
        assert_eq!(of(&["-n", "50", "--rungs", "40,10,50,99"]), [10, 40, 50]);
    }

    #[test]
    fn growth_is_the_last_rung_in_times_of_the_first() {
        let rung = |lines, bytes| Rung {
            lines,
            figures: vec![("bytes_per_line", bytes, "B"), ("cpu", 0.0, "µs")],
        };
        let growth = growth(&[rung(10, 100.0), rung(20, 400.0), rung(30, 150.0)]);
        assert_eq!(
            growth,
            [Figure::new("ladder.growth.bytes_per_line", 1.5, "×")]
        );
    }
}
