//! Devices that vanish without a word: how long the server goes on promising messages to them.

use std::time::Duration;

use clap::Args;

use crate::arg::{CommonArg, parse_rate, parse_share};
use crate::name::Lines;
use crate::oracle::shadow::Shadows;
use crate::report::{Figure, Record};
use crate::scenario::idle::heartbeat_settings;
use crate::scenario::reading::{Reading, count, memory_figures, ramp_figures};
use crate::scenario::returning::{ReturnArg, Spell};
use crate::scenario::storm::peak_figures;
use crate::scenario::traffic::{Traffic, TrafficArg};
use crate::scenario::{RunError, Stage, ramp_warning};
use crate::screen::Screen;
use crate::swarm::catch::Catch;
use crate::swarm::strike::{Blow, SHADOW_LEAD, Strike};
use crate::swarm::{Ghosts, Habit};

/// Have some devices vanish without a FIN, and measure when the server notices
///
/// The last lines vanish: a socket filter drops whatever comes in below TCP, so that nothing is acknowledged, answered or
/// reset, as when a cable is pulled. Pushes to them go on; the first that is refused says that the server has noticed.
/// Then they come back.
#[derive(Clone, Debug, Args)]
pub(crate) struct HalfopenArg {
    /// Of all lines, how many vanish: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0.1")]
    pub(crate) share: f64,
    /// Pushes per second to those that vanish, all together: how finely the moment is seen
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "500")]
    pub(crate) probe_rate: f64,
    /// How long the server may take to notice all of them
    #[arg(long, value_parser = humantime::parse_duration, default_value = "90s")]
    pub(crate) notice_max: Duration,
    /// Silence after which a started server pings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s", conflicts_with = "target")]
    pub(crate) ping_after: Duration,
    /// How long all is quiet before
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub(crate) calm: Duration,
    /// How long to go on once all are back
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

/// Runs the scenario.
pub(crate) fn run(arg: &HalfopenArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let names = lines.names();
    let (present, vanishing) = names.split(arg.share);
    if vanishing.count == 0 || arg.probe_rate <= 0.0 {
        return Err(RunError::Usage("nobody would vanish, or be asked for"));
    }
    let dialect = lines.dialect(names.clone(), 0, arg.traffic.path(lines.against)?)?;
    let habit = Habit {
        ghosts: Some(Ghosts::ONE_EACH),
        ..arg.returning.habit(&names, WINDOW)
    };
    let shadows = habit.shadows.clone();
    let settings = heartbeat_settings(arg.ping_after);
    let (mut stage, before) =
        Stage::open("halfopen", &arg.common, &settings, dialect.clone(), habit)?;
    let ramped = stage.ramp()?;
    let push = arg
        .traffic
        .part(&stage, "push", present.rows(), arg.traffic.push_rate)?;
    let probe = arg
        .traffic
        .part(&stage, "probe", vanishing.rows(), arg.probe_rate)?;
    let parts = push.into_iter().chain(probe).collect();
    let traffic = Traffic::start(&mut stage, &arg.traffic, parts, &dialect, shadows.as_ref())?;
    let calm = stage.hold("calm", arg.calm)?;
    let absence = vanish(&mut stage, arg, vanishing, &calm, shadows.as_deref())?;
    stage.hold("after", arg.after)?;
    let account = traffic.finish(&mut stage)?;
    let (mut record, screen, mut catch) = stage.close(lines.failures_max)?;
    record.add(ramp_figures(&before, &ramped, &catch));
    record.add(memory_figures(&before, &absence.spell.after));
    let probe = account.book("probe").map(|book| &book.noticed);
    if let Some(noticed) = probe {
        record.add_quantiles("halfopen.noticed_after", noticed);
    }
    absence.report(&catch, &mut record);
    record.warnings.extend(ramp_warning(&ramped.total));
    record.faults.extend(absence.faults(arg));
    let verdict = account.settle(&mut record, &mut catch);
    let in_vain = verdict.doubtful - verdict.doubtful_received;
    record.add([Figure::new("halfopen.promised_in_vain", count(in_vain), "")]);
    Ok((record, screen))
}

/// Devices that have vanished and come back.
struct Absence {
    vanished: u64,
    /// Of these, devices that the server noticed to be gone.
    noticed: u64,
    spell: Spell,
    rss_peak: Option<u64>,
}

fn vanish(
    stage: &mut Stage,
    arg: &HalfopenArg,
    lines: Lines,
    calm: &Reading,
    shadows: Option<&Shadows>,
) -> Result<Absence, RunError> {
    stage.start_peak();
    let strike = |at, blow| Strike {
        at,
        lines: lines.selection(),
        blow,
    };
    let at = stage.clock.now() + SHADOW_LEAD;
    stage.swarm.strike(strike(at, Blow::Vanish));
    stage.hold("shadow", SHADOW_LEAD)?;
    let vanished = u64::from(lines.count);
    let noticed = || shadows.map_or(0, Shadows::noticed);
    let deadline = at + arg.notice_max;
    stage.watch_until("vanish", vanished, deadline, |_| noticed())?;
    let noticed = noticed();
    let rss_peak = stage.rss_peak();
    stage.swarm.strike(strike(stage.clock.now(), Blow::Wake));
    let timeout = arg.returning.back_timeout;
    let after = stage.await_returns("return", calm, vanished, timeout)?;
    Ok(Absence {
        vanished,
        noticed,
        spell: Spell {
            before: *calm,
            after,
        },
        rss_peak,
    })
}

impl Absence {
    fn report(&self, catch: &Catch, record: &mut Record) {
        let Spell { before, after } = &self.spell;
        record.add([
            Figure::new("halfopen.vanished", count(self.vanished), ""),
            Figure::new("halfopen.noticed", count(self.noticed), ""),
        ]);
        self.spell.report("halfopen", catch, record);
        record.add(peak_figures("vanish", before, after, self.rss_peak));
    }

    fn faults(&self, arg: &HalfopenArg) -> Vec<String> {
        let failures_max = arg.common.lines.failures_max;
        let mut faults: Vec<_> = self.spell.fault(failures_max).into_iter().collect();
        let unnoticed = self.vanished.saturating_sub(self.noticed);
        if unnoticed > failures_max {
            faults.push(format!(
                "of {} vanished lines, {unnoticed} were not noticed within {}",
                self.vanished,
                humantime::format_duration(arg.notice_max)
            ));
        }
        faults
    }
}
