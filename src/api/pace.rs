//! How fast a drain goes: by rate or by deadline, as pure arithmetic.

use std::time::Duration;

use crate::base::time::{Tick, millis};

/// What a drain takes besides the time over which lines are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long readiness is off before the first is asked.
    pub(crate) interval: Duration,
    /// How long each has to leave.
    pub(crate) grace: Duration,
}

impl Pace {
    /// Over how long so many lines are asked: at the rate, or in the time there is until the deadline of the whole.
    pub(crate) fn spread(self, lines: u64, rate: Option<u32>, deadline: Duration) -> Duration {
        match rate {
            Some(rate) => Self::spread_at(lines, rate),
            None => deadline.saturating_sub(self.duration(Duration::ZERO)),
        }
    }

    /// Over how long so many lines are asked at the rate.
    pub(crate) fn spread_at(lines: u64, rate: u32) -> Duration {
        let ms = lines.saturating_mul(1_000).div_ceil(u64::from(rate.max(1)));
        Duration::from_millis(ms)
    }

    /// From the beginning of a drain until the last line has had its grace.
    pub(crate) fn duration(self, spread: Duration) -> Duration {
        self.interval + self.time_to_leave(spread)
    }

    /// From the first go-away until the last line has had its grace, and the sweep has seen it.
    pub(crate) fn time_to_leave(self, spread: Duration) -> Duration {
        spread + self.grace + SWEEP
    }

    /// The rate that asking so many lines over the time comes to.
    pub(crate) fn lines_per_second(lines: u64, spread: Duration) -> u64 {
        lines.saturating_mul(1_000).div_ceil(millis(spread).max(1))
    }
}

/// Lines are looked at ten ticks apart, and asked on the tick.
const SWEEP: Duration = Tick::LENGTH.saturating_mul(11);

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_secs(2),
        grace: Duration::from_secs(5),
    };

    #[test]
    fn by_deadline_the_last_line_still_has_its_grace() {
        let deadline = Duration::from_secs(25);
        let spread = PACE.spread(1_000, None, deadline);
        assert_eq!(spread, Duration::from_millis(16_900));
        assert_eq!(PACE.duration(spread), deadline);
        assert_eq!(Pace::lines_per_second(1_000, spread), 60);
        // A deadline that leaves no time asks all at once.
        let spread = PACE.spread(1_000, None, Duration::from_secs(3));
        assert_eq!(spread, Duration::ZERO);
    }

    #[test]
    fn by_rate_it_takes_what_it_takes() {
        let spread = PACE.spread(1_000, Some(300), Duration::from_secs(25));
        assert_eq!(spread, Duration::from_millis(3_334));
        assert_eq!(Pace::lines_per_second(1_000, spread), 300);
        assert_eq!(
            Pace::spread_at(u64::MAX, 1).as_millis(),
            u128::from(u64::MAX)
        );
        assert_eq!(Pace::spread_at(0, 5), Duration::ZERO);
    }
}
