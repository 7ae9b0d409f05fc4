//! Who waits for an answer on this shard: a sender for its message's level, a reader for a device's whereabouts.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::base::id::{Location, ShardId};
use crate::base::wheel::TimerId;
use crate::mailbox::command::{Outcome, Ticket};
use crate::wire::api::Level;

/// The waiters of one shard, shared between the loop, which completes them, and the API tasks, which await them.
#[derive(Clone, Debug)]
pub(crate) struct Waiters(Rc<RefCell<Table>>);

#[derive(Debug)]
struct Table {
    shard: ShardId,
    waiters: Slab<Waiter>,
    generation: u32,
    waiters_max: usize,
}

#[derive(Debug)]
struct Waiter {
    generation: u32,
    wait: Level,
    progress: Option<(Level, Location)>,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// Ends the waiter's patience; off the wheel once it is answered.
    timer: Option<TimerId>,
}

/// What a waiter is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The highest level reached before it did.
    pub(crate) progress: Option<(Level, Location)>,
}

impl Waiters {
    /// Makes an empty table that takes so many waiters at once.
    pub(crate) fn new(shard: ShardId, waiters_max: usize) -> Self {
        Self(Rc::new(RefCell::new(Table {
            shard,
            waiters: Slab::new(),
            generation: 0,
            waiters_max,
        })))
    }

    /// Reserves a place for an answer; `None` when the table is full. Dropping the future gives the place back.
    pub(crate) fn open(&self, wait: Level) -> Option<Waiting> {
        let mut table = self.0.borrow_mut();
        if table.waiters.len() >= table.waiters_max {
            return None;
        }
        table.generation = table.generation.wrapping_add(1);
        let (shard, generation) = (table.shard, table.generation);
        let key = table.waiters.insert(Waiter {
            generation,
            wait,
            progress: None,
            outcome: None,
            waker: None,
            timer: None,
        });
        let waiter = u32::try_from(key).ok()?;
        Some(Waiting {
            waiters: self.clone(),
            ticket: Ticket {
                shard,
                waiter,
                generation,
            },
        })
    }

    /// Notes the timer that ends a waiter's patience.
    pub(crate) fn set_timer(&self, ticket: Ticket, timer: TimerId) {
        if let Some(waiter) = self.0.borrow_mut().find(ticket) {
            waiter.timer = Some(timer);
        }
    }

    /// Delivers an answer; one for a waiter that has left, or was answered before, is dropped. Returns the timer that
    /// is not needed any more.
    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome) -> Option<TimerId> {
        let mut table = self.0.borrow_mut();
        let waiter = table
            .find(ticket)
            .filter(|waiter| waiter.outcome.is_none())?;
        if let Outcome::Reached(level, location) = outcome {
            waiter.progress = Some((level, location));
            if level < waiter.wait {
                return None;
            }
        }
        waiter.outcome = Some(outcome);
        let (waker, timer) = (waiter.waker.take(), waiter.timer.take());
        drop(table);
        waker.into_iter().for_each(Waker::wake);
        timer
    }

    /// Whether the ticket's owner still waits.
    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.0
            .borrow_mut()
            .find(ticket)
            .is_some_and(|waiter| waiter.outcome.is_none())
    }

    /// How many wait now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().waiters.len()
    }
}

impl Table {
    fn find(&mut self, ticket: Ticket) -> Option<&mut Waiter> {
        debug_assert_eq!(
            ticket.shard, self.shard,
            "a completion reached the wrong shard"
        );
        let waiter = self.waiters.get_mut(ticket.waiter as usize)?;
        (waiter.generation == ticket.generation).then_some(waiter)
    }
}

/// A place in the table: resolves to the answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    waiters: Waiters,
    ticket: Ticket,
}

impl Waiting {
    /// What the answer must carry.
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The answer, once it is there.
    pub(crate) fn poll_answer(&self, waker: &Waker) -> Poll<Answer> {
        let mut table = self.waiters.0.borrow_mut();
        // The place is this future's until it is dropped, so it is always found.
        let Some(waiter) = table.find(self.ticket) else {
            return Poll::Pending;
        };
        match waiter.outcome.take() {
            Some(outcome) => Poll::Ready(Answer {
                outcome,
                progress: waiter.progress,
            }),
            None => {
                waiter.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.poll_answer(cx.waker())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut table = self.waiters.0.borrow_mut();
        if table.find(self.ticket).is_some() {
            table.waiters.remove(self.ticket.waiter as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ConnId;

    const HERE: Location = Location {
        shard: ShardId(0),
        conn: ConnId {
            slot: 1,
            generation: 2,
        },
    };

    fn poll(waiting: &Waiting) -> Poll<Answer> {
        waiting.poll_answer(Waker::noop())
    }

    #[test]
    fn a_lower_level_is_progress_not_an_answer() {
        let waiters = Waiters::new(ShardId(0), 8);
        let waiting = waiters.open(Level::Acked).unwrap();
        waiters.complete(waiting.ticket(), Outcome::Reached(Level::Written, HERE));
        assert!(poll(&waiting).is_pending());
        waiters.complete(waiting.ticket(), Outcome::Timeout);
        let answer = Answer {
            outcome: Outcome::Timeout,
            progress: Some((Level::Written, HERE)),
        };
        assert_eq!(poll(&waiting), Poll::Ready(answer));
    }

    #[test]
    fn a_late_answer_does_not_reach_the_places_next_owner() {
        let waiters = Waiters::new(ShardId(0), 1);
        let ticket = waiters.open(Level::Written).unwrap().ticket();
        let next = waiters.open(Level::Written).unwrap();
        assert_eq!(next.ticket().waiter, ticket.waiter);
        waiters.complete(ticket, Outcome::Offline);
        assert!(poll(&next).is_pending());
        assert!(
            waiters.open(Level::Written).is_none(),
            "the table has its bound"
        );
        drop(next);
        assert_eq!(waiters.len(), 0);
    }
}
