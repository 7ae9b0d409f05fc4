//! One message for all lines at once: how long until the last has it, and what others notice meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use crate::arg::CommonArg;
use crate::dialect::Template;
use crate::name::{LineId, Names};
use crate::oracle::ledger::Ledger;
use crate::oracle::mark::{BODY_BYTES_MIN, Mark};
use crate::oracle::whereabouts::Whereabouts;
use crate::oracle::{Answer, Verdict};
use crate::report::{Figure, Record};
use crate::scenario::api::Api;
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::sending::{verdict_faults, verdict_figures};
use crate::scenario::storm::peak_figures;
use crate::scenario::{RunError, Stage, api, ramp_warning};
use crate::screen::Screen;
use crate::series::Series;
use crate::swarm::Habit;
use crate::swarm::catch::Catch;

/// Broadcast to all lines, and see that each gets it once
///
/// `canary.broadcast.p99` says what pushes to single lines notice of it; without --canary, 100 lines are the canary. A broadcast goes to every line of
/// the node at --api: all lines of the run must be there, and on a running server others get it as well.
#[derive(Clone, Debug, Args)]
pub(crate) struct BroadcastArg {
    /// Broadcasts, one after the other
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=BROADCASTS_MAX), default_value_t = 3)]
    pub(crate) broadcasts: u16,
    /// Bytes of the payload, at least 24
    #[arg(long, default_value_t = BODY_BYTES_MIN)]
    pub(crate) body_bytes: usize,
    /// How long each may take
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// Each has a histogram of its latencies in every thread.
const BROADCASTS_MAX: i64 = 100;
/// The call.
const PATH: &str = "/v1/broadcasts";
/// Around each broadcast, so that it meets a quiet server, and what comes twice is seen.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines beside the others that are pushed to one by one.
const CANARY_LINES: u32 = 100;
/// Curves are this fine.
const WINDOW: Duration = Duration::from_millis(100);

/// Runs the scenario.
pub(crate) fn run(arg: &BroadcastArg) -> Result<(Record, Screen), RunError> {
    let mut common = arg.common.clone();
    common.canary.canary.get_or_insert(CANARY_LINES);
    let lines = &common.lines;
    let names = lines.names();
    let dialect = lines.dialect(names.clone(), 0, Template::root())?;
    let run = rand::random();
    let habit = Habit {
        broadcasts: Some(run),
        window: Some(WINDOW),
        ..Habit::default()
    };
    let (mut stage, before) = Stage::open("broadcast", &common, &[], dialect, habit)?;
    let api = api(&stage.node, "broadcasting to a --target needs --api")?;
    let api = Api::new(&api, &lines.header);
    let ramped = stage.ramp()?;
    let quiet = stage.hold("quiet", PAUSE)?;
    stage.start_peak();
    let mut rounds = Vec::new();
    for number in 0..arg.broadcasts {
        rounds.extend(broadcast(&mut stage, arg, &api, (run, number))?);
        if stage.is_halted() {
            break;
        }
    }
    let end = stage.read()?;
    let peak = stage.rss_peak();
    let (mut record, screen, catch) = stage.close(lines.failures_max)?;
    let ledger = ledger(&names, rounds.len(), &catch);
    let verdict = Verdict::reach(&ledger, &catch.witnesses, &Whereabouts::default());
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &ramped));
    record.add([Figure::new("lines.lost", count(end.total.lost), "")]);
    record.add(figures(&rounds, &catch));
    record.add_latency("broadcast.delivery", &catch.delivery());
    record.series.extend(series(&rounds, &catch));
    record.add(peak_figures("broadcast", &quiet, &end, peak));
    record.add(verdict_figures("messages", &verdict));
    record.faults.extend(verdict_faults(&verdict, "", 0));
    record.faults.extend(rounds.iter().flat_map(Round::faults));
    record.warnings.extend(ramp_warning(&ramped.total));
    Ok((record, screen))
}

/// A broadcast that is over.
struct Round {
    before: Reading,
    after: Reading,
    /// What the server says of it.
    said: Value,
}

/// Has the server send one, and waits until every line has it and the server has done with it, or time is over. What goes
/// wrong with that is a fault of the record; there is no round if the server does not take it.
fn broadcast(
    stage: &mut Stage,
    arg: &BroadcastArg,
    api: &Api,
    (run, number): (u16, u16),
) -> Result<Option<Round>, RunError> {
    let clock = stage.clock;
    let before = stage.read()?;
    let deadline = before.at + arg.timeout;
    let open = before.total.open();
    // Lines that are lost meanwhile are told of elsewhere.
    let missing = |reading: &Reading| {
        let (now, then) = (&reading.total, &before.total);
        let settled = now.messages - then.messages + now.lost - then.lost;
        open.saturating_sub(settled)
    };
    let mut begun = None;
    stage.swarm.start_lap(before.at);
    let after = stage.watch("broadcast", open, |reading| {
        // Within the phase, so that the canary's pushes from the first one on are those beside it.
        let begun = begun.get_or_insert_with(|| {
            let mut body = Vec::new();
            Mark::for_everybody(run, number, clock.now()).write_body(&mut body, arg.body_bytes);
            api.post(PATH, &body).and_then(|text| read(&text))
        });
        if begun.is_err() || reading.at >= deadline {
            open
        } else {
            open - missing(reading)
        }
    })?;
    let begun = match begun {
        Some(Ok(begun)) => begun,
        Some(Err(error)) => {
            let text = format!("the server did not take a broadcast: {error}");
            stage.record.faults.push(text);
            return Ok(None);
        }
        None => return Ok(None),
    };
    let late = missing(&after);
    if late > 0 && after.at >= deadline {
        let timeout = humantime::format_duration(arg.timeout);
        let text = format!("{late} lines did not get a broadcast within {timeout}");
        stage.record.faults.push(text);
    }
    let said = outcome(stage, api, begun, deadline)?;
    Ok(Some(Round {
        before,
        after,
        said,
    }))
}

/// What the server says of a broadcast in the end.
fn outcome(
    stage: &mut Stage,
    api: &Api,
    begun: Value,
    deadline: Duration,
) -> Result<Value, RunError> {
    let id = begun["broadcast_id"].as_str().unwrap_or_default();
    let path = format!("{PATH}/{id}");
    loop {
        stage.hold("pause", PAUSE)?;
        match api.call(Method::GET, &path).and_then(|text| read(&text)) {
            Ok(said) => {
                let is_over = stage.is_halted() || stage.clock.now() >= deadline;
                if is_over || said["state"] != "running" {
                    return Ok(said);
                }
            }
            Err(error) => {
                let text = format!("the server does not say what became of a broadcast: {error}");
                stage.record.faults.push(text);
                return Ok(begun);
            }
        }
    }
}

fn read(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Every line that is there at the end, and therefore always was, must have got every broadcast; the others may have.
fn ledger(names: &Names, broadcasts: usize, catch: &Catch) -> Ledger {
    let mut ledger = Ledger::of(names);
    let down: BTreeSet<LineId> = catch.down.iter().copied().collect();
    for line in (names.first().0..).take(names.lines() as usize).map(LineId) {
        let answer = if down.contains(&line) {
            Answer::Doubtful
        } else {
            Answer::Accepted
        };
        for _ in 0..broadcasts {
            let sequence = ledger.issue(line);
            ledger.settle((line, sequence), answer, (Duration::ZERO, Duration::ZERO));
        }
    }
    ledger
}

fn figures(rounds: &[Round], catch: &Catch) -> Vec<Figure> {
    let said = |name: &str| rounds.iter().filter_map(|r| r.said[name].as_u64()).sum();
    let mut figures = vec![Figure::new(
        "broadcast.count",
        count(rounds.len() as u64),
        "",
    )];
    let own = ["lines", "written", "slow", "gone", "unreached"];
    figures.extend(own.map(|name| {
        let key = format!("broadcast.server_{name}");
        Figure::new(key, count(said(name)), "")
    }));
    let longest = catch.laps.iter().filter(|lap| lap.count() > 0);
    let longest: Vec<_> = longest.map(|lap| lap.quantile(1.0).as_secs_f64()).collect();
    if !longest.is_empty() {
        figures.push(Figure::of_rounds("broadcast.time", longest, "s"));
    }
    let cpu: Option<f64> = rounds
        .iter()
        .map(|round| round.after.server_cpu_us_since(&round.before))
        .sum();
    let received: u64 = rounds.iter().map(Round::received).sum();
    if let Some(us) = cpu.filter(|_| received > 0) {
        let each = us / count(received);
        figures.push(Figure::new("server.cpu_per_broadcast_line", each, "µs"));
    }
    figures
}

/// The latencies of each broadcast, at the time when it began.
fn series(rounds: &[Round], catch: &Catch) -> Vec<(String, Series)> {
    let quantiles = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
    let curve = |(name, quantile): (&str, f64)| {
        let mut series = Series::new("µs");
        for (round, lap) in rounds.iter().zip(&catch.laps) {
            let us = lap.quantile(quantile).as_secs_f64() * 1e6;
            series.push(round.before.at.as_secs_f64(), us);
        }
        (format!("broadcast.delivery.{name}"), series)
    };
    quantiles.map(curve).into()
}

impl Round {
    /// Arrivals until it was over, on all lines.
    fn received(&self) -> u64 {
        self.after.total.messages - self.before.total.messages
    }

    /// What the server says that cannot be right.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.said["state"] != "done" {
            faults.push(format!("the server says of a broadcast: {}", self.said));
        }
        let written = self.said["written"].as_u64().unwrap_or_default();
        let reached = self.received().min(self.before.total.open());
        if written < reached {
            faults.push(format!(
                "the server says that it wrote a broadcast to {written} lines, and {reached} have it"
            ));
        }
        faults
    }
}
