//! New lines at a rate that rises until something breaks.

use std::time::Duration;

use clap::Args;

use crate::arg::{CommonArg, parse_factor, parse_some_rate};
use crate::dialect::Template;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count};
use crate::scenario::sending::judge_unsent;
use crate::scenario::{LATE_SHARE_MAX, RunError, Stage};
use crate::screen::Screen;
use crate::swarm::Habit;
use crate::swarm::catch::Catch;

/// Open lines at a rising rate until it breaks, and report the last rate that held
///
/// Each rung opens its lines, open loop, then drops them all. A rung holds if every line opened, 99 of 100 within
/// --open-max of when they were meant to start, and sooner than the whole rung takes. If the generator itself was late, the
/// ladder ends as well, and says so: what the server could do is not known then.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectArg {
    /// New lines per second on the first rung
    #[arg(long, value_name = "RATE", value_parser = parse_some_rate, default_value = "1000")]
    pub(crate) from: f64,
    /// The last rung has at most this
    #[arg(long, value_name = "RATE", value_parser = parse_some_rate, default_value = "100k")]
    pub(crate) to: f64,
    /// How many times faster each rung is than the one before
    #[arg(long, value_name = "FACTOR", value_parser = parse_factor, default_value = "1.5")]
    pub(crate) step: f64,
    /// How long a rung lasts, if --connections are enough for it
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) rung: Duration,
    /// How long 99 of 100 lines may take
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    pub(crate) open_max: Duration,
    /// How long to rest between rungs
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    pub(crate) rest: Duration,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// How one rung went.
struct Rung {
    rate: f64,
    lines: u32,
    start: Reading,
    end: Reading,
    catch: Catch,
    failures: Vec<String>,
}

/// Runs the scenario.
pub(crate) fn run(arg: &ConnectArg) -> Result<(Record, Screen), RunError> {
    let (mut common, mut rate) = (arg.common.clone(), arg.from);
    let dialect = |common: &CommonArg, rate: f64| {
        let lines = &common.lines;
        lines.dialect(lines.names_of(0, lines_of(arg, rate)), 0, Template::root())
    };
    common.lines.ramp = rate;
    let first = dialect(&common, rate)?;
    let (mut stage, mut start) = Stage::open("connect", &common, &[], first, Habit::default())?;
    let mut rungs = Vec::new();
    loop {
        let end = stage.ramp()?;
        let failures = stage.failures();
        let next_rate = (rate * arg.step).min(arg.to);
        common.lines.ramp = next_rate;
        let next = dialect(&common, next_rate)?;
        let catch = stage.end_lines()?;
        let rung = Rung {
            rate,
            lines: lines_of(arg, rate),
            start,
            end,
            catch,
            failures,
        };
        let is_last = rung.fault(arg).is_some() || rate >= arg.to || stage.is_halted();
        rungs.push(rung);
        if is_last {
            break;
        }
        stage.hold("rest", arg.rest)?;
        start = stage.read()?;
        stage.open_lines(&common.lines, next)?;
        rate = next_rate;
    }
    let (mut record, screen, _) = stage.close(u64::MAX)?;
    report(arg, &rungs, &mut record);
    Ok((record, screen))
}

fn report(arg: &ConnectArg, rungs: &[Rung], record: &mut Record) {
    for rung in rungs {
        record.add(rung.figures());
        record.add_quantiles(&rung.key("open"), &rung.catch.opening);
    }
    judge_unsent(record, rungs.iter().flat_map(|rung| &rung.catch.witnesses));
    let held = rungs.iter().rfind(|rung| rung.fault(arg).is_none());
    let broken = rungs.iter().find_map(|rung| Some((rung, rung.fault(arg)?)));
    if let Some(rung) = held {
        record.add([Figure::new("connect.knee", rung.rate, "/s")]);
    }
    match broken {
        Some((rung, why)) => {
            record.add([Figure::new("connect.broke_at", rung.rate, "/s")]);
            let text = format!("{:.0} new lines a second did not hold: {why}", rung.rate);
            let is_first = held.is_none();
            if is_first {
                &mut record.faults
            } else {
                &mut record.warnings
            }
            .push(text);
        }
        None => record
            .warnings
            .push("no rung broke: ask for more with --to".to_owned()),
    }
}

/// Lines of a rung.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and the cast saturates"
)]
fn lines_of(arg: &ConnectArg, rate: f64) -> u32 {
    let wanted = (rate * arg.rung.as_secs_f64()).ceil() as u32;
    wanted.clamp(1, arg.common.lines.connections)
}

impl Rung {
    /// Why it has not held, if so.
    fn fault(&self, arg: &ConnectArg) -> Option<String> {
        let total = &self.end.total;
        let bad = total.failed + total.lost + u64::from(self.lines).saturating_sub(total.settled());
        let late = count(total.late) > LATE_SHARE_MAX * count(total.started);
        let p99 = self.catch.opening.quantile(0.99);
        if bad > arg.common.lines.failures_max {
            Some(format!("{bad} lines failed: {}", self.failures.join("; ")))
        } else if late {
            Some(format!(
                "the generator was overloaded, and started {} of {} lines late",
                total.late, total.started
            ))
        } else if p99 > arg.open_max.min(self.planned()) {
            Some(format!("one in a hundred lines took over {p99:.2?}"))
        } else {
            None
        }
    }

    /// How long the rung lasts if all goes well. A server that takes as long for each line has fallen behind.
    fn planned(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.lines) / self.rate)
    }

    fn key(&self, name: &str) -> String {
        format!("connect.{:.0}.{name}", self.rate)
    }

    fn figures(&self) -> Vec<Figure> {
        let key = |name: &str| self.key(name);
        let total = &self.end.total;
        let mut figures = vec![
            Figure::new(key("lines"), f64::from(self.lines), ""),
            Figure::new(key("failed"), count(total.failed + total.lost), ""),
            Figure::new(key("time"), self.planned().as_secs_f64(), "s"),
            Figure::new(key("late_starts"), count(total.late), ""),
        ];
        let generator = self.end.generator_cores_since(&self.start);
        figures.push(Figure::new(key("generator_cpu"), generator, "cores"));
        if let Some(us) = self.end.server_cpu_us_since(&self.start) {
            let each = us / count(total.opened.max(1));
            figures.push(Figure::new(key("server_cpu_per_new_line"), each, "µs"));
        }
        figures
    }
}
