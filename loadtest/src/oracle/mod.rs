//! The judge outside the server: what was sent against what arrived.
//!
//! A [`Ledger`] at the sending end numbers the messages of each line and notes what the server answered; a
//! [`Witness`] at the receiving end sees what arrives on which line. [`Verdict::reach`] compares them once both are
//! still. All messages of one line leave on one sending connection, so their order is the server's promise.

pub(crate) mod ledger;
pub(crate) mod mark;
pub(crate) mod witness;

use crate::oracle::ledger::Ledger;
use crate::oracle::witness::Witness;

/// What the server answered to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It promised delivery (2xx).
    Accepted,
    /// It refused: the message must not arrive.
    Refused,
    /// It said it does not know: either is right.
    Unknown,
    /// It said nothing, which it must not; the message may arrive or not.
    None,
}

/// What became of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Promised by the server.
    pub(crate) accepted: u64,
    /// Refused by the server.
    pub(crate) refused: u64,
    /// The server said it does not know.
    pub(crate) unknown: u64,
    /// Never answered.
    pub(crate) unanswered: u64,
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
            sent: ledger.sent(),
            accepted: ledger.accepted(),
            refused: ledger.count(Answer::Refused),
            unknown: ledger.count(Answer::Unknown),
            unanswered: ledger.count(Answer::None),
            refused_yet_delivered: ledger.count(Answer::Refused),
            ..Self::default()
        };
        for witness in witnesses {
            verdict.add(witness, ledger);
        }
        verdict
    }

    /// What must be zero: each count is a message the server cannot account for.
    pub(crate) fn unaccounted(&self) -> [(&'static str, u64); 7] {
        [
            ("lost", self.lost),
            ("duplicate", self.duplicate),
            ("misordered", self.misordered),
            ("misdelivered", self.misdelivered),
            ("unanswered", self.unanswered),
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
                Answer::Unknown | Answer::None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::LineId;
    use crate::oracle::mark::Mark;

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
        let mut ledger = Ledger::new(LineId(10), 10);
        let mut witness = Witness::new(LineId(10), 10);
        for answer in answers {
            let sequence = ledger.issue(LINE);
            ledger.settle(LINE, sequence, answer);
        }
        deliver(&mut witness);
        Verdict::reach(&ledger, &[Witness::new(LineId(20), 10), witness])
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
    fn silence_is_a_fault_and_leaves_open_whether_the_message_arrives() {
        let answers = [
            Answer::None,
            Answer::Accepted,
            Answer::None,
            Answer::Accepted,
            Answer::Accepted,
        ];
        for arrived in [&[0, 1, 2, 3, 4][..], &[1, 3, 4]] {
            let verdict = judge(answers, |w| see(w, arrived));
            assert_eq!(faults(verdict), [("unanswered", 2)]);
        }
    }

    #[test]
    fn an_impossible_number_is_foreign() {
        let verdict = judge(ALL, |w| see(w, &[0, 1, 2, 3, 4, u32::MAX]));
        assert_eq!(faults(verdict), [("foreign", 1)]);
    }
}
