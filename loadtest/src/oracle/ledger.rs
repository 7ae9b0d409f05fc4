//! The sending end's book.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::{LineId, Names};
use crate::oracle::Answer;

/// How many messages each line was sent, and which of them were not simply accepted.
#[derive(Debug)]
pub(crate) struct Ledger {
    first: LineId,
    issued: Vec<u32>,
    others: BTreeMap<(LineId, u32), Entry>,
    accepted: u64,
}

/// A message that was not simply accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) answer: Answer,
    /// From when it was meant to leave until it was answered.
    pub(super) start: Duration,
    pub(super) end: Duration,
}

impl Ledger {
    /// A book for `lines` lines from `first` on.
    pub(crate) fn new(first: LineId, lines: u32) -> Self {
        Self {
            first,
            issued: vec![0; lines as usize],
            others: BTreeMap::new(),
            accepted: 0,
        }
    }

    /// A book for all lines of these names.
    pub(crate) fn of(names: &Names) -> Self {
        Self::new(names.first(), names.lines())
    }

    /// A book of nothing, whatever the lines.
    pub(crate) fn empty() -> Self {
        Self::new(LineId(0), 0)
    }

    /// Numbers the next message for a line.
    pub(crate) fn issue(&mut self, line: LineId) -> u32 {
        let place = self.place(line);
        let next = &mut self.issued[place];
        *next += 1;
        *next - 1
    }

    /// Notes the answer to a message, once for each, and how long it was under way.
    pub(crate) fn settle(
        &mut self,
        (line, sequence): (LineId, u32),
        answer: Answer,
        (start, end): (Duration, Duration),
    ) {
        self.accepted += u64::from(answer == Answer::Accepted);
        if answer != Answer::Accepted {
            let entry = Entry { answer, start, end };
            self.others.insert((line, sequence), entry);
        }
    }

    /// Takes in the book of another sender, which has sent to other lines.
    pub(crate) fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.first, other.first, "books of one run");
        for (sum, issued) in self.issued.iter_mut().zip(other.issued) {
            debug_assert!(*sum == 0 || issued == 0, "each line has one sender");
            *sum += issued;
        }
        self.others.extend(other.others);
        self.accepted += other.accepted;
    }

    /// Messages sent to all lines.
    pub(super) fn sent(&self) -> u64 {
        self.issued.iter().map(|n| u64::from(*n)).sum()
    }

    /// Messages sent to a line.
    pub(super) fn issued(&self, line: LineId) -> u32 {
        self.issued.get(self.place(line)).copied().unwrap_or(0)
    }

    /// Messages the server promised to deliver.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// A message, unless it was simply accepted.
    pub(super) fn other(&self, line: LineId, sequence: u32) -> Option<&Entry> {
        self.others.get(&(line, sequence))
    }

    /// Messages that were not simply accepted.
    pub(super) fn others(&self) -> impl Iterator<Item = (LineId, Entry)> {
        self.others.iter().map(|((line, _), entry)| (*line, *entry))
    }

    /// How many messages got this answer; accepted ones are not kept one by one.
    pub(super) fn count(&self, answer: Answer) -> u64 {
        let others = self.others.values();
        others.filter(|entry| entry.answer == answer).count() as u64
    }

    fn place(&self, line: LineId) -> usize {
        (line.0 - self.first.0) as usize
    }
}
