//! Lines that do nothing but stay: what they take, what their heartbeats cost, how fast they come.

use std::time::Duration;

use clap::Args;

use crate::arg::CommonArg;
use crate::dialect::Template;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::sending::judge_unsent;
use crate::scenario::{RunError, Stage, ramp_warning, time_setting};
use crate::screen::Screen;
use crate::swarm::Habit;

/// Open many lines, hold them with heartbeats on, and measure memory and CPU per line
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArg {
    /// How long to hold the lines once they are open
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) hold: Duration,
    /// Silence after which a started server pings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s", conflicts_with = "target")]
    pub(crate) ping_after: Duration,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// The server's own default.
const PONG_TIMEOUT_MAX: Duration = Duration::from_secs(15);

/// Runs the scenario.
pub(crate) fn run(arg: &IdleArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let settings = heartbeat_settings(arg.ping_after);
    let dialect = lines.dialect(lines.names(), 0, Template::root())?;
    let (mut stage, before) =
        Stage::open("idle", &arg.common, &settings, dialect, Habit::default())?;
    let ramped = stage.ramp()?;
    // The first pings fall due one interval after the lines opened; only then is the load steady.
    let settled = stage.hold("settle", arg.ping_after.min(arg.hold / 2))?;
    let held = stage.hold("hold", arg.hold.saturating_sub(settled.at - ramped.at))?;
    let (mut record, screen, catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add([Figure::new("lines.lost", count(held.total.lost), "")]);
    record.add(memory_figures(&before, &held));
    record.add(heartbeat_figures(&settled, &held));
    judge_unsent(&mut record, &catch.witnesses);
    record.warnings.extend(ramp_warning(&held.total));
    Ok((record, screen))
}

/// A pong must be due before the next ping is.
pub(crate) fn heartbeat_settings(ping_after: Duration) -> [String; 2] {
    let pong_timeout = PONG_TIMEOUT_MAX.min(ping_after / 2);
    [
        time_setting("heartbeat.ping_after", ping_after),
        time_setting("heartbeat.pong_timeout", pong_timeout),
    ]
}

/// What steady heartbeats cost.
fn heartbeat_figures(from: &Reading, to: &Reading) -> Vec<Figure> {
    let pings = count(to.total.pings - from.total.pings);
    let seconds = to.seconds_since(from).max(f64::MIN_POSITIVE);
    let mut figures = vec![
        Figure::new("hold.pings", pings, ""),
        Figure::new("hold.ping_rate", pings / seconds, "/s"),
        Figure::new(
            "hold.generator_cpu",
            to.generator_cores_since(from),
            "cores",
        ),
    ];
    if let Some(us) = to.server_cpu_us_since(from) {
        figures.push(Figure::new("server.hold_cpu", us / 1e6 / seconds, "cores"));
        if pings > 0.0 {
            figures.push(Figure::new("server.cpu_per_heartbeat", us / pings, "µs"));
        }
        let per_line = us / seconds / count(to.total.open().max(1));
        figures.push(Figure::new("server.cpu_per_line_second", per_line, "µs"));
    }
    figures
}
