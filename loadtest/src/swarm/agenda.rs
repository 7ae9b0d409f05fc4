//! What a thread has to do later, line by line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::name::LineId;

/// What falls due for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// It comes back.
    Return,
    /// It is old enough to leave.
    Leave,
    /// It said goodbye, and the server has not answered.
    GiveUp,
}

/// An entry. It holds for one start of the line: later ones have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// When it falls due.
    pub(super) at: Duration,
    /// For whom.
    pub(super) line: LineId,
    /// The start of the line it is about.
    pub(super) start: u16,
    /// What falls due.
    pub(super) task: Task,
}

/// Entries, the next one first.
#[derive(Debug, Default)]
pub(super) struct Agenda(BinaryHeap<Reverse<Entry>>);

impl Agenda {
    /// Adds an entry.
    pub(super) fn schedule(&mut self, entry: Entry) {
        self.0.push(Reverse(entry));
    }

    /// Takes the next entry if it is due.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Entry> {
        let is_due = self.next_at().is_some_and(|at| at <= now);
        is_due.then(|| self.0.pop())?.map(|Reverse(entry)| entry)
    }

    /// When the next entry falls due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse(entry)| entry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fall_due_in_their_order() {
        let mut agenda = Agenda::default();
        let entry = |ms, line| Entry {
            at: Duration::from_millis(ms),
            line: LineId(line),
            start: 1,
            task: Task::Return,
        };
        for (ms, line) in [(30, 1), (10, 2), (20, 3)] {
            agenda.schedule(entry(ms, line));
        }
        assert_eq!(agenda.take_due(Duration::from_millis(9)), None);
        assert_eq!(agenda.next_at(), Some(Duration::from_millis(10)));
        let due = std::iter::from_fn(|| agenda.take_due(Duration::from_millis(20)));
        assert_eq!(due.map(|e| e.line.0).collect::<Vec<_>>(), [2, 3]);
    }
}
