//! What newcomers may take of an iteration: established lines come first, and wait for no longer than this.
//!
//! A handshake costs what a hundred heartbeats do, and a signature check more. Both are read from a queue after
//! everything established has had its turn, for as long as the iteration's allowance lasts. The rest waits in the
//! kernel's buffers, oldest first, under the one deadline of each handshake.

use std::collections::VecDeque;

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::reactor::conn::Conn;
use crate::reactor::shard::Shard;

/// The newcomers of a shard that have something to say, and the time they have left in this iteration.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    waiting: VecDeque<ConnId>,
    /// In estimated microseconds, so that the simulator needs no clock. The last one admitted may overdraw it.
    allowance_us: u32,
    /// What newcomers have cost in this iteration, in the same.
    spent_us: u64,
    /// What taking sockets in and departures have cost in this iteration, in the same.
    passage_us: u64,
}

impl Admission {
    /// Fills the allowance up for a new iteration. The longer the last one was busy with established lines, the less newcomers
    /// get of this one. What the other comings and goings of a storm took, which have bounds of their own, is not held
    /// against them: sockets would be taken in sooner than anyone is admitted.
    pub(crate) fn refill(&mut self, busy_us: u64) {
        let spent_us = std::mem::take(&mut self.spent_us);
        let passage_us = std::mem::take(&mut self.passage_us);
        let established_us = busy_us.saturating_sub(spent_us + passage_us);
        let left_us = ITERATION_US.saturating_sub(established_us);
        let left_us = u32::try_from(left_us).unwrap_or(u32::MAX);
        self.allowance_us = left_us.clamp(ALLOWANCE_US_MIN, ALLOWANCE_US);
    }

    /// Takes what a step costs, whether it let anyone in or not: a forged token is as dear as a good one.
    pub(crate) fn charge(&mut self, cost_us: u32) {
        self.allowance_us = self.allowance_us.saturating_sub(cost_us);
        self.spent_us += u64::from(cost_us);
    }

    /// Notes what it cost to take a socket in, or to let one go.
    pub(crate) fn note_passage(&mut self, cost_us: u64) {
        self.passage_us += cost_us;
    }

    #[cfg(test)]
    pub(crate) fn is_full(&self) -> bool {
        self.allowance_us == ALLOWANCE_US
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
        let next = self.waiting.pop_front()?;
        self.charge(VISIT_US);
        Some(next)
    }
}

impl<T: Transport> Shard<T> {
    /// Reads a socket that has something, or lets it wait its turn if others come first; tells which.
    pub(crate) fn notice_readable(&mut self, id: ConnId, now: Now) -> bool {
        let waits = |conn: &Conn<T>| conn.is_newcomer() || conn.is_departing();
        let is_read = !self.arena.get(id).is_some_and(waits);
        if is_read {
            self.handle_readable(id, now);
        } else {
            self.mark_unread(id);
        }
        is_read
    }

    /// Reads newcomers' sockets, oldest first, while the allowance lasts.
    pub(crate) fn admit_waiting(&mut self, now: Now) {
        for _ in 0..self.admission.waiting.len() {
            let Some(id) = self.admission.next() else {
                break;
            };
            self.visit(id, now);
        }
    }
}

/// What established lines and newcomers should take of an iteration together. In a storm, departures and taking sockets in
/// add up to 0.7 ms to that.
const ITERATION_US: u64 = 1_000;
/// Newcomers' share of an iteration. Loops under load still turn every one or two milliseconds, and the loop's own cost, some
/// 10 µs for an iteration, stays small beside it.
const ALLOWANCE_US: u32 = 300;
/// What newcomers get of an iteration however long the last one took, so that nobody waits for ever.
const ALLOWANCE_US_MIN: u32 = 60;
/// Reading a head, answering it and opening a line, without looking at a credential (`loadtest idle`: 19 µs for a new
/// line from accept to welcome, of which the kernel's accept takes a third).
const VISIT_US: u32 = 12;
/// Newcomers without tokens or TLS that a full allowance admits.
pub(crate) const ADMITTED_MAX: u32 = ALLOWANCE_US / VISIT_US;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left for newcomers after an iteration that took so long, of which they were given `spent_us`.
    fn allowance_after(busy_us: u64, spent_us: u32) -> u32 {
        let mut admission = Admission::default();
        admission.refill(0);
        admission.charge(spent_us);
        admission.refill(busy_us);
        admission.allowance_us
    }

    #[test]
    fn who_leaves_does_not_keep_newcomers_out() {
        let mut admission = Admission::default();
        admission.refill(0);
        admission.note_passage(900);
        admission.refill(1_100);
        assert_eq!(admission.allowance_us, ALLOWANCE_US);
        for _ in 0..2 {
            admission.refill(1_100);
            assert_eq!(
                admission.allowance_us, ALLOWANCE_US_MIN,
                "that was an iteration ago, and nobody has come"
            );
        }
    }

    #[test]
    fn newcomers_answer_for_all_that_they_took_and_for_no_more() {
        let mut admission = Admission::default();
        admission.refill(0);
        admission.charge(1_500);
        admission.refill(2_200);
        assert_eq!(
            admission.allowance_us, ALLOWANCE_US,
            "who overdraws is no established line"
        );
    }

    #[test]
    fn newcomers_make_room_for_established_lines_and_are_never_shut_out() {
        assert_eq!(allowance_after(0, 0), ALLOWANCE_US);
        assert_eq!(allowance_after(800, 0), 200);
        assert_eq!(allowance_after(5_000, 0), ALLOWANCE_US_MIN);
        assert_eq!(
            allowance_after(800, 300),
            ALLOWANCE_US,
            "their own work is not held against them"
        );
    }

    #[test]
    fn what_a_step_costs_may_overdraw_the_allowance_once() {
        let mut admission = Admission::default();
        admission.refill(0);
        let id = |slot| ConnId {
            slot,
            generation: 1,
        };
        (0..9).for_each(|slot| admission.queue(id(slot)));
        let mut admitted = Vec::new();
        while let Some(next) = admission.next() {
            admission.charge(100);
            admitted.push(next.slot);
        }
        assert_eq!(admitted, [0, 1, 2], "oldest first, 112 us each of 300");
    }
}
