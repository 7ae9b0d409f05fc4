//! What a sending thread brings home.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::latency::Latency;
use crate::name::LineId;
use crate::oracle::Answer;
use crate::oracle::ledger::Ledger;
use crate::oracle::shadow::Shadows;
use crate::sender::connection::{Pending, Reply};
use crate::swarm::strike::SHADOW_LEAD;

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
    /// Connections that broke for good, and why.
    pub(crate) broken: Vec<String>,
    /// Connections that broke and were opened again.
    pub(crate) mended: u64,
    /// From the moment a line was cut until the first message for it was refused: when the server knew.
    pub(crate) noticed: Latency,
    /// Of these lines, the latest shadow that was told of.
    noticed_at: BTreeMap<LineId, Duration>,
    shadows: Option<Arc<Shadows>>,
    /// The share of one core this thread used while sending.
    pub(crate) busy: f64,
}

impl Book {
    /// An empty one around a ledger.
    pub(crate) fn empty(ledger: Ledger) -> Self {
        Self {
            ledger,
            round_trip: Latency::new(),
            lateness: Latency::new(),
            words: BTreeMap::new(),
            unasked: 0,
            unsent: 0,
            broken: Vec::new(),
            mended: 0,
            noticed: Latency::new(),
            noticed_at: BTreeMap::new(),
            shadows: None,
            busy: 0.0,
        }
    }

    /// The same book where shadows lie on lines that are about to be cut.
    pub(super) fn under(self, shadows: Option<Arc<Shadows>>) -> Self {
        Self { shadows, ..self }
    }

    /// Notes an answer; what it answers, if anything.
    pub(super) fn settle(&mut self, reply: Reply<'_>, now: Duration) -> Option<Pending> {
        let Some(pending) = reply.pending else {
            self.unasked += 1;
            return None;
        };
        match self.words.get_mut(reply.word) {
            Some((_, count)) => *count += 1,
            None => drop(self.words.insert(reply.word.into(), (reply.answer, 1))),
        }
        let is_dark = self.is_dark(&pending, now);
        if is_dark && reply.answer == Answer::Refused {
            self.notice(pending.line, now);
        }
        let answer = if is_dark && reply.answer == Answer::Accepted {
            Answer::Doubtful
        } else {
            reply.answer
        };
        self.close(&pending, answer, now);
        Some(pending)
    }

    /// Gives up on messages that were not answered in time, which was from `since` on. One that is under way to a line that
    /// is being cut, as all are when their node dies, can have no answer; once the line is back it must have one.
    pub(super) fn give_up(&mut self, pending: Vec<Pending>, since: Duration, now: Duration) {
        for pending in pending {
            let shadows = self.shadows.as_ref();
            let is_dark = shadows.is_some_and(|shadows| {
                shadows.cover(pending.line, since.max(pending.intended), now)
            });
            let answer = if is_dark {
                Answer::Unknown
            } else {
                Answer::None
            };
            self.close(&pending, answer, now);
        }
    }

    /// Gives up on messages whose connection broke under a back end that opens another: they may have been taken or not.
    pub(super) fn lose(&mut self, pending: Vec<Pending>, now: Duration) {
        for pending in pending {
            self.close(&pending, Answer::Unknown, now);
        }
    }

    fn close(&mut self, pending: &Pending, answer: Answer, now: Duration) {
        let Pending {
            line,
            sequence,
            intended,
        } = *pending;
        self.ledger
            .settle((line, sequence), answer, (intended, now));
    }

    fn is_dark(&self, pending: &Pending, now: Duration) -> bool {
        let shadows = self.shadows.as_ref();
        shadows.is_some_and(|shadows| shadows.cover(pending.line, pending.intended, now))
    }

    /// The server knows of a line that it is gone.
    fn notice(&mut self, line: LineId, now: Duration) {
        if let Some(shadows) = &self.shadows
            && let Some(since) = shadows.since(line)
            && self.noticed_at.insert(line, since) != Some(since)
        {
            shadows.count_noticed();
            let cut = since + SHADOW_LEAD;
            self.noticed.record(now.saturating_sub(cut));
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
