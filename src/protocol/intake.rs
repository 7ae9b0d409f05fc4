//! What a device has sent in the current second: bounded before anything in it is parsed.

use crate::base::time::Tick;

/// Counts frames, bytes and pings of the current second, in eight bytes: three token buckets would be a fifth of what
/// an idle line costs. Up to twice a limit can pass around the turn of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intake {
    /// The second, without its high bits: after 18 silent hours the old counts could stand for a new second, once.
    second: u16,
    frames: u16,
    /// In units of [`UNIT_BYTES`].
    units: u16,
    pings: u8,
}

/// The most of each in one second; 0 stands for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Frames of all kinds.
    pub frames: u16,
    /// Bytes, as the socket delivered them.
    pub bytes: u32,
    /// Pings, and what else costs more than it says.
    pub pings: u8,
}

impl Intake {
    /// Takes bytes that one visit has read; false when they are too many.
    pub fn admits_bytes(&mut self, bytes: usize, limits: IntakeLimits, now: Tick) -> bool {
        self.turn(now);
        let units = u16::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u16::MAX);
        self.units = self.units.saturating_add(units);
        let units_max = (limits.bytes as usize).div_ceil(UNIT_BYTES);
        limits.bytes == 0 || usize::from(self.units) <= units_max
    }

    /// Takes a frame; false when it is one too many.
    pub fn admits_frame(&mut self, limits: IntakeLimits, now: Tick) -> bool {
        self.turn(now);
        self.frames = self.frames.saturating_add(1);
        limits.frames == 0 || self.frames <= limits.frames
    }

    /// Takes a ping, or a frame as dear; false when it is one too many.
    pub fn admits_ping(&mut self, limits: IntakeLimits, now: Tick) -> bool {
        self.turn(now);
        self.pings = self.pings.saturating_add(1);
        limits.pings == 0 || self.pings <= limits.pings
    }

    /// Starts a new second, if one has begun.
    fn turn(&mut self, now: Tick) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits tell neighbouring seconds apart"
        )]
        let second = (now.0 / TICKS_PER_SECOND) as u16;
        if self.second != second {
            *self = Self {
                second,
                ..Self::default()
            };
        }
    }
}

impl IntakeLimits {
    /// None at all.
    pub const NONE: Self = Self {
        frames: 0,
        bytes: 0,
        pings: 0,
    };
}

/// What a visit of one byte counts as; fine beside what reading it costs.
const UNIT_BYTES: usize = 256;
const TICKS_PER_SECOND: u32 = 10;

const _: () = assert!(size_of::<Intake>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IntakeLimits = IntakeLimits {
        frames: 100,
        bytes: 64 * 1024,
        pings: 20,
    };

    #[test]
    fn a_flood_is_seen_and_a_steady_stream_is_not() {
        let mut intake = Intake::default();
        for second in 0..100_000 {
            let now = Tick(second * TICKS_PER_SECOND);
            assert!(
                (0..100).all(|_| intake.admits_frame(LIMITS, now)),
                "{second}"
            );
            assert!((0..20).all(|_| intake.admits_ping(LIMITS, now)), "{second}");
            assert!(
                (0..64).all(|_| intake.admits_bytes(1_024, LIMITS, now)),
                "{second}"
            );
        }
        let now = Tick(99_999 * TICKS_PER_SECOND + 9);
        assert!(!intake.admits_frame(LIMITS, now));
        assert!(!intake.admits_ping(LIMITS, now));
        assert!(!intake.admits_bytes(1, LIMITS, now));
    }

    #[test]
    fn counts_stop_at_their_end_instead_of_starting_again() {
        let limits = IntakeLimits {
            frames: u16::MAX - 1,
            bytes: 65_534 * 256,
            pings: u8::MAX - 1,
        };
        let mut intake = Intake::default();
        let passed = |admits: &mut dyn FnMut() -> bool| (0..200_000).filter(|_| admits()).count();
        assert_eq!(passed(&mut || intake.admits_frame(limits, Tick(0))), 65_534);
        assert_eq!(passed(&mut || intake.admits_ping(limits, Tick(0))), 254);
        assert_eq!(
            passed(&mut || intake.admits_bytes(256, limits, Tick(0))),
            65_534
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let mut intake = Intake::default();
        assert!((0..100_000).all(|_| {
            intake.admits_frame(IntakeLimits::NONE, Tick(0))
                && intake.admits_ping(IntakeLimits::NONE, Tick(0))
                && intake.admits_bytes(1 << 20, IntakeLimits::NONE, Tick(0))
        }));
    }
}
