//! Time as an argument: one reading of the clock per loop iteration, and the coarse tick of the sweeps.

use std::time::Duration;

/// One reading of the clock, made once per loop iteration by the reactor and handed to everyone else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic microseconds since the node started.
    pub us: u64,
    /// Wall clock, milliseconds since the Unix epoch. Never steps back within one node's life.
    pub wall_ms: u64,
}

impl Now {
    /// Monotonic milliseconds since the node started.
    pub fn ms(self) -> u64 {
        self.us / 1_000
    }

    /// The sweep tick this moment falls into.
    pub fn tick(self) -> Tick {
        Tick::at_ms(self.ms())
    }
}

/// A moment in units of [`Tick::LENGTH`] since the node started, small enough to keep two per connection in dense
/// arrays. A `u32` of 100 ms lasts 13.6 years, so it is never allowed to wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// The length of one tick.
    pub const LENGTH: Duration = Duration::from_millis(Self::LENGTH_MS);
    /// The moment that never comes: what free slots and lines without a deadline hold.
    pub const NEVER: Self = Self(u32::MAX);

    const LENGTH_MS: u64 = 100;

    /// The tick that contains the given monotonic millisecond.
    pub fn at_ms(ms: u64) -> Self {
        Self(u32::try_from(ms / Self::LENGTH_MS).unwrap_or(u32::MAX - 1))
    }

    /// The tick `duration` later, rounded up so that nothing is due early; saturates just before [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(u128::from(Self::LENGTH_MS));
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        Self(self.0.saturating_add(ticks).min(u32::MAX - 1))
    }

    /// Monotonic millisecond at which the tick begins.
    pub fn ms(self) -> u64 {
        u64::from(self.0) * Self::LENGTH_MS
    }
}

/// A duration in whole milliseconds; one that is too long for that is as long as can be said.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_rounds_up_so_that_nothing_is_due_early() {
        assert_eq!(Tick(5).after(Duration::from_millis(1)), Tick(6));
        assert_eq!(Tick(5).after(Duration::from_millis(100)), Tick(6));
        assert_eq!(Tick(5).after(Duration::from_millis(101)), Tick(7));
    }

    #[test]
    fn what_is_too_long_in_milliseconds_is_as_long_as_can_be_said() {
        assert_eq!(millis(Duration::from_micros(1_999)), 1);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn after_never_reaches_never() {
        assert!(Tick(7).after(Duration::MAX) < Tick::NEVER);
        assert!(Tick::at_ms(u64::MAX) < Tick::NEVER);
    }
}
