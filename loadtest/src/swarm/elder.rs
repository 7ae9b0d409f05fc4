//! Lines that were asked to leave and stay until their successors are open, as those of devices do that hand over.
//!
//! Such an elder stands beside its line's place, where the comeback goes on as that of any line does. It is known by the
//! start of the line that it is, since its successor may be asked to leave before it has ended.

use std::mem;
use std::time::Duration;

use mio::Interest;

use crate::line::{Failure, OpenLine};
use crate::name::LineId;
use crate::swarm::agenda::{Entry, Task};
use crate::swarm::comeback::Comeback;
use crate::swarm::life::{End, GOODBYE_TIMEOUT};
use crate::swarm::thread::{Line, SwarmThread};

/// A line that stays until its successor is open.
#[derive(Debug)]
pub(super) struct Elder {
    pub(super) line: Box<OpenLine>,
    /// Whether it has said goodbye, because its successor is open.
    is_leaving: bool,
    /// What ended it.
    end: Option<Failure>,
}

/// A line, and which start of it.
pub(super) type Start = (LineId, u16);

/// The close code of a line whose successor is open.
const REPLACED: u16 = 4502;

impl SwarmThread {
    /// Has a line that is asked to leave stay until its successor is open.
    pub(super) fn stay(
        &mut self,
        id: LineId,
        mut line: Box<OpenLine>,
        comeback: Comeback,
        wait: Duration,
    ) {
        let token = self.elder_token(id);
        let registry = self.poll.registry();
        if let Err(error) = registry.reregister(line.source(), token, Interest::READABLE) {
            return self.lose(id, Failure::socket(&error));
        }
        let now = self.clock_now();
        let past = self.past(id);
        past.away_since = now;
        let start = (id, past.starts);
        let elder = Elder {
            line,
            is_leaving: false,
            end: None,
        };
        self.elders.insert(start, elder);
        let due = comeback.due(0, Some(wait), &mut self.random, now);
        *self.line(id) = Line::Away;
        self.schedule(due, id, Task::Return);
    }

    /// Says goodbye on the line that waited for its successor; whether there is one.
    pub(super) fn hand_over(&mut self, id: LineId, now: Duration) -> bool {
        let mut own = self
            .elders
            .extract_if((id, 0)..=(id, u16::MAX), |_, elder| !elder.is_leaving);
        let Some((start, mut elder)) = own.next() else {
            return false;
        };
        drop(own);
        elder.line.close();
        elder.is_leaving = true;
        self.agenda.schedule(Entry {
            at: now + GOODBYE_TIMEOUT,
            line: id,
            start: start.1,
            task: Task::GiveUp,
        });
        self.settle(start, elder);
        true
    }

    /// Reads the elders of a line up to one of its starts until nothing is left, the eldest first.
    pub(super) fn hear_elders(&mut self, (id, start): Start, is_ending: bool) {
        // Every message asks, and mostly there are none.
        if self.elders.is_empty() {
            return;
        }
        let own = self.elders.range((id, 0)..=(id, start));
        let starts: Vec<_> = own.map(|(start, _)| *start).collect();
        for start in starts {
            self.hear_elder(start, is_ending);
        }
    }

    /// The server has not answered an elder's goodbye, if that has not ended.
    pub(super) fn give_elder_up(&mut self, start: Start) {
        if self.elders.remove(&start).is_some() {
            self.tally().count_silence();
            self.tally().count_hand_over();
        }
    }

    /// Has elders that wait for their successors take their places again; those that are leaving remain.
    pub(super) fn recall_elders(&mut self) -> Vec<Elder> {
        let (leaving, waiting): (Vec<_>, Vec<_>) = mem::take(&mut self.elders)
            .into_iter()
            .partition(|(_, elder)| elder.is_leaving);
        for ((id, _), elder) in waiting {
            *self.line(id) = Line::Open(elder.line);
        }
        leaving.into_iter().map(|(_, elder)| elder).collect()
    }

    fn hear_elder(&mut self, start: Start, is_ending: bool) {
        let Some(mut elder) = self.elders.remove(&start) else {
            return;
        };
        if elder.end.is_none()
            && let End::Over(failure) = self.read(start, &mut elder.line, is_ending)
        {
            elder.end = Some(failure);
        }
        self.settle(start, elder);
    }

    /// Puts an elder back, unless it has ended and that is that.
    fn settle(&mut self, start: Start, elder: Elder) {
        let (id, _) = start;
        let is_expected = matches!(self.line(id), Line::Upgrading(_));
        match elder.end {
            Some(_) if elder.is_leaving => self.tally().count_hand_over(),
            // Its successor is open, says the server, though its answer on the other connection has not been seen.
            Some(Failure::Closed(REPLACED, _)) if is_expected => {
                self.elders.insert(start, elder);
            }
            Some(failure) => self.lose_elder(id, failure),
            None => {
                self.elders.insert(start, elder);
            }
        }
    }

    /// An elder is over before its successor is open: from now on the line is away.
    fn lose_elder(&mut self, id: LineId, failure: Failure) {
        self.past(id).away_since = self.clock_now();
        self.tally().count_setback_of_open(failure);
        self.tally().count_end();
    }
}
