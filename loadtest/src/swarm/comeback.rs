//! When a line that has ended tries again: what the clients of real fleets do.

use std::str::FromStr;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;

/// How long a line waits before its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comeback {
    /// Not at all the first time, a second after each failure: a client without a thought.
    AtOnce,
    /// Always as long.
    Fixed(Duration),
    /// Anything from nothing to a ceiling that doubles with each failure.
    Backoff(Backoff),
    /// As long as a go-away or `Retry-After` says; with backoff where nothing is said.
    Hint,
    /// Until the next multiple of a period: all together, as clients with a cron job do.
    Lockstep(Duration),
}

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The first ceiling.
    pub(crate) first: Duration,
    /// The last one.
    pub(crate) max: Duration,
}

/// What many libraries do.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    max: Duration::from_secs(30),
};
/// How long a client that comes back at once waits after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// A server that asks for more gets this much: the run has an end.
const HINT_MAX: Duration = Duration::from_secs(600);

impl Comeback {
    /// When the next attempt is due. `failures` counts those since the line ended, `hint` is what the server said.
    pub(crate) fn due(
        self,
        failures: u16,
        hint: Option<Duration>,
        random: &mut SmallRng,
        now: Duration,
    ) -> Duration {
        match self {
            Self::AtOnce if failures == 0 => now,
            Self::AtOnce => now + PAUSE,
            Self::Fixed(wait) => now + wait,
            Self::Backoff(backoff) => now + backoff.wait(failures, random),
            Self::Hint => {
                let wait = hint.map(|wait| wait.min(HINT_MAX));
                now + wait.unwrap_or_else(|| BACKOFF.wait(failures, random))
            }
            Self::Lockstep(period) => {
                let turns = now.as_nanos() / period.as_nanos().max(1) + 1;
                period.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
            }
        }
    }

    /// Whether many lines are meant to start at the same moment, which no generator can do.
    pub(crate) fn is_herd(self) -> bool {
        matches!(self, Self::AtOnce | Self::Fixed(_) | Self::Lockstep(_))
    }
}

impl Backoff {
    fn wait(self, failures: u16, random: &mut SmallRng) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1_u32.checked_shl(failures.into()).unwrap_or(u32::MAX))
            .min(self.max);
        ceiling.mul_f64(random.random())
    }
}

impl FromStr for Comeback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, time) = text.split_once(':').unwrap_or((text, ""));
        match (word, time) {
            ("at-once", "") => Ok(Self::AtOnce),
            ("hint", "") => Ok(Self::Hint),
            ("backoff", "") => Ok(Self::Backoff(BACKOFF)),
            ("backoff", range) => {
                let (first, max) = range.split_once("..").ok_or("such as backoff:500ms..30s")?;
                let (first, max) = (parse_time(first)?, parse_time(max)?);
                Ok(Self::Backoff(Backoff { first, max }))
            }
            ("fixed", time) => Ok(Self::Fixed(parse_time(time)?)),
            ("lockstep", time) => Ok(Self::Lockstep(parse_time(time)?)),
            _ => Err("at-once, fixed:2s, backoff:500ms..30s, hint or lockstep:5s".to_owned()),
        }
    }
}

/// A time that is not zero.
fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time > Duration::ZERO => Ok(time),
        Ok(_) => Err("a time longer than nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(text: &str, failures: u16, hint: Option<Duration>) -> Vec<Duration> {
        let comeback: Comeback = text.parse().unwrap();
        let mut random = SmallRng::seed_from_u64(7);
        let now = Duration::from_millis(10_300);
        (0..1_000)
            .map(|_| comeback.due(failures, hint, &mut random, now) - now)
            .collect()
    }

    #[test]
    fn who_comes_at_once_pauses_only_after_a_failure() {
        assert!(
            waits("at-once", 0, Some(SECOND))
                .iter()
                .all(Duration::is_zero)
        );
        assert!(waits("at-once", 1, None).iter().all(|wait| *wait == PAUSE));
        assert!(
            waits("fixed:2s", 3, None)
                .iter()
                .all(|wait| *wait == 2 * SECOND)
        );
    }

    #[test]
    fn backoff_is_spread_below_a_ceiling_that_doubles_up_to_the_last() {
        for (failures, ceiling) in [(0, 1), (1, 2), (3, 8), (4, 10), (60, 10), (u16::MAX, 10)] {
            let waits = waits("backoff:1s..10s", failures, Some(SECOND));
            let ceiling = ceiling * SECOND;
            assert!(waits.iter().all(|wait| *wait <= ceiling));
            assert!(waits.iter().any(|wait| *wait > ceiling * 9 / 10));
            assert!(waits.iter().any(|wait| *wait < ceiling / 10));
        }
    }

    #[test]
    fn a_hint_is_kept_to_and_its_absence_is_backed_off_from() {
        assert!(
            waits("hint", 5, Some(SECOND))
                .iter()
                .all(|wait| *wait == SECOND)
        );
        assert!(
            waits("hint", 0, Some(Duration::MAX))
                .iter()
                .all(|wait| *wait == HINT_MAX)
        );
        assert!(
            waits("hint", 0, None)
                .iter()
                .all(|wait| *wait <= BACKOFF.first)
        );
    }

    #[test]
    fn lines_in_lockstep_meet_at_multiples_of_the_period() {
        let waits = waits("lockstep:5s", 2, None);
        assert!(
            waits
                .iter()
                .all(|wait| *wait == Duration::from_millis(4_700))
        );
    }

    #[test]
    fn other_words_are_refused() {
        for bad in [
            "",
            "soon",
            "fixed",
            "fixed:0s",
            "backoff:1s",
            "lockstep:x",
            "hint:2s",
        ] {
            assert!(bad.parse::<Comeback>().is_err(), "{bad}");
        }
    }
}
