//! Lines that come back: how they are told to, and what it took.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::arg::parse_share;
use crate::latency::Latency;
use crate::name::Names;
use crate::oracle::shadow::Shadows;
use crate::report::{Figure, Record};
use crate::scenario::LATE_SHARE_MAX;
use crate::scenario::reading::{Reading, count};
use crate::swarm::Habit;
use crate::swarm::catch::Catch;
use crate::swarm::comeback::Comeback;

/// How lines behave once they have ended.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Coming back")]
pub(crate) struct ReturnArg {
    /// When a line that has ended tries again: at-once, fixed:2s, backoff:500ms..30s (full jitter), lockstep:5s (all
    /// together), or hint: as a go-away or `Retry-After` says, with backoff where nothing is said
    #[arg(long, value_name = "HOW", default_value = "backoff")]
    pub(crate) comeback: Comeback,
    /// Of all lines, how many ignore a go-away: 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0")]
    pub(crate) ignore_goaway: f64,
    /// How long to wait at the end until all lines are back
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) back_timeout: Duration,
}

/// How lines leave that are asked to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Coming back")]
pub(crate) struct LeaveArg {
    /// Lines that are asked to go away keep the old line, and read it, until the new one is open
    #[arg(long)]
    pub(crate) hand_over: bool,
}

/// What became of lines between two readings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    pub(super) before: Reading,
    pub(super) after: Reading,
}

/// An attempt later than this was kept waiting by the generator.
const LATE: Duration = Duration::from_millis(20);
/// Lines that are asked to leave get the usual time for it, or less where all is compressed.
pub(super) const GOAWAY_GRACE: Duration = Duration::from_secs(5);

/// What is wrong if lines are away although all were to be there.
pub(super) fn missing_fault(end: &Reading, failures_max: u64) -> Option<String> {
    not_back(end.total.away(), failures_max)
}

/// What is wrong if lines have been away for too long at the end of a run in which they come and go all the time.
pub(super) fn stray_fault(catch: &Catch, timeout: Duration, failures_max: u64) -> Option<String> {
    let stray = catch.away_for.iter().filter(|time| **time > timeout);
    not_back(stray.count() as u64, failures_max)
}

/// Within what time so many of `ended` lines were back.
pub(crate) fn back_figures(key: &str, back: &Latency, ended: u64, returned: u64) -> Vec<Figure> {
    let shares = [("50", 0.5), ("90", 0.9), ("99", 0.99), ("100", 1.0)];
    let times = shares.iter().filter_map(|(name, share)| {
        let seconds = back.share_done(*share, ended)?;
        let key = format!("{key}.back_{name}");
        Some(Figure::new(key, seconds.as_secs_f64(), "s"))
    });
    let mut figures: Vec<_> = times.collect();
    let longest = back.quantile(1.0).as_secs_f64();
    if longest > 0.0 {
        let rate = count(returned) / longest;
        figures.push(Figure::new(format!("{key}.return_rate"), rate, "/s"));
    }
    figures
}

fn not_back(lines: u64, failures_max: u64) -> Option<String> {
    (lines > failures_max).then(|| format!("{lines} lines did not come back in time"))
}

impl ReturnArg {
    /// The habit of such lines, with curves in windows of this length.
    pub(super) fn habit(&self, names: &Names, window: Duration) -> Habit {
        Habit {
            comeback: Some(self.comeback),
            heed: 1.0 - self.ignore_goaway,
            shadows: Some(Arc::new(Shadows::new(names))),
            window: Some(window),
            ..Habit::default()
        }
    }

    /// What a reader must know who blames the server for late comebacks.
    pub(super) fn warning(&self, catch: &Catch) -> Option<String> {
        let is_late = catch.lateness.quantile(1.0 - LATE_SHARE_MAX) > LATE;
        (is_late && !self.comeback.is_herd()).then(|| {
            "the generator was overloaded: one in a hundred comebacks started over 20 ms late"
                .to_owned()
        })
    }
}

impl Spell {
    /// Lines that ended and were to come back.
    pub(super) fn ended(&self) -> u64 {
        self.after.total.ended - self.before.total.ended
    }

    /// Lines that came back.
    pub(super) fn returned(&self) -> u64 {
        self.after.total.returned - self.before.total.returned
    }

    /// Lines that were open before and are not now.
    pub(super) fn missing(&self) -> u64 {
        self.before
            .total
            .open()
            .saturating_sub(self.after.total.open())
    }

    /// Adds how lines ended and came back, below `key`.
    pub(super) fn report(&self, key: &str, catch: &Catch, record: &mut Record) {
        let (new, old) = (&self.after.total, &self.before.total);
        let own = |name: &str, n: u64| Figure::new(format!("{key}.{name}"), count(n), "");
        record.add([
            own("lines_ended", self.ended()),
            own("lines_cut", new.cut - old.cut),
            own("lines_left", new.left - old.left),
            own("handed_over", new.handed_over - old.handed_over),
            own("goaways", new.goaways - old.goaways),
            own("goodbyes_unanswered", new.unanswered - old.unanswered),
            own("lines_back", self.returned()),
            own("lines_not_back", self.missing()),
            own("attempts", new.attempts - old.attempts),
            own("refused_told", new.refused_told - old.refused_told),
            own("refused_untold", new.refused_untold - old.refused_untold),
            own("unreached", new.unreached - old.unreached),
        ]);
        let attempts = catch.attempts.iter();
        let sum: u64 = attempts
            .map(|(tries, lines)| u64::from(*tries) * lines)
            .sum();
        let lines: u64 = catch.attempts.values().sum();
        let most = catch.attempts.keys().last().copied().unwrap_or_default();
        let per_line = count(sum) / count(lines.max(1));
        record.add([
            Figure::new(format!("{key}.attempts_per_line"), per_line, "tries"),
            own("attempts_max", most.into()),
        ]);
        record.add_latency(&format!("{key}.away"), &catch.away);
        record.add_quantiles(&format!("{key}.reopen"), &catch.reopening);
        record.add_quantiles(&format!("{key}.lateness"), &catch.lateness);
        let seconds = self
            .after
            .seconds_since(&self.before)
            .max(f64::MIN_POSITIVE);
        let generator = self.after.generator_cores_since(&self.before);
        let generator = Figure::new(format!("{key}.generator_cpu"), generator, "cores");
        record.add([generator]);
        if let Some(us) = self.after.server_cpu_us_since(&self.before) {
            let cores = us / 1e6 / seconds;
            record.add([Figure::new(format!("server.{key}_cpu"), cores, "cores")]);
        }
    }

    /// Adds within what time so many lines were back, from the start of the storm.
    pub(super) fn report_back(&self, key: &str, catch: &Catch, record: &mut Record) {
        record.add(back_figures(
            key,
            &catch.back,
            self.ended(),
            self.returned(),
        ));
        record.keep_histogram(&format!("{key}.back"), &catch.back);
    }

    /// What is wrong if lines are missing that were there before.
    pub(super) fn fault(&self, failures_max: u64) -> Option<String> {
        not_back(self.missing(), failures_max)
    }
}
