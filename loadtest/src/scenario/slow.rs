//! Lines that stop reading while messages go on: what they do to the others, and to the server's memory.

use std::time::Duration;

use clap::Args;

use crate::arg::{CommonArg, parse_rate, parse_share};
use crate::report::{Figure, Record};
use crate::scenario::reading::{count, memory_figures, ramp_figures};
use crate::scenario::returning::{ReturnArg, Spell};
use crate::scenario::storm::peak_figures;
use crate::scenario::traffic::{Traffic, TrafficArg};
use crate::scenario::{RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::swarm::Habit;
use crate::swarm::strike::{Blow, SHADOW_LEAD, Strike};

/// Have some lines stop reading while messages to all go on
///
/// The last lines are the slow ones. They are flooded for a while, then read again: what was sent to them arrives, or the
/// server has closed them, and they come back. `delivery.calm` and `delivery.stall` say what the others noticed.
#[derive(Clone, Debug, Args)]
pub(crate) struct SlowArg {
    /// Of all lines, how many stop reading: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0.01")]
    pub(crate) share: f64,
    /// How long they do not read
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) stall: Duration,
    /// Messages per second to the slow lines, all together
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "500")]
    pub(crate) flood_rate: f64,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024)]
    pub(crate) flood_bytes: usize,
    /// How long all is quiet before
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) calm: Duration,
    /// How long to go on once all lines read again
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) after: Duration,
    #[command(flatten)]
    pub(crate) returning: ReturnArg,
    #[command(flatten)]
    pub(crate) traffic: TrafficArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// Curves are this fine.
const WINDOW: Duration = Duration::from_millis(500);
/// What fits into a packet of the internet.
pub(super) const SEGMENT_BYTES: u32 = 1_400;

/// Runs the scenario.
pub(crate) fn run(arg: &SlowArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let names = lines.names();
    let (healthy, slow) = names.split(arg.share);
    if slow.count == 0 {
        return Err(RunError::Usage("this share of the lines is none"));
    }
    let dialect = lines.dialect(names.clone(), 0, arg.traffic.path(lines.against)?)?;
    let habit = Habit {
        segment_bytes: Some(SEGMENT_BYTES),
        ..arg.returning.habit(&names, WINDOW)
    };
    let shadows = habit.shadows.clone();
    let (mut stage, before) = Stage::open("slow", &arg.common, &[], dialect.clone(), habit)?;
    let ramped = stage.ramp()?;
    let push = healthy.rows();
    let push = arg
        .traffic
        .part(&stage, "push", push, arg.traffic.push_rate)?;
    let (rate, bytes) = (arg.flood_rate, arg.flood_bytes);
    let flood = arg
        .traffic
        .flood(&stage, lines.against, slow.rows(), rate, bytes)?;
    let parts = push.into_iter().chain(flood).collect();
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    let calm = stage.hold("calm", arg.calm)?;
    stage.start_peak();
    let strike = |at, blow| Strike {
        at,
        lines: slow.selection(),
        blow,
    };
    let at = stage.clock.now() + SHADOW_LEAD;
    stage.swarm.strike(strike(at, Blow::Deafness));
    stage.swarm.start_lap(at);
    stage.hold("stall", SHADOW_LEAD + arg.stall)?;
    let peak = stage.rss_peak();
    let wake_at = stage.clock.now();
    stage.swarm.start_lap(wake_at);
    stage.swarm.strike(strike(wake_at, Blow::Wake));
    stage.hold("wake", arg.after)?;
    let awake = stage.await_returns("recover", &calm, 0, arg.returning.back_timeout)?;
    let spell = Spell {
        before: calm,
        after: awake,
    };
    let account = traffic.finish(&mut stage)?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &awake));
    record.add([
        Figure::new("slow.lines", f64::from(slow.count), ""),
        Figure::new("slow.closed_by_server", count(spell.ended()), ""),
    ]);
    spell.report("slow", &catch, &mut record);
    record.add(peak_figures("stall", &calm, &awake, peak));
    for (lap, name) in catch.laps.iter().zip(["calm", "stall", "awake"]) {
        record.add_quantiles(&format!("delivery.{name}"), lap);
    }
    record.warnings.extend(ramp_warning(&ramped.total));
    record.warnings.extend(arg.returning.warning(&catch));
    record.faults.extend(spell.fault(lines.failures_max));
    account.settle(&mut record, &mut catch);
    Ok((record, screen))
}
