//! What a swarm brings home.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::latency::Latency;
use crate::name::LineId;
use crate::oracle::whereabouts::Span;
use crate::oracle::witness::Witness;
use crate::timeline::Timeline;

/// What was measured and seen.
#[derive(Debug, Default)]
pub(crate) struct Catch {
    /// From the intended start of a line to its 101, of first starts.
    pub(crate) opening: Latency,
    /// The same of later ones, that succeeded.
    pub(crate) reopening: Latency,
    /// From the end of a line until it was open again.
    pub(crate) away: Latency,
    /// From the start of the latest storm until a line was open again that had ended since.
    pub(crate) back: Latency,
    /// How late attempts began because this generator was late.
    pub(crate) lateness: Latency,
    /// Lines that came back, by the attempts it took.
    pub(crate) attempts: BTreeMap<u16, u64>,
    /// From the intended time of a message to its arrival, for each lap.
    pub(crate) laps: Vec<Latency>,
    /// The same over time, if that is asked for.
    pub(crate) timeline: Option<Timeline>,
    /// For lines that are not there at the end, how long they have been away.
    pub(crate) away_for: Vec<Duration>,
    /// Lines that never opened, or ended for good.
    pub(crate) down: Vec<LineId>,
    /// When lines were away.
    pub(crate) absences: Vec<Span>,
    /// When lines stayed although a shadow lay on them.
    pub(crate) stays: Vec<Span>,
    /// What was seen, one for each thread.
    pub(crate) witnesses: Vec<Witness>,
}

impl Catch {
    /// An empty one; with latencies over time in windows of this length.
    pub(super) fn new(window: Option<Duration>) -> Self {
        Self {
            timeline: window.map(Timeline::new),
            ..Self::default()
        }
    }

    /// The latencies of all laps.
    pub(crate) fn delivery(&self) -> Latency {
        let mut all = Latency::new();
        self.laps.iter().for_each(|lap| all.merge(lap));
        all
    }

    /// Adds a message that belongs to a lap.
    pub(super) fn record(&mut self, lap: usize, latency: Duration) {
        if self.laps.len() <= lap {
            self.laps.resize_with(lap + 1, Latency::new);
        }
        self.laps[lap].record(latency);
    }

    /// Takes in another one.
    pub(crate) fn merge(&mut self, part: Self) {
        self.opening.merge(&part.opening);
        self.reopening.merge(&part.reopening);
        self.away.merge(&part.away);
        self.back.merge(&part.back);
        self.lateness.merge(&part.lateness);
        for (attempts, lines) in part.attempts {
            *self.attempts.entry(attempts).or_default() += lines;
        }
        if self.laps.len() < part.laps.len() {
            self.laps.resize_with(part.laps.len(), Latency::new);
        }
        for (lap, more) in self.laps.iter_mut().zip(&part.laps) {
            lap.merge(more);
        }
        match (&mut self.timeline, part.timeline) {
            (Some(timeline), Some(more)) => timeline.merge(more),
            (timeline @ None, more) => *timeline = more,
            (Some(_), None) => {}
        }
        self.away_for.extend(part.away_for);
        self.down.extend(part.down);
        self.absences.extend(part.absences);
        self.stays.extend(part.stays);
        self.witnesses.extend(part.witnesses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_and_attempts_of_all_threads_come_together() {
        let mut all = Catch::default();
        for lap in [2, 0] {
            let mut part = Catch::new(None);
            part.record(lap, Duration::from_millis(1));
            part.attempts.insert(3, 5);
            all.merge(part);
        }
        let counts: Vec<_> = all.laps.iter().map(Latency::count).collect();
        assert_eq!((counts, all.delivery().count()), (vec![1, 0, 1], 2));
        assert_eq!(all.attempts, BTreeMap::from([(3, 10)]));
    }
}
