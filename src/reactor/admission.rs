//! What newcomers may take of an iteration: established lines come first, and wait for no longer than this.
//!
//! A handshake costs what a hundred heartbeats do, and a signature check more. Both are read from a queue after
//! everything established has had its turn, for as long as the iteration's allowance lasts. The rest waits in the
//! kernel's buffers, oldest first, under the one deadline of each handshake.

use std::collections::VecDeque;

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::reactor::conn::Phase;
use crate::reactor::shard::Shard;

/// The newcomers of a shard that have something to say, and the time they have left in this iteration.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    waiting: VecDeque<ConnId>,
    /// In estimated microseconds, so that the simulator needs no clock. The last one admitted may overdraw it.
    allowance_us: u32,
}

impl Admission {
    /// Fills the allowance up for a new iteration.
    pub(crate) fn refill(&mut self) {
        self.allowance_us = ALLOWANCE_US;
    }

    /// Takes what a step costs, whether it let anyone in or not: a forged token is as dear as a good one.
    pub(crate) fn charge(&mut self, cost_us: u32) {
        self.allowance_us = self.allowance_us.saturating_sub(cost_us);
    }

    /// Has a newcomer wait for its turn; the caller sees to it that it waits once.
    pub(crate) fn queue(&mut self, id: ConnId) {
        self.waiting.push_back(id);
    }

    /// Whether anyone waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next(&mut self) -> Option<ConnId> {
        if self.allowance_us == 0 {
            return None;
        }
        self.charge(VISIT_US);
        self.waiting.pop_front()
    }
}

impl<T: Transport> Shard<T> {
    /// Reads a socket that has something, or lets it wait its turn if it is a newcomer's.
    pub(crate) fn notice_readable(&mut self, id: ConnId, now: Now) {
        let conn = self.arena.get(id);
        if conn.is_some_and(|conn| matches!(conn.phase, Phase::Upgrade(_))) {
            self.mark_unread(id);
        } else {
            self.handle_readable(id, now);
        }
    }

    /// Reads newcomers' sockets, oldest first, while the allowance lasts.
    pub(crate) fn admit_waiting(&mut self, now: Now) {
        for _ in 0..self.admission.waiting.len() {
            let Some(id) = self.admission.next() else {
                break;
            };
            if let Some(conn) = self.arena.get_mut(id) {
                conn.flags.is_unread = false;
                self.handle_readable(id, now);
            }
        }
    }
}

/// Newcomers' share of an iteration. Loops under load still turn every millisecond, and the loop's own cost, some 10 µs
/// for an iteration, stays small beside it.
const ALLOWANCE_US: u32 = 300;
/// Reading a head, answering it and opening a line, without looking at a credential (`loadtest idle`: 19 µs for a new
/// line from accept to welcome, of which the kernel's accept takes a third).
const VISIT_US: u32 = 12;
