//! What lines have asked for and wait for: an idle line has nothing here.
//!
//! A request is a waiter whose answer becomes a `reply` on the line that asked. Its line knows it by the id that the
//! far end chose, and holds no more of them than a bound; it is gone with its answer, or with its line. Streams have a
//! window instead of a list.

use std::hash::BuildHasher as _;

use hashbrown::HashMap;

use crate::base::id::{ConnId, MessageId};
use crate::base::time::Now;
use crate::mailbox::command::{Outcome, Ticket};
use crate::net::stream::Transport;
use crate::reactor::account::encode_page;
use crate::reactor::receipt::{Receipt, encode_reply};
use crate::reactor::shard::{Shard, Timer};
use crate::reactor::waiter::{Answer, Request, RequestKind};
use crate::wire::api::Level;
use crate::wire::error::ErrorCode;
use crate::wire::reply::{Reply, encode_failure};
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// The requests of a shard's lines that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Requests(HashMap<ConnId, Vec<Pending>>);

/// One of them: the waiter has the rest.
#[derive(Debug)]
struct Pending {
    /// Of the id, so that looking for one reads no waiter but its own.
    hash: u64,
    ticket: Ticket,
}

/// Why a request was not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// A request of this id is not answered yet.
    Duplicate,
    /// The line has as many unanswered requests as it may.
    TooMany,
    /// The shard has.
    Busy,
}

/// What a request is about to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The line that asks.
    pub(crate) conn: ConnId,
    /// The id that its far end chose, as raw JSON.
    pub(crate) id: &'a str,
    /// The message it sends, if it does.
    pub(crate) message_id: Option<MessageId>,
    /// The level to answer at.
    pub(crate) wait: Level,
    /// What the reply looks like.
    pub(crate) kind: RequestKind,
    /// Most unanswered requests of the line.
    pub(crate) requests_max: usize,
}

impl Requests {
    /// Whether a line waits for an answer.
    pub(crate) fn is_waiting(&self, conn: ConnId) -> bool {
        self.0.contains_key(&conn)
    }
}

impl<T: Transport> Shard<T> {
    /// Reserves the place of an answer that is to be written to a line.
    pub(crate) fn open_request(
        &mut self,
        question: &Question<'_>,
        now: Now,
    ) -> Result<Ticket, Denial> {
        let waiters = &self.api.waiters;
        let hash = self.requests.0.hasher().hash_one(question.id);
        let pending = self.requests.0.get(&question.conn);
        let pending = pending.map_or(&[][..], |pending| pending);
        let is_same =
            |other: &Pending| other.hash == hash && waiters.is_request(other.ticket, question.id);
        if pending.iter().any(is_same) {
            return Err(Denial::Duplicate);
        }
        if pending.len() >= question.requests_max {
            return Err(Denial::TooMany);
        }
        let request = Box::new(Request {
            conn: question.conn,
            id: question.id.into(),
            message_id: question.message_id,
            asked_us: now.us,
            kind: question.kind,
        });
        let ticket = waiters
            .open_for_line(question.wait, request, None)
            .ok_or(Denial::Busy)?;
        let pending = self.requests.0.entry(question.conn).or_default();
        pending.push(Pending { hash, ticket });
        Ok(ticket)
    }

    /// Writes the answer to the line that asked; one that has ended meanwhile is counted.
    pub(crate) fn reply(&mut self, ticket: Ticket, request: &Request, answer: Answer) {
        let conn = self.arena.get(request.conn);
        if conn.is_some_and(|conn| conn.stream().is_some()) {
            return self.reply_to_stream(request, answer);
        }
        let is_heard = conn.is_some_and(|conn| conn.device().is_some());
        self.requests.remove(request.conn, ticket);
        if !is_heard {
            self.cells().replies_undeliverable.add(1);
            return;
        }
        let latency_ms = self.api.now.get().us.saturating_sub(request.asked_us) / 1_000;
        let mut text = Vec::new();
        encode_answer(request, answer, latency_ms, &mut text);
        let mut frame = Vec::new();
        encoder::encode(Opcode::Text, &text, &mut frame);
        self.send_bounded(request.conn, &frame);
    }

    /// Whether a message of a line to a device has neither arrived nor ended.
    pub(crate) fn has_under_way(&self, id: ConnId) -> bool {
        let pending = self.requests.0.get(&id);
        let mut tickets = pending.into_iter().flatten().map(|pending| pending.ticket);
        tickets.any(|ticket| self.api.waiters.is_under_way(ticket))
    }

    /// Forgets what a line has asked for: it will not hear the answers, and they are counted.
    pub(crate) fn forget_requests(&mut self, id: ConnId) {
        for Pending { ticket, .. } in self.requests.0.remove(&id).unwrap_or_default() {
            if let Some(timer) = self.api.waiters.forget(ticket) {
                self.wheel.cancel(timer, Timer::Waiter(ticket));
            }
            self.cells().replies_undeliverable.add(1);
        }
    }
}

impl Requests {
    /// How many lines wait for an answer.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn remove(&mut self, id: ConnId, ticket: Ticket) {
        let Some(pending) = self.0.get_mut(&id) else {
            return;
        };
        if let Some(at) = pending
            .iter()
            .position(|pending| pending.ticket.for_part(0) == ticket.for_part(0))
        {
            pending.swap_remove(at);
        }
        if pending.is_empty() {
            self.0.remove(&id);
        }
    }
}

/// What a device is told of its request. A device that is away and one that it may not reach are the same to it.
fn encode_answer(request: &Request, mut answer: Answer, latency_ms: u64, out: &mut Vec<u8>) {
    if let (RequestKind::List(next), Outcome::Surveyed(members)) =
        (request.kind, &mut answer.outcome)
    {
        return encode_page(&request.id, members, next, out);
    }
    if answer.outcome == Outcome::Offline {
        let reply = Reply {
            level: answer.progress.map(|(level, _)| level),
            latency_ms,
            ..Reply::to(&request.id)
        };
        return encode_failure(&reply, ErrorCode::TargetUnavailable, UNAVAILABLE, out);
    }
    if matches!(request.kind, RequestKind::List(_)) && answer.outcome != Outcome::RateLimited {
        answer.outcome = Outcome::Busy;
    }
    encode_ending(request, &answer, latency_ms, out);
}

/// What a line or a stream is told of a message it has sent.
pub(crate) fn encode_ending(
    request: &Request,
    answer: &Answer,
    latency_ms: u64,
    out: &mut Vec<u8>,
) {
    let message_id = request.message_id.unwrap_or(MessageId(0));
    match Receipt::new(message_id, &answer.outcome, answer.progress, latency_ms) {
        Ok(receipt) => {
            let devices = answer.tally.as_ref();
            let devices = devices.map(|tally| (tally.reached, tally.parts()));
            encode_reply(&request.id, &receipt, devices, out);
        }
        Err((code, cause)) => {
            let reply = Reply {
                message_id: request.message_id,
                level: answer.progress.map(|(level, _)| level),
                latency_ms,
                ..Reply::to(&request.id)
            };
            encode_failure(&reply, code, &cause, out);
        }
    }
}

/// What is said of a target that is not connected, and of one that the sender may not reach.
pub(crate) const UNAVAILABLE: &str = "no such target is connected that this device may send to";
