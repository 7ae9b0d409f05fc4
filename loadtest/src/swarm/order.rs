//! What all threads of a swarm are told. A thread looks at it whenever its poll returns.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::nanoseconds;
use crate::swarm::Cut;
use crate::swarm::strike::Strike;

/// The orders. The counters publish nothing, so all of them are relaxed; laps and strikes are behind locks.
#[derive(Debug)]
pub(super) struct Order {
    /// 0: go on; else a [`Cut`].
    phase: AtomicU8,
    laps: Mutex<Vec<Lap>>,
    lap_count: AtomicUsize,
    /// When the storm began that comebacks are measured from.
    storm_start_ns: AtomicU64,
    /// The targets that lines connect to: the first, and how many.
    targets: [AtomicUsize; 2],
    /// Whether lines stay now, whatever their age.
    is_settled: AtomicBool,
    strikes: Mutex<Vec<Strike>>,
    strike_count: AtomicUsize,
}

/// A part of the run whose latencies are kept apart.
#[derive(Clone, Copy, Debug)]
struct Lap {
    start_ns: u64,
    place: usize,
}

/// The laps as one thread knows them: every message asks.
#[derive(Debug, Default)]
pub(super) struct Laps(Vec<Lap>);

impl Order {
    pub(super) fn new(targets: usize) -> Self {
        Self {
            phase: AtomicU8::new(0),
            laps: Mutex::default(),
            lap_count: AtomicUsize::new(0),
            storm_start_ns: AtomicU64::new(u64::MAX),
            targets: [0, targets].map(AtomicUsize::new),
            is_settled: AtomicBool::new(false),
            strikes: Mutex::default(),
            strike_count: AtomicUsize::new(0),
        }
    }

    /// What is meant to leave from then on has its latency in this place.
    pub(super) fn start_lap(&self, place: usize, from: Duration) {
        let start_ns = nanoseconds(from);
        let mut laps = self.laps.lock();
        laps.push(Lap { start_ns, place });
        self.lap_count.store(laps.len(), Ordering::Relaxed);
    }

    pub(super) fn begin_cut(&self, cut: Cut) {
        self.phase.store(cut as u8 + 1, Ordering::Relaxed);
    }

    pub(super) fn cut(&self) -> Option<Cut> {
        match self.phase.load(Ordering::Relaxed) {
            0 => None,
            phase if phase == Cut::Close as u8 + 1 => Some(Cut::Close),
            _ => Some(Cut::Reset),
        }
    }

    pub(super) fn start_storm(&self, at: Duration) {
        self.storm_start_ns
            .store(nanoseconds(at), Ordering::Relaxed);
    }

    /// When the latest storm began.
    pub(super) fn storm_start(&self) -> Option<Duration> {
        let ns = self.storm_start_ns.load(Ordering::Relaxed);
        (ns < u64::MAX).then(|| Duration::from_nanos(ns))
    }

    pub(super) fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    pub(super) fn direct(&self, targets: Range<usize>) {
        self.targets[0].store(targets.start, Ordering::Relaxed);
        self.targets[1].store(targets.len().max(1), Ordering::Relaxed);
    }

    /// Where the `n`th line goes; lines take turns.
    pub(super) fn target(&self, n: u32) -> usize {
        let [first, count] = &self.targets;
        first.load(Ordering::Relaxed) + n as usize % count.load(Ordering::Relaxed)
    }

    pub(super) fn add_strike(&self, strike: Strike) {
        let mut strikes = self.strikes.lock();
        strikes.push(strike);
        self.strike_count.store(strikes.len(), Ordering::Relaxed);
    }

    /// Strikes beyond the first `seen`.
    pub(super) fn strikes_since(&self, seen: usize) -> Vec<Strike> {
        if self.strike_count.load(Ordering::Relaxed) == seen {
            return Vec::new();
        }
        self.strikes.lock()[seen..].to_vec()
    }
}

impl Laps {
    /// The place of a message that was meant to leave then; one of no lap is in no latency.
    pub(super) fn place(&mut self, order: &Order, intended_ns: u64) -> Option<usize> {
        if order.lap_count.load(Ordering::Relaxed) > self.0.len() {
            self.0.clone_from(&order.laps.lock());
        }
        let mut latest_first = self.0.iter().rev();
        let lap = latest_first.find(|lap| lap.start_ns <= intended_ns)?;
        Some(lap.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::LineId;
    use crate::swarm::strike::{Blow, Selection};

    #[test]
    fn a_message_belongs_to_the_lap_it_was_meant_to_leave_in() {
        let (order, mut laps) = (Order::new(1), Laps::default());
        assert_eq!(laps.place(&order, 5), None);
        order.start_lap(0, Duration::from_nanos(10));
        order.start_lap(1, Duration::from_nanos(20));
        let places = [9, 10, 19, 20, 1 << 40].map(|ns| laps.place(&order, ns));
        assert_eq!(places, [None, Some(0), Some(0), Some(1), Some(1)]);
        order.start_lap(0, Duration::from_nanos(30));
        let places = [29, 30].map(|ns| laps.place(&order, ns));
        assert_eq!(places, [Some(1), Some(0)], "a lap goes on");
    }

    #[test]
    fn lines_take_turns_among_the_targets_they_are_directed_to() {
        let order = Order::new(3);
        let targets = || [0, 1, 2, 3].map(|n| order.target(n));
        assert_eq!(targets(), [0, 1, 2, 0]);
        order.direct(1..3);
        assert_eq!(targets(), [1, 2, 1, 2]);
    }

    #[test]
    fn each_strike_is_seen_once() {
        let order = Order::new(1);
        assert!(order.strikes_since(0).is_empty());
        let strike = |ms| Strike {
            at: Duration::from_millis(ms),
            lines: Selection {
                first: LineId(0),
                count: 1,
                share: 1.0,
            },
            blow: Blow::Reset,
        };
        order.add_strike(strike(1));
        order.add_strike(strike(2));
        assert_eq!(order.strikes_since(1), [strike(2)]);
        assert!(order.strikes_since(2).is_empty());
    }
}
