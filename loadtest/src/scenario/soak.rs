//! Everything at once, for long: messages of all kinds, lines that come and go, the slow, the vanished, storms, and an
//! account of every message.

use std::time::Duration;

use clap::Args;

use crate::arg::{CommonArg, parse_rate, parse_share};
use crate::dialect::Dialect;
use crate::name::{Lines, Names};
use crate::report::{Figure, Record};
use crate::scenario::d2d::{LIMITS, device_lines};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::returning::{ReturnArg, Spell, missing_fault};
use crate::scenario::slow::SEGMENT_BYTES;
use crate::scenario::storm::StormCut;
use crate::scenario::traffic::{Part, Traffic, TrafficArg};
use crate::scenario::{RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::swarm::strike::{Blow, SHADOW_LEAD, Selection, Strike};
use crate::swarm::{Ghosts, Habit};

/// Run everything at once, with an account of every message
///
/// Pushes and device-to-device messages go on all the while; every line leaves at a random age and comes back. In each
/// --cycle some lines stop reading, some vanish without a word, and a storm cuts a share of all lines; then the slow read
/// again and the vanished come back.
#[derive(Clone, Debug, Args)]
pub(crate) struct SoakArg {
    /// How long to go on, in whole cycles
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10m")]
    pub(crate) duration: Duration,
    /// How long a cycle is
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) cycle: Duration,
    /// The greatest age of a line; 0s: they stay
    #[arg(long, value_parser = humantime::parse_duration, default_value = "120s")]
    pub(crate) age: Duration,
    /// The storms of the cycles, by turns; a node that is killed must have been started here
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "reset,fin,silence"
    )]
    pub(crate) storms: Vec<StormCut>,
    /// Of all lines, how many a storm cuts: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0.3")]
    pub(crate) storm_share: f64,
    /// Of all lines, how many stop reading in each cycle: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0.01")]
    pub(crate) slow_share: f64,
    /// Messages per second to these, all together
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "100")]
    pub(crate) slow_rate: f64,
    /// Bytes of each of them
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024)]
    pub(crate) slow_bytes: usize,
    /// Of all lines, how many vanish in each cycle: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0.01")]
    pub(crate) vanish_share: f64,
    /// How long the socket of a line that fell silent or vanished stays: longer than the server takes to notice, as
    /// closing it would tell
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "90s")]
    pub(crate) ghost_stay: Duration,
    /// Lines besides that send to others of their account
    #[arg(long, value_name = "LINES", default_value_t = 16)]
    pub(crate) d2d_senders: u32,
    /// Lines of each such account
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 32)]
    pub(crate) d2d_lines: u32,
    /// Messages per second between them; 0: none
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "500")]
    pub(crate) d2d_rate: f64,
    #[command(flatten)]
    pub(crate) returning: ReturnArg,
    #[command(flatten)]
    pub(crate) traffic: TrafficArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// Who does what, from the first line to the last.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// Get messages from devices.
    d2d: Lines,
    /// Get pushes and nothing worse than storms.
    push: Lines,
    /// Stop reading in each cycle.
    slow: Lines,
    /// Vanish in each cycle.
    vanishing: Lines,
    all: Selection,
}

/// Curves of a soak are this fine.
const WINDOW: Duration = Duration::from_secs(1);
/// Unanswered messages of a device.
const D2D_WINDOW: u32 = 16;
/// Lines that are ended by themselves are not ended by the server; nor do those that send need to change.
const LONG_LIFE: &str = "lifetime.age_max=48h";

/// Runs the scenario.
pub(crate) fn run(arg: &SoakArg) -> Result<(Record, Screen), RunError> {
    check(arg)?;
    let lines = &arg.common.lines;
    let names = Names::new(lines.first_line, lines.connections, arg.d2d_lines);
    let cast = Cast::new(arg, &names)?;
    let dialect = lines.dialect(
        names.clone(),
        arg.d2d_senders,
        arg.traffic.path(lines.against)?,
    )?;
    let habit = Habit {
        age_max: (!arg.age.is_zero()).then_some(arg.age),
        segment_bytes: Some(SEGMENT_BYTES),
        ghosts: Some(arg.ghosts()),
        ..arg.returning.habit(&names, WINDOW)
    };
    let shadows = habit.shadows.clone();
    let settings: Vec<_> = LIMITS
        .iter()
        .chain([&LONG_LIFE])
        .map(ToString::to_string)
        .collect();
    let (mut stage, before) = Stage::open("soak", &arg.common, &settings, dialect.clone(), habit)?;
    let ramped = stage.ramp()?;
    let parts = parts(&stage, arg, &cast, &names, &dialect)?;
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    let first = stage.read()?;
    let mut rss = Vec::new();
    let mut cycles = 0_usize;
    while stage.clock.now() < first.at + arg.duration && !stage.is_halted() {
        let cut = arg.storms.get(cycles % arg.storms.len().max(1)).copied();
        let end = turn(&mut stage, arg, &cast, cut)?;
        rss.extend(end.server.map(|server| server.rss));
        cycles += 1;
    }
    stage.swarm.settle();
    let last = stage.await_all(arg.returning.back_timeout)?;
    let account = traffic.finish(&mut stage)?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    let spell = Spell {
        before: first,
        after: last,
    };
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &last));
    record.add([Figure::new("soak.cycles", count(cycles as u64), "")]);
    record.add(growth_figures(&rss));
    spell.report("soak", &catch, &mut record);
    record.warnings.extend(ramp_warning(&ramped.total));
    record.warnings.extend(arg.returning.warning(&catch));
    record
        .faults
        .extend(missing_fault(&last, lines.failures_max));
    account.settle(&mut record, &mut catch);
    Ok((record, screen))
}

fn check(arg: &SoakArg) -> Result<(), RunError> {
    for storm in &arg.storms {
        storm.check(&arg.common)?;
    }
    if arg.d2d_rate > 0.0 && !arg.common.lines.against.takes_records() {
        return Err(RunError::Usage(
            "of all makes only tautline takes messages from lines: --d2d-rate 0",
        ));
    }
    if arg.cycle < 8 * SHADOW_LEAD {
        return Err(RunError::Usage("a cycle takes at least four seconds"));
    }
    Ok(())
}

/// One cycle: the slow and the vanishing, a storm, and all are well again.
fn turn(
    stage: &mut Stage,
    arg: &SoakArg,
    cast: &Cast,
    cut: Option<StormCut>,
) -> Result<Reading, RunError> {
    let third = arg.cycle / 3;
    let blows = [(cast.slow, Blow::Deafness), (cast.vanishing, Blow::Vanish)];
    let strike = |stage: &Stage, lines: Selection, blow: Blow| {
        let at = stage.clock.now() + SHADOW_LEAD;
        stage.swarm.strike(Strike { at, lines, blow });
    };
    for (lines, blow) in blows {
        strike(stage, lines.selection(), blow);
    }
    stage.hold("steady", third)?;
    let storm = Selection {
        share: arg.storm_share,
        ..cast.all
    };
    match cut.map(|cut| cut.blow(third / 2)) {
        Some(Some(blow)) => strike(stage, storm, blow),
        Some(None) => stage.kill_and_restart(cast.all, SHADOW_LEAD)?,
        None => {}
    }
    stage.hold("storm", third)?;
    for (lines, _) in blows {
        strike(stage, lines.selection(), Blow::Wake);
    }
    stage.hold("recover", third)
}

/// What is sent to whom.
fn parts(
    stage: &Stage,
    arg: &SoakArg,
    cast: &Cast,
    names: &Names,
    dialect: &Dialect,
) -> Result<Vec<Part>, RunError> {
    let traffic = &arg.traffic;
    let push = traffic.part(stage, "push", cast.push.rows(), traffic.push_rate)?;
    let probe_rate =
        traffic.push_rate * f64::from(cast.vanishing.count) / f64::from(cast.push.count.max(1));
    let probe = traffic.part(stage, "probe", cast.vanishing.rows(), probe_rate)?;
    let (make, slow) = (arg.common.lines.against, cast.slow.rows());
    let flood = traffic.flood(stage, make, slow, arg.slow_rate, arg.slow_bytes)?;
    let d2d = (arg.d2d_rate > 0.0 && cast.d2d.count > 0).then(|| Part {
        name: "d2d",
        medium: device_lines(stage, dialect, &arg.common.lines, D2D_WINDOW, &traffic.wait),
        rows: names.account_rows(arg.d2d_senders),
        rate: arg.d2d_rate,
        body_bytes: traffic.body_bytes,
        path: None,
    });
    Ok([push, probe, flood, d2d].into_iter().flatten().collect())
}

/// What memory did from the first cycle to the last: a leak is a slope.
fn growth_figures(rss: &[u64]) -> Vec<Figure> {
    let (Some(first), Some(last)) = (rss.first(), rss.last()) else {
        return Vec::new();
    };
    vec![
        Figure::new("soak.rss_first_cycle", count(*first), "B"),
        Figure::new("soak.rss_last_cycle", count(*last), "B"),
    ]
}

impl SoakArg {
    fn ghosts(&self) -> Ghosts {
        let cycles = (self.ghost_stay.as_secs_f64() / self.cycle.as_secs_f64()).ceil();
        let silences = self.storms.iter().filter(|s| **s == StormCut::Silence);
        let silent_share = silences.count() as f64 / self.storms.len().max(1) as f64;
        let storms = (cycles * silent_share).ceil();
        Ghosts {
            stay: self.ghost_stay,
            per_line: storms * self.storm_share + cycles * self.vanish_share,
        }
    }
}

impl Cast {
    fn new(arg: &SoakArg, names: &Names) -> Result<Self, RunError> {
        let first = names.first();
        let d2d = arg.d2d_senders.saturating_mul(arg.d2d_lines);
        let (rest, vanishing) = names.split(arg.vanish_share);
        let slow = names.split(arg.slow_share).1.count;
        let push = rest.count.checked_sub(slow.saturating_add(d2d));
        let too_few = "there are fewer lines than the senders', the slow and the vanishing ones";
        let push = push.filter(|n| *n > 0).ok_or(RunError::Usage(too_few))?;
        let after = |part: Lines, count: u32| Lines {
            first: part.end(),
            count,
        };
        let d2d = Lines { first, count: d2d };
        let push = after(d2d, push);
        Ok(Self {
            d2d,
            push,
            slow: after(push, slow),
            vanishing,
            all: names.all().selection(),
        })
    }
}
