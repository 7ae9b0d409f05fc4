//! The one clock of a run: every thread counts from the same moment.

use std::time::{Duration, Instant};

/// Time since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts the run.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// How long the run lasts by now.
    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// Milliseconds of a time within the run, which is shorter than 49 days.
pub(crate) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Nanoseconds of a time within the run, which ends long before 584 years.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
