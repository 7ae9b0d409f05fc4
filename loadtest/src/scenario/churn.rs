//! Lines that leave and come at a steady rate: a fleet's maximum age, compressed in time.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::arg::CommonArg;
use crate::make::Make;
use crate::report::{Figure, Record};
use crate::scenario::reading::{count, memory_figures, ramp_figures};
use crate::scenario::returning::{
    GOAWAY_GRACE, LeaveArg, ReturnArg, Spell, missing_fault, stray_fault,
};
use crate::scenario::traffic::{Traffic, TrafficArg};
use crate::scenario::{RunError, Stage, ramp_warning, time_setting};
use crate::screen::Screen;

/// Have lines leave and come back at a steady rate, as they do at their maximum age
///
/// Each line lives for a random time up to --age, so of N lines about 2 N / age leave per second. Pushes go on all the
/// while; each is accounted for, also those that meet a line that is just changing.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChurnArg {
    /// Who ends lines: the server, with go-aways (one of ours that is started is told the age), or the devices themselves
    /// [default: server where it is told, else device]
    #[arg(long, value_enum)]
    pub(crate) by: Option<ChurnBy>,
    /// The greatest age of a line
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) age: Duration,
    /// How long lines come and go before anything is measured [default: one age]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) warmup: Option<Duration>,
    /// How long to measure
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) returning: ReturnArg,
    #[command(flatten)]
    pub(crate) leaving: LeaveArg,
    #[command(flatten)]
    pub(crate) traffic: TrafficArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// Who ends lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChurnBy {
    /// The server asks lines to go away
    Server,
    /// Each device says goodbye by itself
    Device,
}

/// Runs the scenario.
pub(crate) fn run(arg: &ChurnArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let by = by(arg)?;
    let names = lines.names();
    let dialect = lines.dialect(names.clone(), 0, arg.traffic.path(lines.against)?)?;
    let mut habit = arg.returning.habit(&names, WINDOW);
    habit.hands_over = arg.leaving.hand_over;
    habit.age_max = (by == ChurnBy::Device).then_some(arg.age);
    let settings = match by {
        ChurnBy::Server => lifetime_settings(arg.age),
        ChurnBy::Device => Vec::new(),
    };
    let shadows = habit.shadows.clone();
    let (mut stage, before) = Stage::open("churn", &arg.common, &settings, dialect.clone(), habit)?;
    let ramped = stage.ramp()?;
    stage.hold("warm-up", arg.warmup.unwrap_or(arg.age))?;
    let rows = names.all().rows();
    let part = arg
        .traffic
        .part(&stage, "push", rows, arg.traffic.push_rate)?;
    let parts = part.into_iter().collect();
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    let first = stage.read()?;
    let last = stage.hold("churn", arg.duration)?;
    if by == ChurnBy::Device {
        stage.swarm.settle();
        stage.await_all(arg.returning.back_timeout)?;
    }
    let account = traffic.finish(&mut stage)?;
    let end = stage.read()?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    let spell = Spell {
        before: first,
        after: last,
    };
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &last));
    record.add(rate_figures(&spell));
    spell.report("churn", &catch, &mut record);
    record.warnings.extend(ramp_warning(&ramped.total));
    record.warnings.extend(arg.returning.warning(&catch));
    record.faults.extend(match by {
        ChurnBy::Device => missing_fault(&end, lines.failures_max),
        ChurnBy::Server => stray_fault(&catch, arg.returning.back_timeout, lines.failures_max),
    });
    if spell.ended() == 0 {
        record.faults.push("no line left".to_owned());
    }
    account.settle(&mut record, &mut catch);
    Ok((record, screen))
}

/// Who ends lines, if that can be.
fn by(arg: &ChurnArg) -> Result<ChurnBy, RunError> {
    let is_started = arg.common.server.target.is_empty();
    let is_told = is_started && arg.common.lines.against == Make::Tautline;
    let usual = if is_told {
        ChurnBy::Server
    } else {
        ChurnBy::Device
    };
    let by = arg.by.unwrap_or(usual);
    if by == ChurnBy::Server && is_started && !is_told {
        let why = "only tautline is told the age of its lines: --by device";
        return Err(RunError::Usage(why));
    }
    if by == ChurnBy::Device && arg.leaving.hand_over {
        let why = "lines are handed over when the server asks them to leave: --by server";
        return Err(RunError::Usage(why));
    }
    if by == ChurnBy::Server && arg.common.canary.lines() > 0 {
        let why = "the server ends the canary's lines as well: --by device, or no canary";
        return Err(RunError::Usage(why));
    }
    Ok(by)
}

/// Curves of a churn are this fine.
const WINDOW: Duration = Duration::from_secs(1);

/// Any age up to the greatest, as far as a jitter has to be below it.
fn lifetime_settings(age: Duration) -> Vec<String> {
    let jitter = age.mul_f64(0.99);
    let grace = GOAWAY_GRACE.min(age / 6);
    vec![
        time_setting("lifetime.age_max", age),
        time_setting("lifetime.age_jitter", jitter),
        time_setting("lifetime.goaway_grace", grace),
    ]
}

fn rate_figures(spell: &Spell) -> [Figure; 2] {
    let seconds = spell.after.seconds_since(&spell.before);
    let seconds = seconds.max(f64::MIN_POSITIVE);
    let leave_rate = count(spell.ended()) / seconds;
    let return_rate = count(spell.returned()) / seconds;
    [
        Figure::new("churn.leave_rate", leave_rate, "/s"),
        Figure::new("churn.return_rate", return_rate, "/s"),
    ]
}
