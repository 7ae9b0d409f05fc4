//! Who waits for an answer on this shard: a sender for its message's level, a reader for a device's whereabouts.
//!
//! A task of the API polls for its answer; a line is written to when the answer is there, and until then has nothing
//! but its place here.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::base::id::{ConnId, Location, MessageId, ShardId};
use crate::base::place::Place;
use crate::base::time::Now;
use crate::base::wheel::TimerId;
use crate::mailbox::command::{Outcome, Ticket};
use crate::reactor::idempotency::Claim;
use crate::reactor::tally::Tally;
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
    /// When the outcome came, in monotonic microseconds.
    answered_us: u64,
    asker: Asker,
    /// The answers so far, when there are several parts to wait for.
    tally: Option<Box<Tally>>,
    /// Ends the waiter's patience; off the wheel once it is answered.
    timer: Option<TimerId>,
    /// The outcome is noted here too, for whoever asks again; boxed because few ask so.
    claim: Option<Box<Claim>>,
}

/// Who gets the answer.
#[derive(Debug)]
enum Asker {
    /// A future of this thread, and how to have it polled.
    Task(Option<Waker>),
    /// A connection, into whose outbox the answer is written.
    Line(Box<Request>),
    /// Nobody any more: the place is kept for the claim.
    Nobody,
}

/// What a line has asked for, and what its reply must say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Who asked.
    pub(crate) conn: ConnId,
    /// The id that the asker chose, as raw JSON.
    pub(crate) id: Box<str>,
    /// The message that was sent, if one was.
    pub(crate) message_id: Option<MessageId>,
    /// When it was asked, in monotonic microseconds.
    pub(crate) asked_us: u64,
    /// What the reply looks like.
    pub(crate) kind: RequestKind,
}

/// What a line has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A message to be sent.
    Send,
    /// A page of the account's devices; the next one begins after this place, if there is one.
    List(Option<Place>),
}

/// What an answer has brought about.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    /// The timer that is not needed any more.
    pub(crate) timer: Option<TimerId>,
    /// The reply that a line is to be written.
    pub(crate) reply: Option<(Box<Request>, Answer)>,
}

/// What a waiter is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The highest level reached before it did.
    pub(crate) progress: Option<(Level, Location)>,
    /// What became of the parts, when there were several.
    pub(crate) tally: Option<Box<Tally>>,
    /// When it ended, in monotonic microseconds.
    pub(crate) at_us: u64,
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
        self.open_for(wait, None)
    }

    /// As [`Self::open`], for a request whose outcome is to be noted even if its sender has hung up by then: the
    /// sender that lost its connection is the one that asks again.
    pub(crate) fn open_for(&self, wait: Level, claim: Option<Box<Claim>>) -> Option<Waiting> {
        let ticket = self.0.borrow_mut().insert(wait, Asker::Task(None), claim)?;
        Some(Waiting {
            waiters: self.clone(),
            ticket,
        })
    }

    /// Reserves a place for the answer to a line or a stream; `None` when the table is full. The answer, or
    /// [`Self::forget`], gives the place back.
    pub(crate) fn open_for_line(
        &self,
        wait: Level,
        request: Box<Request>,
        claim: Option<Box<Claim>>,
    ) -> Option<Ticket> {
        self.0
            .borrow_mut()
            .insert(wait, Asker::Line(request), claim)
    }

    /// Gives the place of a line back that will not hear the answer. Returns the timer that is not needed any more.
    pub(crate) fn forget(&self, ticket: Ticket) -> Option<TimerId> {
        self.0.borrow_mut().remove(ticket)?.timer
    }

    /// Whether the ticket stands for the request that a line gave this id.
    pub(crate) fn is_request(&self, ticket: Ticket, id: &str) -> bool {
        let mut table = self.0.borrow_mut();
        let asker = table.find(ticket).map(|waiter| &waiter.asker);
        matches!(asker, Some(Asker::Line(request)) if *request.id == *id)
    }

    /// Notes the timer that ends a waiter's patience.
    pub(crate) fn set_timer(&self, ticket: Ticket, timer: TimerId) {
        if let Some(waiter) = self.0.borrow_mut().find(ticket) {
            waiter.timer = Some(timer);
        }
    }

    /// Has a waiter wait for several parts, each of which answers for itself.
    pub(crate) fn set_tally(&self, ticket: Ticket, tally: Box<Tally>) {
        if let Some(waiter) = self.0.borrow_mut().find(ticket) {
            waiter.tally = Some(tally);
        }
    }

    /// Delivers an answer; one for a waiter that has left, or was answered before, is dropped.
    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome, now: Now) -> Completed {
        let mut table = self.0.borrow_mut();
        let Some(waiter) = table.find(ticket).filter(|waiter| waiter.outcome.is_none()) else {
            return Completed::default();
        };
        let Some(outcome) = waiter.weigh(ticket.part, outcome) else {
            return Completed::default();
        };
        let timer = waiter.timer.take();
        let progress = waiter.progress;
        if let Some(claim) = waiter.claim.take() {
            claim.settle(&outcome, progress, now);
        }
        match &mut waiter.asker {
            Asker::Task(waker) => {
                let waker = waker.take();
                waiter.outcome = Some(outcome);
                waiter.answered_us = now.us;
                drop(table);
                waker.into_iter().for_each(Waker::wake);
                Completed { timer, reply: None }
            }
            Asker::Line(_) => {
                let reply = table.remove(ticket).and_then(|waiter| {
                    let tally = waiter.tally;
                    let answer = Answer {
                        outcome,
                        progress,
                        tally,
                        at_us: now.us,
                    };
                    waiter.asker.into_request().map(|request| (request, answer))
                });
                Completed { timer, reply }
            }
            Asker::Nobody => {
                table.remove(ticket);
                Completed { timer, reply: None }
            }
        }
    }

    /// Whether the ticket's owner still waits.
    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.0
            .borrow_mut()
            .find(ticket)
            .is_some_and(|waiter| waiter.outcome.is_none())
    }

    /// Whether the ticket stands for a message to one device, sent by a line, of which nothing is known yet.
    pub(crate) fn is_under_way(&self, ticket: Ticket) -> bool {
        let mut table = self.0.borrow_mut();
        let is_message = |asker: &Asker| matches!(asker, Asker::Line(request) if request.kind == RequestKind::Send);
        table.find(ticket).is_some_and(|waiter| {
            let is_submitted = waiter.timer.is_some() && waiter.tally.is_none();
            is_submitted && waiter.progress.is_none() && is_message(&waiter.asker)
        })
    }

    /// How many wait now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().waiters.len()
    }
}

impl Waiter {
    /// What an answer, to one part or to all, means to who waits: `None` as long as there is more to wait for.
    fn weigh(&mut self, part: u32, outcome: Outcome) -> Option<Outcome> {
        if let Some(tally) = &mut self.tally {
            let outcome = tally.note(part, outcome, self.wait);
            self.progress = tally.best();
            return outcome;
        }
        if let Outcome::Reached(level, location) = outcome {
            self.progress = Some((level, location));
            if level < self.wait {
                return None;
            }
        }
        Some(outcome)
    }
}

impl Asker {
    fn into_request(self) -> Option<Box<Request>> {
        match self {
            Self::Line(request) => Some(request),
            Self::Task(_) | Self::Nobody => None,
        }
    }
}

impl Table {
    fn insert(&mut self, wait: Level, asker: Asker, claim: Option<Box<Claim>>) -> Option<Ticket> {
        if self.waiters.len() >= self.waiters_max {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let (shard, generation) = (self.shard, self.generation);
        let waiter = u32::try_from(self.waiters.vacant_key()).ok()?;
        self.waiters.insert(Waiter {
            generation,
            wait,
            progress: None,
            outcome: None,
            answered_us: 0,
            asker,
            tally: None,
            timer: None,
            claim,
        });
        Some(Ticket {
            shard,
            waiter,
            generation,
            part: 0,
        })
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        self.find(ticket)?;
        Some(self.waiters.remove(ticket.waiter as usize))
    }

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
                tally: waiter.tally.take(),
                at_us: waiter.answered_us,
            }),
            None => {
                waiter.asker = Asker::Task(Some(waker.clone()));
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
        match table.find(self.ticket) {
            // It is under way, and its patience will end if nothing else ends it.
            Some(waiter) if waiter.claim.is_some() && waiter.timer.is_some() => {
                waiter.asker = Asker::Nobody;
            }
            _ => drop(table.remove(self.ticket)),
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

    const NOW: Now = Now { us: 7, wall_ms: 0 };

    fn poll(waiting: &Waiting) -> Poll<Answer> {
        waiting.poll_answer(Waker::noop())
    }

    #[test]
    fn a_lower_level_is_progress_not_an_answer() {
        let waiters = Waiters::new(ShardId(0), 8);
        let waiting = waiters.open(Level::Acked).unwrap();
        waiters.complete(
            waiting.ticket(),
            Outcome::Reached(Level::Written, HERE),
            NOW,
        );
        assert!(poll(&waiting).is_pending());
        waiters.complete(waiting.ticket(), Outcome::Timeout, NOW);
        let answer = Answer {
            outcome: Outcome::Timeout,
            progress: Some((Level::Written, HERE)),
            tally: None,
            at_us: 7,
        };
        assert_eq!(poll(&waiting), Poll::Ready(answer));
    }

    #[test]
    fn a_late_answer_does_not_reach_the_places_next_owner() {
        let waiters = Waiters::new(ShardId(0), 1);
        let ticket = waiters.open(Level::Written).unwrap().ticket();
        let next = waiters.open(Level::Written).unwrap();
        assert_eq!(next.ticket().waiter, ticket.waiter);
        waiters.complete(ticket, Outcome::Offline, NOW);
        assert!(poll(&next).is_pending());
        assert!(
            waiters.open(Level::Written).is_none(),
            "the table has its bound"
        );
        drop(next);
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn a_line_is_answered_once_and_its_place_is_free_at_once() {
        let waiters = Waiters::new(ShardId(0), 1);
        let request = || {
            Box::new(Request {
                conn: HERE.conn,
                id: "7".into(),
                message_id: None,
                asked_us: 0,
                kind: RequestKind::Send,
            })
        };
        let ticket = waiters
            .open_for_line(Level::Acked, request(), None)
            .unwrap();
        assert!(waiters.is_request(ticket, "7") && !waiters.is_request(ticket, "8"));
        let written = Outcome::Reached(Level::Written, HERE);
        assert!(waiters.complete(ticket, written, NOW).reply.is_none());
        let (answered, answer) = waiters
            .complete(ticket, Outcome::Unacked, NOW)
            .reply
            .unwrap();
        assert_eq!(answered, request());
        assert_eq!(answer.progress, Some((Level::Written, HERE)));
        assert!(
            waiters
                .complete(ticket, Outcome::Timeout, NOW)
                .reply
                .is_none()
        );

        let next = waiters
            .open_for_line(Level::Queued, request(), None)
            .unwrap();
        waiters.forget(ticket);
        assert!(waiters.is_waiting(next), "a stale ticket forgets nobody");
        waiters.forget(next);
        assert_eq!(waiters.len(), 0);
    }
}
