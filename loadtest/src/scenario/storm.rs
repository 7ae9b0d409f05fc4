//! Lines that are cut all at once, and how they come back.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::arg::{CommonArg, parse_share};
use crate::make::Make;
use crate::name::Names;
use crate::report::{Figure, Record};
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::returning::{ReturnArg, Spell};
use crate::scenario::traffic::{Traffic, TrafficArg};
use crate::scenario::{ONLY_OURS_AGAIN, RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::swarm::catch::Catch;
use crate::swarm::strike::{Blow, SHADOW_LEAD, Selection, Strike};
use crate::swarm::{Ghosts, Habit};

/// Cut many lines at the same moment, and measure how they come back
///
/// Beside the time until so many are back, this reports what the others noticed (--canary), what the server's memory did,
/// and whether who was refused was told when to try again. Pushes go on all the while; each is accounted for.
#[derive(Clone, Debug, Args)]
pub(crate) struct StormArg {
    /// How lines are cut
    #[arg(long, value_enum, default_value = "reset")]
    pub(crate) cut: StormCut,
    /// Of all lines, how many are cut: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "1")]
    pub(crate) share: f64,
    /// With --cut silence: devices notice within this time, spread evenly
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    pub(crate) notice: Duration,
    /// With --cut kill: how long the node is down
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    pub(crate) down: Duration,
    /// How long all is quiet before
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) calm: Duration,
    /// How long to go on once all lines are back
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) after: Duration,
    #[command(flatten)]
    pub(crate) returning: ReturnArg,
    #[command(flatten)]
    pub(crate) traffic: TrafficArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// How a storm begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StormCut {
    /// Each line is reset, as by a load balancer that forgets
    Reset,
    /// Each line ends with a FIN and no close frame, as of a process that dies
    Fin,
    /// Nothing passes any more and nobody is told, as of a network that is gone; the server's heartbeat finds out
    Silence,
    /// The node is killed (SIGKILL) and started again; it must have been started here
    Kill,
}

/// Curves of a storm are this fine.
const WINDOW: Duration = Duration::from_millis(100);

/// Runs the scenario.
pub(crate) fn run(arg: &StormArg) -> Result<(Record, Screen), RunError> {
    check(arg)?;
    let lines = &arg.common.lines;
    let names = lines.names();
    let dialect = lines.dialect(names.clone(), 0, arg.traffic.path(lines.against)?)?;
    let habit = Habit {
        ghosts: (arg.cut == StormCut::Silence).then_some(Ghosts::ONE_EACH),
        ..arg.returning.habit(&names, WINDOW)
    };
    let shadows = habit.shadows.clone();
    let (mut stage, before) = Stage::open("storm", &arg.common, &[], dialect.clone(), habit)?;
    let ramped = stage.ramp()?;
    let rows = names.all().rows();
    let part = arg
        .traffic
        .part(&stage, "push", rows, arg.traffic.push_rate)?;
    let parts = part.into_iter().collect();
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    stage.hold("calm", arg.calm)?;
    let spell = blow_over(&mut stage, arg, &names)?;
    stage.hold("after", arg.after)?;
    let account = traffic.finish(&mut stage)?;
    let end = stage.read()?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &end));
    report(&spell, &catch, &mut record);
    record.add(end_figures(&spell.spell.before, &end));
    record.warnings.extend(ramp_warning(&end.total));
    record.warnings.extend(arg.returning.warning(&catch));
    record
        .faults
        .extend(faults(&spell.spell, lines.failures_max));
    account.settle(&mut record, &mut catch);
    Ok((record, screen))
}

impl StormCut {
    /// Whether a run can have it.
    pub(super) fn check(self, common: &CommonArg) -> Result<(), RunError> {
        let why = match self {
            Self::Reset | Self::Fin | Self::Silence => return Ok(()),
            Self::Kill if !common.server.target.is_empty() => {
                "a node that is killed must have been started here"
            }
            Self::Kill if common.lines.against != Make::Tautline => ONLY_OURS_AGAIN,
            Self::Kill if common.canary.lines() > 0 => "no canary survives a node that is killed",
            Self::Kill => return Ok(()),
        };
        Err(RunError::Usage(why))
    }

    /// What it does to each line; none if it is the node that is struck. Devices notice a silence within `notice`.
    pub(super) fn blow(self, notice: Duration) -> Option<Blow> {
        match self {
            Self::Reset => Some(Blow::Reset),
            Self::Fin => Some(Blow::Fin),
            Self::Silence => Some(Blow::Silence { notice }),
            Self::Kill => None,
        }
    }
}

fn check(arg: &StormArg) -> Result<(), RunError> {
    arg.cut.check(&arg.common)?;
    if arg.cut == StormCut::Kill && arg.share < 1.0 {
        let why = "a node that is killed takes all lines along";
        return Err(RunError::Usage(why));
    }
    Ok(())
}

/// A storm that is over.
struct Storm {
    spell: Spell,
    rss_peak: Option<u64>,
}

/// Cuts the lines and waits until they are back.
fn blow_over(stage: &mut Stage, arg: &StormArg, names: &Names) -> Result<Storm, RunError> {
    let lines = names.all().share(arg.share);
    let before = stage.read()?;
    stage.start_peak();
    match arg.cut.blow(arg.notice) {
        Some(blow) => strike(stage, lines, blow)?,
        None => stage.kill_and_restart(lines, arg.down)?,
    }
    let down = u64::from(names.lines()).saturating_sub(before.total.open());
    let expected = u64::from(lines.len()).saturating_sub(down);
    let after = stage.await_returns("storm", &before, expected, arg.returning.back_timeout)?;
    Ok(Storm {
        spell: Spell { before, after },
        rss_peak: stage.rss_peak(),
    })
}

fn strike(stage: &mut Stage, lines: Selection, blow: Blow) -> Result<(), RunError> {
    let at = stage.clock.now() + SHADOW_LEAD;
    stage.swarm.strike(Strike { at, lines, blow });
    stage.swarm.start_storm(at);
    stage.hold("shadow", SHADOW_LEAD)?;
    Ok(())
}

fn report(storm: &Storm, catch: &Catch, record: &mut Record) {
    let Spell { before, after } = &storm.spell;
    storm.spell.report_back("storm", catch, record);
    storm.spell.report("storm", catch, record);
    let returned = storm.spell.returned();
    if let Some(us) = after.server_cpu_us_since(before).filter(|_| returned > 0) {
        let each = us / count(returned);
        record.add([Figure::new("server.cpu_per_line_back", each, "µs")]);
    }
    record.add(peak_figures("storm", before, after, storm.rss_peak));
}

/// What the server's memory did during a phase.
pub(super) fn peak_figures(
    phase: &str,
    before: &Reading,
    after: &Reading,
    peak: Option<u64>,
) -> Vec<Figure> {
    let (Some(first), Some(last), Some(peak)) = (before.server, after.server, peak) else {
        return Vec::new();
    };
    let ratio = count(peak) / count(first.rss.max(1));
    let key = |name: &str| format!("server.rss_{phase}_{name}");
    vec![
        Figure::new(key("before"), count(first.rss), "B"),
        Figure::new(key("peak"), count(peak), "B"),
        Figure::new(key("after"), count(last.rss), "B"),
        Figure::new(key("ratio"), ratio, "×"),
    ]
}

/// What is left of the storm in the server's memory at the end of the run.
fn end_figures(before: &Reading, end: &Reading) -> Vec<Figure> {
    let (Some(first), Some(last)) = (before.server, end.server) else {
        return Vec::new();
    };
    let ratio = count(last.rss) / count(first.rss.max(1));
    vec![Figure::new("server.rss_end_ratio", ratio, "×")]
}

fn faults(spell: &Spell, failures_max: u64) -> Vec<String> {
    let mut faults: Vec<_> = spell.fault(failures_max).into_iter().collect();
    if spell.ended() == 0 {
        faults.push("no line was cut".to_owned());
    }
    let untold = spell.after.total.refused_untold - spell.before.total.refused_untold;
    if untold > failures_max {
        faults.push(format!(
            "{untold} comebacks were refused without a word about when to try again"
        ));
    }
    faults
}
