//! The judge outside the server: what was sent against what arrived.
//!
//! A [`Ledger`] at the sending end numbers the messages of each line and notes what the server answered; a
//! [`Witness`] at the receiving end sees what arrives on which line. [`Verdict::reach`] compares them once both are
//! still. All messages of one line leave on one sending connection, so their order is the server's promise.
//!
//! Where lines come and go, [`shadow::Shadows`] say which messages were under way to a line that was cut, and
//! [`Whereabouts`] which were refused because nobody was there, and which had to arrive all the same.

pub(crate) mod ledger;
pub(crate) mod mark;
pub(crate) mod shadow;
pub(crate) mod whereabouts;
pub(crate) mod witness;

use crate::oracle::ledger::Ledger;
use crate::oracle::whereabouts::Whereabouts;
use crate::oracle::witness::Witness;

/// What the server answered to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It promised delivery (2xx).
    Accepted,
    /// It promised delivery, to a line that was cut on purpose meanwhile or did not read: unless that stayed, the message
    /// may arrive or not.
    Doubtful,
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
    /// Promised while the line was being cut, or did not read. Only to one that stayed must they arrive.
    pub(crate) doubtful: u64,
    /// Of these, messages that arrived.
    pub(crate) doubtful_received: u64,
    /// Refused by the server, or not known of, although the line was there.
    pub(crate) refused: u64,
    /// The server said it does not know, although the line was there.
    pub(crate) unknown: u64,
    /// Refused or not known of while the line was away, which is right.
    pub(crate) away: u64,
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
    pub(crate) fn reach<'w>(
        ledger: &Ledger,
        witnesses: impl IntoIterator<Item = &'w Witness>,
        whereabouts: &Whereabouts,
    ) -> Self {
        let doubtful = ledger.count(Answer::Doubtful);
        let mut verdict = Self {
            sent: ledger.sent(),
            accepted: ledger.accepted(),
            doubtful,
            doubtful_received: doubtful,
            unanswered: ledger.count(Answer::None),
            refused_yet_delivered: ledger.count(Answer::Refused),
            ..Self::default()
        };
        for (line, entry) in ledger.others() {
            let is_away = || whereabouts.was_away(line, entry.start, entry.end);
            match entry.answer {
                Answer::Refused | Answer::Unknown if is_away() => verdict.away += 1,
                Answer::Refused => verdict.refused += 1,
                Answer::Unknown => verdict.unknown += 1,
                Answer::Accepted | Answer::Doubtful | Answer::None => {}
            }
        }
        for witness in witnesses {
            verdict.add(witness, ledger, whereabouts);
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

    fn add(&mut self, witness: &Witness, ledger: &Ledger, whereabouts: &Whereabouts) {
        self.received += witness.received;
        self.duplicate += witness.duplicate;
        self.misordered += witness.misordered;
        self.misdelivered += witness.misdelivered;
        self.foreign += witness.foreign;
        for (line, sequence) in witness.unseen(ledger) {
            let Some(entry) = ledger.other(line, sequence) else {
                self.lost += 1;
                continue;
            };
            match entry.answer {
                Answer::Doubtful => {
                    self.doubtful_received -= 1;
                    let stayed = whereabouts.stayed(line, entry.start, entry.end);
                    self.lost += u64::from(stayed);
                }
                Answer::Refused => self.refused_yet_delivered -= 1,
                Answer::Accepted | Answer::Unknown | Answer::None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::name::LineId;
    use crate::oracle::mark::Mark;
    use crate::oracle::whereabouts::Span;

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
        judge_absent(answers, Vec::new(), deliver)
    }

    /// The same with a line that was away; the messages are ten seconds apart.
    fn judge_absent(
        answers: [Answer; 5],
        absences: Vec<Span>,
        deliver: impl FnOnce(&mut Witness),
    ) -> Verdict {
        let mut ledger = Ledger::new(LineId(10), 10);
        let mut witness = Witness::new(LineId(10), 10);
        for answer in answers {
            let sequence = ledger.issue(LINE);
            let second = Duration::from_secs(sequence.into());
            ledger.settle(
                (LINE, sequence),
                answer,
                (second * 10, second * 10 + MOMENT),
            );
        }
        deliver(&mut witness);
        let witnesses = [Witness::new(LineId(20), 10), witness];
        Verdict::reach(&ledger, &witnesses, &Whereabouts::new(absences, Vec::new()))
    }

    const MOMENT: Duration = Duration::from_millis(1);

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
    fn what_was_promised_to_a_line_that_was_cut_may_arrive_once_and_no_more() {
        let answers = [
            Answer::Accepted,
            Answer::Doubtful,
            Answer::Doubtful,
            Answer::Doubtful,
            Answer::Accepted,
        ];
        let verdict = judge(answers, |w| see(w, &[0, 2, 4]));
        assert_eq!(faults(verdict), []);
        let counts = (
            verdict.accepted,
            verdict.doubtful,
            verdict.doubtful_received,
        );
        assert_eq!(counts, (2, 3, 1));
        let twice = judge(answers, |w| see(w, &[0, 2, 2, 4]));
        assert_eq!(faults(twice), [("duplicate", 1)]);
        let lost = judge(answers, |w| see(w, &[0, 1, 2, 3]));
        assert_eq!(faults(lost), [("lost", 1)]);
    }

    #[test]
    fn a_refusal_is_right_while_the_line_is_away() {
        let answers = [
            Answer::Refused,
            Answer::Unknown,
            Answer::Refused,
            Answer::Accepted,
            Answer::Refused,
        ];
        let seconds = Duration::from_secs;
        let absences = vec![Span::absence(LINE, seconds(5), seconds(25))];
        let verdict = judge_absent(answers, absences.clone(), |w| see(w, &[3]));
        assert_eq!((verdict.away, verdict.refused, verdict.unknown), (2, 2, 0));
        let arrived = judge_absent(answers, absences, |w| see(w, &[2, 3]));
        assert_eq!(faults(arrived), [("refused yet delivered", 1)]);
    }

    #[test]
    fn the_books_of_several_senders_are_one() {
        let mut books = [11, 12].map(|n| {
            let mut ledger = Ledger::new(LineId(10), 10);
            let line = LineId(n);
            let numbers = [ledger.issue(line), ledger.issue(line)];
            let span = (Duration::ZERO, MOMENT);
            ledger.settle((line, numbers[0]), Answer::Accepted, span);
            ledger.settle((line, numbers[1]), Answer::Refused, span);
            ledger
        });
        let [one, two] = &mut books;
        one.merge(std::mem::replace(two, Ledger::new(LineId(10), 0)));
        let mut witness = Witness::new(LineId(10), 10);
        for n in [11, 12] {
            witness.see(LineId(n), mark(LineId(n), 0));
        }
        let verdict = Verdict::reach(one, &[witness], &Whereabouts::default());
        assert_eq!((verdict.sent, verdict.accepted, verdict.refused), (4, 2, 2));
        assert_eq!(faults(verdict), []);
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
