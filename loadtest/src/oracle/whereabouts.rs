//! When lines were away: what was sent to them then could be refused.

use std::time::Duration;

use crate::clock::milliseconds;
use crate::name::LineId;

/// A time without a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Absence {
    /// Whose.
    pub(crate) line: LineId,
    start_ms: u32,
    end_ms: u32,
}

/// All absences of a run.
#[derive(Debug, Default)]
pub(crate) struct Absences(Vec<Absence>);

/// A server knows so much earlier that a line is gone, when it is the one who ends it.
const HEAD_START: Duration = Duration::from_secs(2);

impl Absence {
    /// From one moment of the run to another; an end still to come is [`Duration::MAX`].
    pub(crate) fn new(line: LineId, start: Duration, end: Duration) -> Self {
        Self {
            line,
            start_ms: milliseconds(start.saturating_sub(HEAD_START)),
            end_ms: milliseconds(end).saturating_add(1),
        }
    }
}

impl Absences {
    /// These.
    pub(crate) fn new(mut all: Vec<Absence>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// Whether a line was away at any time from `start` to `end`.
    pub(crate) fn cover(&self, line: LineId, start: Duration, end: Duration) -> bool {
        let from = self.0.partition_point(|absence| absence.line < line);
        let own = self.0[from..].iter().take_while(|a| a.line == line);
        let (start, end) = (milliseconds(start), milliseconds(end));
        own.take_while(|a| a.start_ms <= end)
            .any(|absence| absence.end_ms >= start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_excuses_what_was_sent_at_any_time_of_it() {
        let s = Duration::from_secs;
        let absences = Absences::new(vec![
            Absence::new(LineId(2), s(50), Duration::MAX),
            Absence::new(LineId(1), s(40), s(45)),
            Absence::new(LineId(1), s(10), s(20)),
        ]);
        let cover = |line, start, end| absences.cover(LineId(line), s(start), s(end));
        assert!(cover(1, 10, 11) && cover(1, 5, 30) && cover(1, 19, 25) && cover(1, 44, 44));
        assert!(cover(1, 8, 8), "the server knew before");
        assert!(!cover(1, 6, 7) && !cover(1, 21, 37) && !cover(1, 46, 90));
        assert!(cover(2, 1_000, 1_001) && !cover(2, 1, 47) && !cover(3, 0, 99));
    }
}
