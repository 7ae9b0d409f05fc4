//! Waiting for what another process does: looked at again and again, never longer than a deadline.

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once. Long, because tests share two cores with a build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A moment after which a test has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "a test has its own clock")]
    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    #[expect(clippy::disallowed_methods, reason = "a test has its own clock")]
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(!deadline.has_passed(), "waited in vain: {what}");
        pause(Duration::from_millis(10));
    }
}

/// Leaves the processor to others between two looks, or between two bytes of a slow peer.
#[expect(clippy::disallowed_methods, reason = "nothing is synchronised by it")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
