//! Token buckets: how often something may happen.

use std::time::Duration;

use super::time::Now;

/// A rate with room for a burst, in 16 bytes.
///
/// Holds only the moment at which the bucket will be full again. What is missing now follows from it, so nothing
/// runs while nobody takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Nanoseconds on the monotonic clock: fine enough for rates that do not divide a second.
    full_ns: u64,
    per_second: u32,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gains `per_second`. Both are at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            full_ns: 0,
            per_second: per_second.max(1),
            burst: burst.max(1),
        }
    }

    /// Takes `tokens`, all or none. More than the burst are never there.
    pub fn take(&mut self, tokens: u32, now: Now) -> bool {
        let missing_ns = self.missing_ns(now) + self.cost_ns(tokens);
        let is_taken = missing_ns <= self.cost_ns(self.burst);
        if is_taken {
            self.full_ns = ns(now) + missing_ns;
        }
        is_taken
    }

    /// How many tokens could be taken at once.
    pub fn available(&self, now: Now) -> u32 {
        let room_ns = self.cost_ns(self.burst) - self.missing_ns(now);
        // The largest count that costs no more than the room, costs being rounded down.
        let tokens = ((room_ns + 1) * u64::from(self.per_second) - 1) / SECOND_NS;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// The monotonic millisecond by which the bucket is full, if nobody takes: from then on it is as good as new.
    pub fn full_at_ms(&self) -> u64 {
        self.full_ns.div_ceil(1_000_000)
    }

    /// How long until a token can be taken: zero if one can be now.
    pub fn wait(&self, now: Now) -> Duration {
        let missing_ns = self.missing_ns(now) + self.cost_ns(1);
        Duration::from_nanos(missing_ns.saturating_sub(self.cost_ns(self.burst)))
    }

    /// How long the bucket still takes to fill: at most what a whole burst costs.
    fn missing_ns(&self, now: Now) -> u64 {
        let missing_ns = self.full_ns.saturating_sub(ns(now));
        missing_ns.min(self.cost_ns(self.burst))
    }

    /// How long it takes to gain so many tokens, rounded down so that a burst can be taken one by one.
    fn cost_ns(&self, tokens: u32) -> u64 {
        u64::from(tokens) * SECOND_NS / u64::from(self.per_second)
    }
}

fn ns(now: Now) -> u64 {
    now.us * 1_000
}

const SECOND_NS: u64 = 1_000_000_000;

const _: () = assert!(size_of::<TokenBucket>() == 16);

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    fn at_us(us: u64) -> Now {
        Now { us, wall_ms: 0 }
    }

    #[test]
    fn a_burst_is_there_at_once_and_flows_back_at_the_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        assert_eq!((0..5).filter(|_| bucket.take(1, at_us(0))).count(), 3);
        assert!(!bucket.take(1, at_us(99_999)));
        assert!(bucket.take(1, at_us(100_000)));
        assert_eq!(bucket.full_at_ms(), 400);
        assert_eq!(bucket.available(at_us(400_000)), 3);
        assert_eq!(bucket.available(at_us(10_000_000)), 3);
    }

    #[test]
    fn all_or_none_is_taken() {
        let mut bucket = TokenBucket::new(1, 5);
        assert!(!bucket.take(6, at_us(0)));
        assert!(bucket.take(4, at_us(0)));
        assert!(!bucket.take(2, at_us(0)));
        assert_eq!(bucket.available(at_us(0)), 1);
    }

    #[test]
    fn a_token_is_there_after_the_wait_and_not_before() {
        let mut bucket = TokenBucket::new(3, 2);
        assert_eq!(bucket.wait(at_us(0)), Duration::ZERO);
        assert!(bucket.take(2, at_us(0)));
        let wait_us = u64::try_from(bucket.wait(at_us(0)).as_nanos().div_ceil(1_000)).unwrap();
        assert!(!bucket.take(1, at_us(wait_us - 1)));
        assert!(bucket.take(1, at_us(wait_us)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for (per_second, burst) in [(0, 0), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let mut bucket = TokenBucket::new(per_second, burst);
            let now = at_us(u64::from(u32::MAX) * 1_000_000);
            assert!(bucket.available(now) >= 1);
            assert!(bucket.take(burst.max(1), now));
            assert!(bucket.wait(now) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn random_takes_agree_with_a_bucket_that_is_filled_token_by_token() {
        let mut rng = seed::rng();
        let (per_second, burst) = (rng.random_range(1..5_000), rng.random_range(1..50));
        let mut bucket = TokenBucket::new(per_second, burst);
        let (mut level, mut us) = (f64::from(burst), 0);
        for _ in 0..10_000 {
            let step_us = rng.random_range(0..5_000);
            us += step_us;
            level = f64::min(
                level + step_us as f64 * f64::from(per_second) / 1e6,
                burst.into(),
            );
            let tokens = rng.random_range(1..=burst);
            // Within a thousandth of a token the two may differ by rounding.
            if (level - f64::from(tokens)).abs() > 1e-3 {
                let is_taken = level > f64::from(tokens);
                assert_eq!(
                    bucket.take(tokens, at_us(us)),
                    is_taken,
                    "{tokens} of {level}"
                );
                level -= if is_taken { f64::from(tokens) } else { 0.0 };
            }
        }
    }
}
