//! The judge outside the server: what was sent against what arrived.
//!
//! A [`Ledger`] at the sending end numbers the messages of each line and notes what the server answered; a
//! [`Witness`] at the receiving end sees what arrives on which line. [`Verdict::reach`] compares them once both are
//! still. All messages of one line leave on one sending connection, so their order is the server's promise.

pub(crate) mod mark;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::dialect::LineId;
use crate::oracle::mark::Mark;

/// What the server answered to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It promised delivery (2xx).
    Accepted,
    /// It refused: the message must not arrive.
    Refused,
    /// It said it does not know, or said nothing: either is right.
    Unknown,
}

/// The sending end's book.
#[derive(Debug)]
pub(crate) struct Ledger {
    issued: Vec<u32>,
    doubtful: BTreeMap<(LineId, u32), Answer>,
    accepted: u64,
}

impl Ledger {
    /// A book for lines `0..lines`.
    pub(crate) fn new(lines: u32) -> Self {
        Self {
            issued: vec![0; lines as usize],
            doubtful: BTreeMap::new(),
            accepted: 0,
        }
    }

    /// Numbers the next message for a line.
    pub(crate) fn issue(&mut self, line: LineId) -> u32 {
        let next = &mut self.issued[line.0 as usize];
        *next += 1;
        *next - 1
    }

    /// Notes the answer to a message, once for each.
    pub(crate) fn settle(&mut self, line: LineId, sequence: u32, answer: Answer) {
        match answer {
            Answer::Accepted => self.accepted += 1,
            Answer::Refused | Answer::Unknown => {
                self.doubtful.insert((line, sequence), answer);
            }
        }
    }

    /// Messages the server promised to deliver.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    fn answer(&self, line: LineId, sequence: u32) -> Answer {
        *self
            .doubtful
            .get(&(line, sequence))
            .unwrap_or(&Answer::Accepted)
    }

    fn count(&self, answer: Answer) -> u64 {
        self.doubtful.values().filter(|a| **a == answer).count() as u64
    }
}

/// The receiving end's eyes, for one contiguous run of lines.
#[derive(Debug)]
pub(crate) struct Witness {
    first: LineId,
    expected: Vec<u32>,
    missing: BTreeSet<(LineId, u32)>,
    received: u64,
    duplicate: u64,
    misordered: u64,
    misdelivered: u64,
    foreign: u64,
}

/// A jump over more messages than this is no message of this run.
const SEQUENCE_JUMP_MAX: u32 = 1 << 20;

impl Witness {
    /// Watches lines `first..first + count`.
    pub(crate) fn new(first: LineId, count: u32) -> Self {
        Self {
            first,
            expected: vec![0; count as usize],
            missing: BTreeSet::new(),
            received: 0,
            duplicate: 0,
            misordered: 0,
            misdelivered: 0,
            foreign: 0,
        }
    }

    /// Sees a message arrive on a line.
    pub(crate) fn see(&mut self, line: LineId, mark: Mark) {
        self.received += 1;
        if mark.line != line {
            self.misdelivered += 1;
            return;
        }
        let expected = &mut self.expected[(line.0 - self.first.0) as usize];
        if mark.sequence < *expected {
            let was_missing = self.missing.remove(&(line, mark.sequence));
            *(if was_missing {
                &mut self.misordered
            } else {
                &mut self.duplicate
            }) += 1;
        } else if mark.sequence - *expected > SEQUENCE_JUMP_MAX {
            self.foreign += 1;
        } else {
            self.missing
                .extend((*expected..mark.sequence).map(|skipped| (line, skipped)));
            *expected = mark.sequence + 1;
        }
    }

    /// Sees something arrive that bears a mark's fence but is not a mark.
    pub(crate) fn see_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Everything of these lines that was issued and never seen.
    fn unseen<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = (LineId, u32)> + 'a {
        let tails = self
            .expected
            .iter()
            .zip(self.first.0..)
            .flat_map(|(seen, n)| {
                let issued = ledger.issued.get(n as usize).copied().unwrap_or(0);
                (*seen..issued).map(move |sequence| (LineId(n), sequence))
            });
        self.missing.iter().copied().chain(tails)
    }
}

/// What became of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Promised by the server.
    pub(crate) accepted: u64,
    /// Refused by the server.
    pub(crate) refused: u64,
    /// Neither promised nor refused.
    pub(crate) unknown: u64,
    /// Arrivals, false ones included.
    pub(crate) received: u64,
    /// Promised and never arrived.
    pub(crate) lost: u64,
    /// Arrived again.
    pub(crate) duplicate: u64,
    /// Arrived after a later one of the same connection.
    pub(crate) misordered: u64,
    /// Arrived on another line.
    pub(crate) misdelivered: u64,
    /// Refused, and arrived all the same.
    pub(crate) refused_yet_delivered: u64,
    /// Damaged, or of no sender known here.
    pub(crate) foreign: u64,
}

impl Verdict {
    /// Compares both ends. Both must be still: what is under way counts as lost.
    pub(crate) fn reach(ledger: &Ledger, witnesses: &[Witness]) -> Self {
        let mut verdict = Self {
            sent: ledger.issued.iter().map(|n| u64::from(*n)).sum(),
            accepted: ledger.accepted,
            refused: ledger.count(Answer::Refused),
            unknown: ledger.count(Answer::Unknown),
            refused_yet_delivered: ledger.count(Answer::Refused),
            ..Self::default()
        };
        for witness in witnesses {
            verdict.add(witness, ledger);
        }
        verdict
    }

    /// What must be zero: each count is a message the server cannot account for.
    pub(crate) fn unaccounted(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("duplicate", self.duplicate),
            ("misordered", self.misordered),
            ("misdelivered", self.misdelivered),
            ("refused yet delivered", self.refused_yet_delivered),
            ("foreign", self.foreign),
        ]
    }

    fn add(&mut self, witness: &Witness, ledger: &Ledger) {
        self.received += witness.received;
        self.duplicate += witness.duplicate;
        self.misordered += witness.misordered;
        self.misdelivered += witness.misdelivered;
        self.foreign += witness.foreign;
        for (line, sequence) in witness.unseen(ledger) {
            match ledger.answer(line, sequence) {
                Answer::Accepted => self.lost += 1,
                Answer::Refused => self.refused_yet_delivered -= 1,
                Answer::Unknown => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineId = LineId(11);

    fn mark(line: LineId, sequence: u32) -> Mark {
        Mark {
            line,
            sequence,
            intended_ns: 0,
        }
    }

    /// Sends five messages to one line, lets `deliver` play the server, and judges.
    fn judge(answers: [Answer; 5], deliver: impl FnOnce(&mut Witness)) -> Verdict {
        let mut ledger = Ledger::new(20);
        let mut witness = Witness::new(LineId(10), 10);
        for answer in answers {
            let sequence = ledger.issue(LINE);
            ledger.settle(LINE, sequence, answer);
        }
        deliver(&mut witness);
        Verdict::reach(&ledger, &[Witness::new(LineId(0), 10), witness])
    }

    fn see(witness: &mut Witness, sequences: &[u32]) {
        sequences
            .iter()
            .for_each(|s| witness.see(LINE, mark(LINE, *s)));
    }

    fn faults(verdict: Verdict) -> Vec<(&'static str, u64)> {
        verdict
            .unaccounted()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    const ALL: [Answer; 5] = [Answer::Accepted; 5];

    #[test]
    fn an_honest_server_is_acquitted() {
        let verdict = judge(ALL, |w| see(w, &[0, 1, 2, 3, 4]));
        assert_eq!(faults(verdict), []);
        assert_eq!(
            (verdict.sent, verdict.accepted, verdict.received),
            (5, 5, 5)
        );
    }

    #[test]
    fn a_dropped_message_is_lost_wherever_it_was() {
        for dropped in 0..5 {
            let rest: Vec<u32> = (0..5).filter(|s| *s != dropped).collect();
            assert_eq!(
                faults(judge(ALL, |w| see(w, &rest))),
                [("lost", 1)],
                "{dropped}"
            );
        }
        assert_eq!(faults(judge(ALL, |_| ())), [("lost", 5)]);
    }

    #[test]
    fn a_doubled_message_is_a_duplicate() {
        assert_eq!(
            faults(judge(ALL, |w| see(w, &[0, 1, 1, 2, 3, 4, 0]))),
            [("duplicate", 2)]
        );
    }

    #[test]
    fn a_late_message_is_misordered_and_not_lost() {
        assert_eq!(
            faults(judge(ALL, |w| see(w, &[1, 0, 2, 4, 3]))),
            [("misordered", 2)]
        );
        assert_eq!(
            faults(judge(ALL, |w| see(w, &[1, 0, 0, 2, 3, 4]))),
            [("duplicate", 1), ("misordered", 1)]
        );
    }

    #[test]
    fn a_message_on_the_wrong_line_is_misdelivered_and_missed_at_home() {
        let verdict = judge(ALL, |w| {
            see(w, &[0, 1, 2, 3]);
            w.see(LineId(12), mark(LINE, 4));
        });
        assert_eq!(faults(verdict), [("lost", 1), ("misdelivered", 1)]);
    }

    #[test]
    fn a_refused_message_must_not_arrive_and_a_doubtful_one_may() {
        let answers = [
            Answer::Accepted,
            Answer::Refused,
            Answer::Unknown,
            Answer::Unknown,
            Answer::Accepted,
        ];
        let honest = judge(answers, |w| see(w, &[0, 3, 4]));
        assert_eq!(faults(honest), []);
        assert_eq!((honest.accepted, honest.refused, honest.unknown), (2, 1, 2));
        assert_eq!(
            faults(judge(answers, |w| see(w, &[0, 1, 4]))),
            [("refused yet delivered", 1)]
        );
    }

    #[test]
    fn an_impossible_number_is_foreign() {
        let verdict = judge(ALL, |w| see(w, &[0, 1, 2, 3, 4, u32::MAX]));
        assert_eq!(faults(verdict), [("foreign", 1)]);
    }
}
