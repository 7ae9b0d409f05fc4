//! The heartbeat of a line: when to ping, when to give up, when to part.
//!
//! There are no timers per line. A line's next look is one cell of a dense array; whatever arrives from the device
//! moves it on, and a sweep finds the lines whose moment has come.

use std::time::Duration;

use crate::base::time::Tick;

/// The heartbeat policy, the same for all lines of a node.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// Silence after which a line is pinged.
    pub ping_after: Duration,
    /// How long a ping may go unanswered.
    pub pong_timeout: Duration,
}

/// What the sweep finds when a line's moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Silent for long enough: send a ping and look again at the tick given.
    Ping(Tick),
    /// A ping went unanswered.
    Dead,
}

impl Heartbeat {
    /// The next look at a line that was just heard: up to a tenth early, so that lines that were heard together do not
    /// stay together, and never late, because load balancers cut silent lines at round numbers.
    pub fn after_heard(&self, now: Tick, random: u32) -> Tick {
        self.after_silence(self.ping_after / 10, now, random)
    }

    /// The first look at a line that has just opened: anywhere in the last three quarters of the time. After a storm all
    /// lines of a node are of one age, and their pings would be a storm of their own.
    pub fn after_opening(&self, now: Tick, random: u32) -> Tick {
        self.after_silence(self.ping_after * 3 / 4, now, random)
    }

    fn after_silence(&self, early_max: Duration, now: Tick, random: u32) -> Tick {
        now.after(self.ping_after - fraction(early_max, random))
    }

    /// What a due line needs.
    pub fn beat(&self, is_pong_awaited: bool, now: Tick, random: u32) -> Beat {
        if is_pong_awaited {
            return Beat::Dead;
        }
        Beat::Ping(now.after(self.pong_timeout + fraction(self.pong_timeout / 10, random)))
    }
}

/// When a line must leave because of its age: the maximum less a random part of the jitter.
pub fn leave_at(age_max: Duration, age_jitter: Duration, random: u32, opened: Tick) -> Tick {
    opened.after(age_max.saturating_sub(fraction(age_jitter, random)))
}

/// A random part of `whole`, from nothing to all of it.
pub fn fraction(whole: Duration, random: u32) -> Duration {
    whole.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Heartbeat = Heartbeat {
        ping_after: Duration::from_secs(45),
        pong_timeout: Duration::from_secs(15),
    };

    #[test]
    fn pings_come_up_to_a_tenth_early_and_never_late() {
        assert_eq!(HEARTBEAT.after_heard(Tick(0), 0), Tick(450));
        assert_eq!(HEARTBEAT.after_heard(Tick(0), u32::MAX), Tick(405));
    }

    #[test]
    fn lines_opened_together_are_pinged_apart() {
        assert_eq!(HEARTBEAT.after_opening(Tick(0), 0), Tick(450));
        assert_eq!(HEARTBEAT.after_opening(Tick(0), u32::MAX), Tick(113));
    }

    #[test]
    fn a_second_silence_is_death() {
        assert_eq!(HEARTBEAT.beat(false, Tick(100), 0), Beat::Ping(Tick(250)));
        assert_eq!(HEARTBEAT.beat(true, Tick(250), 0), Beat::Dead);
    }

    #[test]
    fn lines_opened_together_leave_apart() {
        let leave = |random| {
            leave_at(
                Duration::from_secs(1_800),
                Duration::from_secs(180),
                random,
                Tick(0),
            )
        };
        assert_eq!((leave(0), leave(u32::MAX)), (Tick(18_000), Tick(16_200)));
    }
}
