//! Which lines are about to be cut, or are: what is under way to them then may arrive or not.
//!
//! A shadow falls on a line some time before it is cut on purpose, so that what was answered before that has arrived by
//! then, and is lifted when the line is back. The swarm casts shadows; senders ask whether a message lay in one. Without
//! them, a message that a server wrote into a socket just before the generator cut it would look like the server's loss.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::milliseconds;
use crate::name::{LineId, Names};

/// The latest shadow of every line.
#[derive(Debug)]
pub(crate) struct Shadows {
    first: LineId,
    /// Milliseconds of the run: when it fell in the upper half, when it was lifted in the lower one; 0 for none so far.
    /// A cell is all there is to know, so it is relaxed: both ends see it long before a message has made its way.
    cells: Box<[AtomicU64]>,
    /// Lines in a shadow that a sender was told are gone.
    noticed: AtomicU64,
}

impl Shadows {
    /// No shadow on any line.
    pub(crate) fn new(names: &Names) -> Self {
        let cells = (0..names.lines()).map(|_| AtomicU64::new(0));
        Self {
            first: names.first(),
            cells: cells.collect(),
            noticed: AtomicU64::new(0),
        }
    }

    /// A shadow falls on a line, unless one lies there.
    pub(crate) fn fall(&self, line: LineId, now: Duration) {
        if let Some(cell) = self.cell(line)
            && !is_dark(cell.load(Ordering::Relaxed))
        {
            // Never 0, which says that there was none.
            let fell = u64::from(milliseconds(now).max(1));
            cell.store(fell << 32, Ordering::Relaxed);
        }
    }

    /// The line is back.
    pub(crate) fn lift(&self, line: LineId, now: Duration) {
        if let Some(cell) = self.cell(line) {
            let shadow = cell.load(Ordering::Relaxed);
            if is_dark(shadow) {
                let lifted = u64::from(milliseconds(now).saturating_add(1)).max(shadow >> 32);
                cell.store(shadow | lifted, Ordering::Relaxed);
            }
        }
    }

    /// When the shadow fell that lies on a line.
    pub(crate) fn since(&self, line: LineId) -> Option<Duration> {
        let shadow = self.cell(line)?.load(Ordering::Relaxed);
        is_dark(shadow).then(|| Duration::from_millis(shadow >> 32))
    }

    /// Whether a shadow lay on a line at any time from `start` to `end`.
    pub(crate) fn cover(&self, line: LineId, start: Duration, end: Duration) -> bool {
        let Some(cell) = self.cell(line) else {
            return false;
        };
        let shadow = cell.load(Ordering::Relaxed);
        let (fell, lifted) = (shadow >> 32, shadow & u64::from(u32::MAX));
        let (start, end) = (u64::from(milliseconds(start)), u64::from(milliseconds(end)));
        shadow != 0 && fell <= end && (is_dark(shadow) || start <= lifted)
    }

    /// Counts a line that the server knows to be gone.
    pub(crate) fn count_noticed(&self) {
        self.noticed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    pub(crate) fn noticed(&self) -> u64 {
        self.noticed.load(Ordering::Relaxed)
    }

    fn cell(&self, line: LineId) -> Option<&AtomicU64> {
        self.cells.get(line.0.checked_sub(self.first.0)? as usize)
    }
}

fn is_dark(shadow: u64) -> bool {
    shadow != 0 && shadow & u64::from(u32::MAX) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineId = LineId(11);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_message_lies_in_a_shadow_if_any_of_its_time_does() {
        let shadows = Shadows::new(&Names::new(10, 3, 1));
        let cover = |start, end| shadows.cover(LINE, ms(start), ms(end));
        assert!(!cover(0, 10_000));
        shadows.fall(LINE, ms(100));
        assert!(!cover(10, 99) && cover(10, 100) && cover(500, 501));
        assert_eq!(shadows.since(LINE), Some(ms(100)));
        shadows.lift(LINE, ms(200));
        assert!(cover(10, 150) && cover(150, 300) && cover(201, 300) && !cover(202, 300));
        assert_eq!(shadows.since(LINE), None);
        assert!(!shadows.cover(LineId(12), ms(0), ms(300)));
        assert!(!shadows.cover(LineId(9), ms(0), ms(300)));
    }

    #[test]
    fn a_second_blow_leaves_the_shadow_as_long_as_it_was() {
        let shadows = Shadows::new(&Names::new(10, 3, 1));
        shadows.fall(LINE, ms(0));
        shadows.fall(LINE, ms(50));
        assert!(shadows.cover(LINE, ms(0), ms(10)));
        shadows.lift(LINE, ms(60));
        shadows.lift(LINE, ms(90));
        assert!(!shadows.cover(LINE, ms(70), ms(80)));
    }
}
