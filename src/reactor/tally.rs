//! The answers to something that went to several lines or shards, put together.

use crate::base::id::Location;
use crate::mailbox::account::Member;
use crate::mailbox::command::{Outcome, Ticket};
use crate::reactor::receipt::failure_code;
use crate::wire::api::Level;
use crate::wire::error::ErrorCode;

/// What has become of each part so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    is_done: Vec<bool>,
    open: usize,
    /// Parts that reached the level asked for.
    pub(crate) reached: usize,
    /// Parts that did not, by the code that says why.
    pub(crate) failed: Vec<(ErrorCode, usize)>,
    /// The first parts one by one, as many as are wanted.
    pub(crate) results: Vec<PartResult>,
    /// Lines that surveys have found.
    pub(crate) members: Vec<Member>,
    best: Option<(Level, Location)>,
    /// The failure that says most, for when nobody was reached.
    gravest: Outcome,
}

/// What became of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartResult {
    pub(crate) device_id: Option<Box<str>>,
    pub(crate) reached: Option<(Level, Location)>,
    pub(crate) error: Option<ErrorCode>,
}

impl Tally {
    /// Waits for so many parts, and keeps the results of the first few.
    pub(crate) fn new(parts: usize, results: usize) -> Box<Self> {
        Box::new(Self {
            is_done: vec![false; parts],
            open: parts,
            reached: 0,
            failed: Vec::new(),
            results: vec![PartResult::default(); parts.min(results)],
            members: Vec::new(),
            best: None,
            gravest: Outcome::Offline,
        })
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        self.is_done.len()
    }

    /// The highest level that any part has reached.
    pub(crate) fn best(&self) -> Option<(Level, Location)> {
        self.best
    }

    /// Takes the answer of a part, or the end of all patience; yields the outcome of the whole once it is certain.
    pub(crate) fn note(&mut self, part: u32, outcome: Outcome, wait: Level) -> Option<Outcome> {
        if part == Ticket::WHOLE {
            for part in 0..self.is_done.len() {
                self.end(part, Err(outcome.clone()));
            }
            return Some(self.outcome());
        }
        let part = part as usize;
        if self.is_done.get(part) != Some(&false) {
            return None;
        }
        match outcome {
            Outcome::Holder(device_id) => {
                if let Some(result) = self.results.get_mut(part) {
                    result.device_id = Some(device_id);
                }
            }
            Outcome::Surveyed(members) => {
                self.members.extend(members);
                self.end(part, Ok(()));
            }
            // What each of several devices says with its ack has no place in the one answer.
            Outcome::Acked(location, _) => self.reach(part, Level::Acked, location, wait),
            Outcome::Reached(level, location) => self.reach(part, level, location, wait),
            failure @ (Outcome::Found(_)
            | Outcome::Expired(_)
            | Outcome::Superseded(_)
            | Outcome::Offline
            | Outcome::Gone
            | Outcome::Unacked
            | Outcome::SlowConsumer
            | Outcome::AckUnsupported
            | Outcome::RateLimited
            | Outcome::Busy
            | Outcome::Timeout) => self.end(part, Err(failure)),
        }
        (self.open == 0).then(|| self.outcome())
    }

    fn reach(&mut self, part: usize, level: Level, location: Location, wait: Level) {
        if self.best.is_none_or(|(best, _)| best < level) {
            self.best = Some((level, location));
        }
        if let Some(result) = self.results.get_mut(part) {
            result.reached = Some((level, location));
        }
        if level >= wait {
            self.end(part, Ok(()));
        }
    }

    /// The outcome of the whole: what most of it came to, or the failure that says most.
    pub(crate) fn outcome(&mut self) -> Outcome {
        match self.best {
            Some((level, location)) if self.reached > 0 => Outcome::Reached(level, location),
            // A list with a gap is none.
            None if self.failed.is_empty() => Outcome::Surveyed(std::mem::take(&mut self.members)),
            _ => std::mem::replace(&mut self.gravest, Outcome::Offline),
        }
    }

    fn end(&mut self, part: usize, result: Result<(), Outcome>) {
        if std::mem::replace(&mut self.is_done[part], true) {
            return;
        }
        self.open -= 1;
        let Err(failure) = result else {
            self.reached += 1;
            return;
        };
        if gravity(&failure) > gravity(&self.gravest) {
            self.gravest = failure.clone();
        }
        let code = failure_code(&failure);
        match self.failed.iter_mut().find(|(other, _)| *other == code) {
            Some((_, count)) => *count += 1,
            None => self.failed.push((code, 1)),
        }
        if let Some(result) = self.results.get_mut(part) {
            result.error = Some(code);
        }
    }
}

/// How much a failure says: more about what to do than that somebody was away.
fn gravity(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Timeout | Outcome::Unacked => 5,
        Outcome::SlowConsumer => 4,
        Outcome::RateLimited => 3,
        Outcome::Busy => 2,
        Outcome::AckUnsupported | Outcome::Expired(_) | Outcome::Superseded(_) => 1,
        Outcome::Reached(..)
        | Outcome::Acked(..)
        | Outcome::Found(_)
        | Outcome::Holder(_)
        | Outcome::Surveyed(_)
        | Outcome::Offline
        | Outcome::Gone => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, ShardId};

    fn reached_at(level: Level) -> Outcome {
        let (slot, generation) = (1, 2);
        let conn = ConnId { slot, generation };
        let shard = ShardId(0);
        Outcome::Reached(level, Location { shard, conn })
    }

    #[test]
    fn one_part_that_was_reached_is_a_success_of_the_whole() {
        let mut tally = Tally::new(3, 2);
        let note = |tally: &mut Tally, part, outcome| tally.note(part, outcome, Level::Acked);
        assert_eq!(note(&mut tally, 0, Outcome::Holder("tv-1".into())), None);
        assert_eq!(note(&mut tally, 0, reached_at(Level::Written)), None);
        assert_eq!(note(&mut tally, 0, reached_at(Level::Acked)), None);
        assert_eq!(
            note(&mut tally, 0, Outcome::Offline),
            None,
            "a part ends once"
        );
        assert_eq!(note(&mut tally, 7, Outcome::Offline), None, "no such part");
        assert_eq!(note(&mut tally, 1, Outcome::Offline), None);
        let whole = note(&mut tally, 2, Outcome::SlowConsumer);
        assert_eq!(whole, Some(reached_at(Level::Acked)));
        assert_eq!((tally.parts(), tally.reached), (3, 1));
        let failed = [(ErrorCode::DeviceOffline, 1), (ErrorCode::SlowConsumer, 1)];
        assert_eq!(tally.failed, failed);
        assert_eq!(tally.results.len(), 2);
        assert_eq!(tally.results[0].device_id.as_deref(), Some("tv-1"));
        assert_eq!(tally.results[1].error, Some(ErrorCode::DeviceOffline));
    }

    #[test]
    fn an_ack_counts_and_what_was_dropped_failed() {
        let mut tally = Tally::new(2, 2);
        let Outcome::Reached(_, location) = reached_at(Level::Acked) else {
            unreachable!("it was made so");
        };
        let superseded = Outcome::Superseded(location);
        assert_eq!(tally.note(0, superseded, Level::Acked), None);
        let acked = Outcome::Acked(location, Some("1".into()));
        let whole = tally.note(1, acked, Level::Acked);
        assert_eq!(whole, Some(reached_at(Level::Acked)));
        assert_eq!(tally.failed, [(ErrorCode::AckTimeout, 1)]);

        let mut tally = Tally::new(1, 0);
        let whole = tally.note(0, Outcome::Expired(location), Level::Acked);
        assert_eq!(whole, Some(Outcome::Expired(location)));
    }

    #[test]
    fn when_nobody_was_reached_the_gravest_failure_is_told() {
        let mut tally = Tally::new(3, 0);
        for (part, outcome) in (0..).zip([Outcome::Offline, Outcome::RateLimited]) {
            assert_eq!(tally.note(part, outcome, Level::Written), None);
        }
        let whole = tally.note(2, Outcome::Offline, Level::Written);
        assert_eq!(whole, Some(Outcome::RateLimited));
    }

    #[test]
    fn the_end_of_patience_ends_what_is_open_and_tells_the_level_so_far() {
        let mut tally = Tally::new(2, 2);
        tally.note(0, reached_at(Level::Written), Level::Acked);
        let whole = tally.note(Ticket::WHOLE, Outcome::Timeout, Level::Acked);
        assert_eq!(whole, Some(Outcome::Timeout));
        assert_eq!(tally.failed, [(ErrorCode::AckTimeout, 2)]);
        assert_eq!(tally.best().map(|(level, _)| level), Some(Level::Written));
    }
}
