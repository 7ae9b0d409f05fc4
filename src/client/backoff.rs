//! How long a device waits before it comes back.

use std::time::Duration;

/// Exponential growth from half a second to half a minute with full jitter: a crowd that was cut off at once does not
/// come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    /// The wait before the next attempt, after a line that lasted `lasted` (zero when none was opened); `share` is drawn
    /// at random from 0 to 1. Only a line that proved stable starts the growth anew; otherwise a node that drops lines at
    /// once would be hammered.
    pub fn next(&mut self, lasted: Duration, share: f64) -> Duration {
        if lasted >= STABLE_AFTER {
            self.ceiling = FIRST;
        }
        let wait = self.ceiling.mul_f64(share);
        self.ceiling = (self.ceiling * 2).min(LAST);
        wait
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: FIRST }
    }
}

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);
const STABLE_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_start_anew_after_a_stable_line() {
        let mut backoff = Backoff::default();
        let mut wait = |lasted| backoff.next(Duration::from_secs(lasted), 1.0).as_secs_f64();
        let waits: Vec<_> = (0..8).map(|_| wait(0)).collect();
        assert_eq!(waits, [0.5, 1., 2., 4., 8., 16., 30., 30.]);
        assert_eq!(wait(29), 30.);
        assert_eq!(wait(30), 0.5);
    }

    #[test]
    fn the_jitter_is_full() {
        assert_eq!(Backoff::default().next(Duration::ZERO, 0.0), Duration::ZERO);
    }
}
