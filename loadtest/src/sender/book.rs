//! What a sending thread brings home.

use std::collections::BTreeMap;

use crate::latency::Latency;
use crate::name::Names;
use crate::oracle::Answer;
use crate::oracle::ledger::Ledger;
use crate::sender::connection::{Pending, Reply};

/// What was sent and answered, and how long it took.
#[derive(Debug)]
pub(crate) struct Book {
    /// What was sent and answered.
    pub(crate) ledger: Ledger,
    /// From the intended time of a message to its answer.
    pub(crate) round_trip: Latency,
    /// How late messages left because this generator was late; empty in a closed loop.
    pub(crate) lateness: Latency,
    /// Answers by the word they were given in.
    pub(crate) words: BTreeMap<Box<str>, (Answer, u64)>,
    /// Answers that nobody asked for, and messages that came to a sender.
    pub(crate) unasked: u64,
    /// Arrivals that never left, because the window stayed full.
    pub(crate) unsent: u64,
    /// Connections that broke, and why.
    pub(crate) broken: Vec<String>,
    /// The share of one core this thread used while sending.
    pub(crate) busy: f64,
}

impl Book {
    pub(super) fn new(names: &Names) -> Self {
        Self {
            ledger: Ledger::new(names.first(), names.lines()),
            round_trip: Latency::new(),
            lateness: Latency::new(),
            words: BTreeMap::new(),
            unasked: 0,
            unsent: 0,
            broken: Vec::new(),
            busy: 0.0,
        }
    }

    /// Notes an answer; what it answers, if anything.
    pub(super) fn settle(&mut self, reply: Reply<'_>) -> Option<Pending> {
        let Some(pending) = reply.pending else {
            self.unasked += 1;
            return None;
        };
        match self.words.get_mut(reply.word) {
            Some((_, count)) => *count += 1,
            None => drop(self.words.insert(reply.word.into(), (reply.answer, 1))),
        }
        self.ledger
            .settle(pending.line, pending.sequence, reply.answer);
        Some(pending)
    }

    /// Gives up on messages without an answer.
    pub(super) fn give_up(&mut self, pending: Vec<Pending>) {
        for Pending { line, sequence, .. } in pending {
            self.ledger.settle(line, sequence, Answer::None);
        }
    }

    /// Answers other than success, with their counts.
    pub(crate) fn bad_answers(&self) -> String {
        let bad = self
            .words
            .iter()
            .filter(|(_, (answer, _))| *answer != Answer::Accepted);
        bad.map(|(word, (_, n))| format!("{n} × {word}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}
