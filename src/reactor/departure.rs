//! What lines whose far end has left may take of an iteration: whoever is still there comes first.
//!
//! When a load balancer dies, tens of thousands end in one moment, and each costs as much as two heartbeats: the read that
//! says so, presence, the account, the close. What else happens meanwhile would stand behind all of them in the queue of the
//! poll. Put aside here they cost the look at their event, and some are dealt with in each iteration.

use std::collections::VecDeque;

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::reactor::conn::{Conn, Phase};
use crate::reactor::shard::Shard;

/// The connections of a shard that are still to be read to their end, the first to leave first.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    waiting: VecDeque<ConnId>,
}

impl Departures {
    /// Has a connection wait for its turn; the caller sees to it that it waits once.
    pub(crate) fn queue(&mut self, id: ConnId) {
        self.waiting.push_back(id);
    }

    /// Whether anyone waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T> Conn<T> {
    /// Whether it is one of those that can leave in masses, and its far end has.
    pub(crate) fn is_departing(&self) -> bool {
        let is_device = matches!(self.phase, Phase::Device(_) | Phase::Closing(_));
        is_device && self.flags.is_read_closed
    }
}

impl<T: Transport> Shard<T> {
    /// Reads some of those who have left to their end.
    pub(crate) fn continue_departures(&mut self, now: Now) {
        let count = self.departures.waiting.len();
        for _ in 0..count.min(PER_ITERATION_MAX) {
            let Some(id) = self.departures.waiting.pop_front() else {
                break;
            };
            if self.arena.get(id).is_some() {
                self.visit(id, now);
                self.admission.note_passage(DEPARTURE_US);
            }
        }
        if self.departures.waiting.is_empty() {
            // As large as the storm was, it would stay for good.
            self.departures.waiting.shrink_to(PER_ITERATION_MAX);
        }
    }
}

/// Reading a socket to its end, and the burial.
const DEPARTURE_US: u64 = 15;
/// So that others wait for half a millisecond. In tests few, so that a storm takes several iterations.
const PER_ITERATION_MAX: usize = if cfg!(test) { 2 } else { 32 };
