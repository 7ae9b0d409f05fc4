//! One message for all lines at once: how long until the last has it, and what others notice meanwhile.

use std::io;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};

use crate::arg::CommonArg;
use crate::dialect::Template;
use crate::node::target::Target;
use crate::oracle::Verdict;
use crate::oracle::absence::Absences;
use crate::oracle::ledger::Ledger;
use crate::oracle::mark::Mark;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::sending::lies;
use crate::scenario::{RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::swarm::Habit;
use crate::swarm::catch::Catch;

/// Broadcast to all lines, and see that each gets it once
///
/// With --canary, `canary.broadcast.p99` says what pushes to single lines notice of it. Both ends share the machine: the
/// time until the last line has it includes the generator's reading.
#[derive(Clone, Debug, Args)]
pub(crate) struct BroadcastArg {
    /// Broadcasts, one after the other
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 3)]
    pub(crate) broadcasts: u32,
    /// Bytes of the payload
    #[arg(long, default_value_t = 100)]
    pub(crate) body_bytes: usize,
    /// How long each may take
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// The call.
const PATH: &str = "/v1/broadcasts";
/// Between two broadcasts, so that each meets a quiet server.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the scenario.
pub(crate) fn run(arg: &BroadcastArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let names = lines.names();
    let nothing_sent = Ledger::of(&names);
    let dialect = lines.dialect(names, 0, Template::root())?;
    // The pace that protects a network is not what is measured.
    let settings = ["broadcast.bytes_per_second=1GiB".to_owned()];
    let habit = Habit::default();
    let (mut stage, before) = Stage::open("broadcast", &arg.common, &settings, dialect, habit)?;
    let api = stage.node.api.clone();
    let api = api.ok_or(RunError::Usage("broadcasting to a --target needs --api"))?;
    let ramped = stage.ramp()?;
    let quiet = stage.hold("quiet", PAUSE)?;
    let mut told = Vec::new();
    for number in 0..arg.broadcasts {
        told.push(broadcast(&mut stage, arg, &api, number)?);
        stage.hold("pause", PAUSE)?;
    }
    let end = stage.read()?;
    let (mut record, screen, catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &ramped));
    record.add([Figure::new("lines.lost", count(end.total.lost), "")]);
    record.add(figures(arg, (&quiet, &end), &told, &catch));
    let verdict = Verdict::reach(&nothing_sent, &catch.witnesses, &Absences::default());
    record.faults.extend(lies(&verdict));
    record.faults.extend(faults(arg, &told, &catch, &end));
    record.warnings.extend(ramp_warning(&ramped.total));
    Ok((record, screen))
}

/// Has the server send one, waits until every line has it or time is over, and returns what the server says of it.
fn broadcast(
    stage: &mut Stage,
    arg: &BroadcastArg,
    api: &Target,
    number: u32,
) -> Result<Value, RunError> {
    let mut body = Vec::new();
    let start = stage.clock.now();
    let mark = Mark::for_everybody(number, start);
    mark.write_body(&mut body, arg.body_bytes);
    let begun = request(api, Method::POST, PATH, &body)?;
    let open = stage.read()?.total.open();
    let wanted = open * u64::from(number + 1);
    let deadline = start + arg.timeout;
    stage.watch("broadcast", wanted, |reading| {
        if reading.at < deadline {
            reading.total.broadcasts
        } else {
            wanted
        }
    })?;
    let id = begun["broadcast_id"].as_str().unwrap_or_default();
    request(api, Method::GET, &format!("{PATH}/{id}"), &[])
}

fn figures(
    arg: &BroadcastArg,
    (quiet, end): (&Reading, &Reading),
    told: &[Value],
    catch: &Catch,
) -> Vec<Figure> {
    let heard = count(end.total.broadcasts);
    let said = |name: &str| told.iter().filter_map(|said| said[name].as_u64()).sum();
    let mut figures = vec![
        Figure::new("broadcast.count", f64::from(arg.broadcasts), ""),
        Figure::new("broadcast.received", heard, ""),
    ];
    let own = ["lines", "written", "slow", "gone", "unreached"];
    figures.extend(own.map(|name| {
        let figure = format!("broadcast.server.{name}");
        Figure::new(figure, count(said(name)), "")
    }));
    figures.extend(catch.broadcast.figures("broadcast.delivery"));
    if let Some(us) = end.server_cpu_us_since(quiet) {
        let per_line = us / heard.max(1.0);
        figures.push(Figure::new("server.cpu_per_broadcast_line", per_line, "µs"));
    }
    figures
}

fn faults(arg: &BroadcastArg, told: &[Value], catch: &Catch, end: &Reading) -> Vec<String> {
    let mut faults = Vec::new();
    let wanted = end.total.open() * u64::from(arg.broadcasts);
    if end.total.broadcasts < wanted {
        let missing = wanted - end.total.broadcasts;
        faults.push(format!("{missing} lines did not get a broadcast in time"));
    }
    let twice: u64 = catch.witnesses.iter().map(|w| w.broadcast_twice).sum();
    if twice > 0 {
        faults.push(format!("{twice} broadcasts came twice or out of order"));
    }
    let undone = told.iter().filter(|said| said["state"] != "done");
    faults.extend(undone.map(|said| format!("the server says of a broadcast: {said}")));
    faults
}

/// One request on a connection of its own; anything but a success is an error.
fn request(api: &Target, method: Method, path: &str, body: &[u8]) -> Result<Value, RunError> {
    let agent = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .build()
        .new_agent();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", api.authority))
        .body(body)
        .map_err(ureq::Error::from);
    let answer = request.and_then(|request| agent.run(request));
    let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
    let text = text.map_err(|error| RunError::Sender(io::Error::other(error)))?;
    serde_json::from_str(&text).map_err(|error| RunError::Sender(error.into()))
}
