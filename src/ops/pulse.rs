//! Whether the reactors still turn. An idle one does so ten times a second, for its sweep.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::NodeCells;

/// What was last seen of each reactor.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Vec<Beat>>);

/// A count of iterations, and when it was first seen.
#[derive(Clone, Copy, Debug)]
struct Beat {
    iterations: u64,
    since: Instant,
}

impl Pulse {
    pub(crate) fn new(cells: &NodeCells, now: Instant) -> Self {
        let beat = |iterations| Beat {
            iterations,
            since: now,
        };
        Self(Mutex::new(iterations(cells).map(beat).collect()))
    }

    /// The first reactor that has not turned for [`SILENCE_MAX`], as far as those who asked before could see.
    pub(crate) fn stalled(&self, cells: &NodeCells, now: Instant) -> Option<usize> {
        let mut beats = self.0.lock();
        for (beat, iterations) in beats.iter_mut().zip(iterations(cells)) {
            if beat.iterations != iterations {
                *beat = Beat {
                    iterations,
                    since: now,
                };
            }
        }
        beats.iter().position(|beat| now - beat.since > SILENCE_MAX)
    }
}

fn iterations(cells: &NodeCells) -> impl Iterator<Item = u64> {
    cells.iter().map(|shard| shard.iterations.value())
}

/// How long a reactor may be silent before its node is not ready.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::node_cells;

    #[test]
    fn a_reactor_that_stopped_turning_is_found_and_forgiven() {
        let (cells, start) = (node_cells(2), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let pulse = Pulse::new(&cells, start);
        assert_eq!(pulse.stalled(&cells, at(5)), None);
        cells[0].iterations.add(1);
        assert_eq!(pulse.stalled(&cells, at(6)), Some(1));
        cells[1].iterations.add(1);
        assert_eq!(pulse.stalled(&cells, at(7)), None);
        assert_eq!(pulse.stalled(&cells, at(12)), Some(0));
    }
}
