//! When lines were away, so that what was sent to them could be refused; and when they stayed in spite of a shadow, so
//! that what was promised had to arrive.

use std::time::Duration;

use crate::clock::milliseconds;
use crate::name::LineId;

/// A time of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    line: LineId,
    start_ms: u32,
    end_ms: u32,
}

/// All that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    absences: Spans,
    stays: Spans,
}

/// Spans in the order of their lines.
#[derive(Debug, Default)]
struct Spans(Vec<Span>);

/// A server knows so much earlier that a line is gone, when it is the one who ends it.
const HEAD_START: Duration = Duration::from_secs(2);

impl Span {
    /// A time without a line, from one moment of the run to another; an end still to come is [`Duration::MAX`].
    pub(crate) fn absence(line: LineId, start: Duration, end: Duration) -> Self {
        Self {
            line,
            start_ms: milliseconds(start.saturating_sub(HEAD_START)),
            end_ms: milliseconds(end).saturating_add(1),
        }
    }

    /// A time in which a line was open from the first moment to the last.
    pub(crate) fn stay(line: LineId, start: Duration, end: Duration) -> Self {
        Self {
            line,
            start_ms: milliseconds(start).saturating_add(1),
            end_ms: milliseconds(end),
        }
    }
}

impl Whereabouts {
    /// Of these times.
    pub(crate) fn new(absences: Vec<Span>, stays: Vec<Span>) -> Self {
        Self {
            absences: Spans::new(absences),
            stays: Spans::new(stays),
        }
    }

    /// Whether a line was away at any time from `start` to `end`.
    pub(super) fn was_away(&self, line: LineId, start: Duration, end: Duration) -> bool {
        let (start, end) = (milliseconds(start), milliseconds(end));
        let mut own = self.absences.of(line);
        own.any(|span| span.start_ms <= end && span.end_ms >= start)
    }

    /// Whether a line was there all the time from `start` to `end` although it lay in a shadow.
    pub(super) fn stayed(&self, line: LineId, start: Duration, end: Duration) -> bool {
        let (start, end) = (milliseconds(start), milliseconds(end));
        let mut own = self.stays.of(line);
        own.any(|span| span.start_ms <= start && span.end_ms >= end)
    }
}

impl Spans {
    fn new(mut all: Vec<Span>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    fn of(&self, line: LineId) -> impl Iterator<Item = &Span> {
        let from = self.0.partition_point(|span| span.line < line);
        self.0[from..]
            .iter()
            .take_while(move |span| span.line == line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn an_absence_excuses_what_was_sent_at_any_time_of_it() {
        let absences = vec![
            Span::absence(LineId(2), s(50), Duration::MAX),
            Span::absence(LineId(1), s(40), s(45)),
            Span::absence(LineId(1), s(10), s(20)),
        ];
        let whereabouts = Whereabouts::new(absences, Vec::new());
        let away = |line, start, end| whereabouts.was_away(LineId(line), s(start), s(end));
        assert!(away(1, 10, 11) && away(1, 5, 30) && away(1, 19, 25) && away(1, 44, 44));
        assert!(away(1, 8, 8), "the server knew before");
        assert!(!away(1, 6, 7) && !away(1, 21, 37) && !away(1, 46, 90));
        assert!(away(2, 1_000, 1_001) && !away(2, 1, 47) && !away(3, 0, 99));
    }

    #[test]
    fn a_stay_binds_for_what_lies_within_it() {
        let stays = vec![Span::stay(LineId(1), s(10), s(20))];
        let whereabouts = Whereabouts::new(Vec::new(), stays);
        let stayed = |line, start, end| whereabouts.stayed(LineId(line), s(start), s(end));
        assert!(stayed(1, 11, 20));
        assert!(
            !stayed(1, 9, 12) && !stayed(1, 10, 12) && !stayed(1, 12, 21) && !stayed(2, 12, 13)
        );
    }
}
