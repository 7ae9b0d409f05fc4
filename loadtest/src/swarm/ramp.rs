//! Which lines a thread opens, and when.
//!
//! Threads open in waves, as many at a time as there are cores: a wave that is done only answers pings, and the
//! threads that open do so in batches instead of waking for one line each.

use std::time::Duration;

use crate::name::LineId;

/// How fast lines are opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pacing {
    /// Open loop: so many a second over all threads, whatever the server does.
    Rate(f64),
    /// As fast as the server answers, with at most so many under way over all threads.
    InFlight(u32),
}

/// The share of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its first line.
    pub(crate) first: LineId,
    /// How many lines it has.
    pub(crate) count: u32,
    /// Lines of earlier waves: they go first.
    pub(crate) wave_start: u32,
    /// Its place among the threads of its wave.
    pub(crate) lane: u32,
    /// Threads in its wave.
    pub(crate) lanes: u32,
}

/// Cuts `lines` lines from `first` on into shares of at most `share_max`, even ones, in waves of `lanes`.
pub(crate) fn shares(first: LineId, lines: u32, share_max: u32, lanes: u32) -> Vec<Share> {
    let threads = lines.div_ceil(share_max).max(lanes.min(lines)).max(1);
    let starts: Vec<u32> = (0..=threads)
        .map(|t| {
            u32::try_from(u64::from(lines) * u64::from(t) / u64::from(threads)).unwrap_or(lines)
        })
        .collect();
    let share = |thread: u32| {
        let wave = thread / lanes * lanes;
        Share {
            first: LineId(first.0 + starts[thread as usize]),
            count: starts[thread as usize + 1] - starts[thread as usize],
            wave_start: starts[wave as usize],
            lane: thread - wave,
            lanes: lanes.min(threads - wave),
        }
    };
    (0..threads).map(share).collect()
}

/// The progress of one thread through its share.
#[derive(Debug)]
pub(super) struct Ramp {
    share: Share,
    pacing: Pacing,
    started: u32,
}

/// What a thread is to do next about its ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Open this line, meant for that time.
    Open(LineId, Duration),
    /// Nothing before this long.
    Wait(Duration),
    /// All lines of the share were started.
    Done,
}

/// How often a thread looks whether its turn has come.
const TURN_POLL: Duration = Duration::from_millis(5);

impl Ramp {
    pub(super) fn new(share: Share, pacing: Pacing) -> Self {
        Self {
            share,
            pacing,
            started: 0,
        }
    }

    /// Whether all lines of the share were started.
    pub(super) fn is_done(&self) -> bool {
        self.started == self.share.count
    }

    /// The next step. `in_flight` counts this thread's lines under way, `settled` those of all threads that are done.
    pub(super) fn step(&mut self, in_flight: u32, settled: u32, now: Duration) -> Step {
        if self.is_done() {
            return Step::Done;
        }
        match self.pacing {
            Pacing::Rate(rate) => self.step_at_rate(rate, now),
            Pacing::InFlight(max) => self.step_in_turn(max, in_flight, settled, now),
        }
    }

    fn step_at_rate(&mut self, rate: f64, now: Duration) -> Step {
        let Share {
            wave_start,
            lane,
            lanes,
            ..
        } = self.share;
        let place =
            f64::from(wave_start) + f64::from(lane) + f64::from(self.started) * f64::from(lanes);
        let intended = Duration::from_secs_f64(place / rate);
        if intended > now {
            Step::Wait(intended - now)
        } else {
            self.open(intended)
        }
    }

    fn step_in_turn(&mut self, max: u32, in_flight: u32, settled: u32, now: Duration) -> Step {
        let is_turn = settled >= self.share.wave_start;
        if is_turn && in_flight < (max / self.share.lanes).max(1) {
            self.open(now)
        } else {
            Step::Wait(if is_turn { Duration::MAX } else { TURN_POLL })
        }
    }

    fn open(&mut self, intended: Duration) -> Step {
        self.started += 1;
        Step::Open(LineId(self.share.first.0 + self.started - 1), intended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(ramp: &mut Ramp, now: Duration) -> Vec<(u32, Duration)> {
        std::iter::from_fn(|| match ramp.step(0, 0, now) {
            Step::Open(line, at) => Some((line.0, at)),
            Step::Wait(_) | Step::Done => None,
        })
        .collect()
    }

    #[test]
    fn shares_cover_every_line_once() {
        for (lines, share_max, lanes) in [
            (1, 100, 2),
            (240_000, 18_500, 2),
            (19_000, 18_500, 2),
            (7, 2, 3),
        ] {
            let shares = shares(LineId(0), lines, share_max, lanes);
            let mut next = 0;
            for share in &shares {
                assert_eq!(share.first.0, next);
                assert!(
                    share.count <= share_max
                        && share.lane < share.lanes
                        && share.wave_start <= next
                );
                next += share.count;
            }
            assert_eq!(next, lines);
        }
    }

    #[test]
    fn together_the_threads_keep_the_rate() {
        let mut times: Vec<Duration> = shares(LineId(0), 1000, 300, 2)
            .into_iter()
            .flat_map(|share| opened(&mut Ramp::new(share, Pacing::Rate(1000.0)), 10 * SECOND))
            .map(|(_, at)| at)
            .collect();
        times.sort_unstable();
        assert_eq!(times.len(), 1000);
        assert_eq!(times[0], Duration::ZERO);
        assert!(
            times
                .windows(2)
                .all(|w| w[1] - w[0] <= Duration::from_millis(2))
        );
    }

    #[test]
    fn at_a_rate_nothing_starts_early() {
        let mut ramp = Ramp::new(shares(LineId(0), 100, 100, 1)[0], Pacing::Rate(10.0));
        assert_eq!(opened(&mut ramp, SECOND).len(), 11);
        assert_eq!(ramp.step(0, 0, SECOND), Step::Wait(SECOND / 10));
        assert_eq!(opened(&mut ramp, 60 * SECOND).len(), 89);
        assert_eq!(ramp.step(0, 0, 60 * SECOND), Step::Done);
    }

    #[test]
    fn without_a_rate_the_number_under_way_is_bounded_and_waves_follow_each_other() {
        let shares = shares(LineId(0), 40, 10, 2);
        let mut later = Ramp::new(shares[2], Pacing::InFlight(8));
        assert_eq!(later.step(0, 19, SECOND), Step::Wait(TURN_POLL));
        assert_eq!(later.step(3, 20, SECOND), Step::Open(LineId(20), SECOND));
        assert_eq!(later.step(4, 20, SECOND), Step::Wait(Duration::MAX));
    }
}
