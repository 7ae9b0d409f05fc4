//! The sending end's book.

use std::collections::BTreeMap;

use crate::name::LineId;
use crate::oracle::Answer;

/// How many messages each line was sent, and which of them were not accepted.
#[derive(Debug)]
pub(crate) struct Ledger {
    first: LineId,
    issued: Vec<u32>,
    doubtful: BTreeMap<(LineId, u32), Answer>,
    accepted: u64,
}

impl Ledger {
    /// A book for `lines` lines from `first` on.
    pub(crate) fn new(first: LineId, lines: u32) -> Self {
        Self {
            first,
            issued: vec![0; lines as usize],
            doubtful: BTreeMap::new(),
            accepted: 0,
        }
    }

    /// Numbers the next message for a line.
    pub(crate) fn issue(&mut self, line: LineId) -> u32 {
        let place = self.place(line);
        let next = &mut self.issued[place];
        *next += 1;
        *next - 1
    }

    /// Notes the answer to a message, once for each.
    pub(crate) fn settle(&mut self, line: LineId, sequence: u32, answer: Answer) {
        match answer {
            Answer::Accepted => self.accepted += 1,
            Answer::Refused | Answer::Unknown | Answer::None => {
                self.doubtful.insert((line, sequence), answer);
            }
        }
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

    /// What the server answered.
    pub(super) fn answer(&self, line: LineId, sequence: u32) -> Answer {
        *self
            .doubtful
            .get(&(line, sequence))
            .unwrap_or(&Answer::Accepted)
    }

    /// How many messages got this answer; accepted ones are not kept one by one.
    pub(super) fn count(&self, answer: Answer) -> u64 {
        self.doubtful.values().filter(|a| **a == answer).count() as u64
    }

    fn place(&self, line: LineId) -> usize {
        (line.0 - self.first.0) as usize
    }
}
