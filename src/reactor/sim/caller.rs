//! Back ends that call: what they send, what they are told, and whether the node's accounts of it add up.

use std::task::{Poll, Waker};

use bytes::Bytes;
use rand::Rng as _;

use super::checker::Sent;
use super::world::{DEVICES, SHARDS, World};
use crate::base::id::{Location, MessageId};
use crate::mailbox::command::{Delivery, Recipient, Terms, Way};
use crate::mailbox::sender::Sender;
use crate::metrics::{Ending, total};
use crate::wire::api::Level;
use crate::wire::payload::Payload;

/// What a back end asks for with a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) wait: Level,
    pub(super) ttl_ms: Option<u64>,
    pub(super) key: Option<u8>,
    /// Name the device's line.
    pub(super) is_bound: bool,
}

impl World {
    /// A back end sends, sometimes more than a socket takes.
    pub(super) fn submit(&mut self) {
        let sender = self.random.random_range(0..usize::from(SHARDS));
        let device = self.random.random_range(0..DEVICES);
        let is_burst = self.random.random_ratio(1, 8);
        for _ in 0..if is_burst { 24 } else { 1 } {
            let wish = self.wish();
            self.submit_one(sender, device, wish);
        }
    }

    /// What a message asks for, at random.
    fn wish(&mut self) -> Wish {
        let wait = [Level::Queued, Level::Written, Level::Acked][self.random.random_range(0..3)];
        let is_mortal = self.random.random_ratio(1, 4);
        Wish {
            wait,
            ttl_ms: is_mortal.then(|| self.random.random_range(0..2_000)),
            key: self
                .random
                .random_ratio(1, 3)
                .then(|| self.random.random_range(0..2_u8)),
            is_bound: self.random.random_ratio(1, 8),
        }
    }

    /// One message of a back end: each has its shard, as an API connection has.
    pub(super) fn submit_one(&mut self, sender: usize, device: usize, wish: Wish) {
        let Wish {
            wait, ttl_ms, key, ..
        } = wish;
        let bound_to = wish.is_bound.then(|| self.line_of(device)).flatten();
        let number = self.next_number();
        let from = Sender::Service(format!("sim-{sender}").into());
        let shard = &mut self.shards[sender];
        let waiting = shard.api.waiters.open(wait).unwrap();
        let delivery = Delivery {
            to: Recipient::Device(format!("d-{device}").into()),
            way: Way::default(),
            bound_to: bound_to.map(|(_, location)| location),
            message_id: MessageId(number.into()),
            payload: Payload::from_plain(Bytes::from(number.to_string())),
            from: from.clone(),
            wait,
            ticket: waiting.ticket(),
            submitted_us: self.now.us,
            terms: Terms::new(
                ttl_ms,
                key.map(|key| key.to_string()).as_deref(),
                &from,
                self.now.us,
            ),
        };
        let sent = Sent {
            device,
            sender,
            wait,
            at_ms: self.now.ms(),
            ttl_ms,
            key,
            bound_to: bound_to.map(|(connection, _)| connection),
        };
        self.checker.send(number, sent);
        shard.submit(Box::new(delivery), self.now.ms() + PATIENCE_MS, self.now);
        self.waiting.insert(number, waiting);
    }

    /// A device's connection, as a look-up has told it: now, or some time ago.
    fn line_of(&mut self, device: usize) -> Option<(u64, Location)> {
        let known = self.connections.get(&device)?;
        let last = known.len().checked_sub(1)?;
        let back = self.random.random_range(0..3).min(last);
        let connection = known[last - back];
        Some((connection, *self.locations.get(&connection)?))
    }

    /// How messages have ended so far.
    pub(super) fn endings(&self) -> [u64; Ending::ALL.len()] {
        Ending::ALL.map(|ending| total(&self.node.cells, |cells| &cells.endings[ending as usize]))
    }

    /// The conservation law, at every step: what neither ended nor waits is on its way between shards.
    pub(super) fn check_ledger(&self) {
        let cells = &self.node.cells;
        let submitted = total(cells, |cells| &cells.submitted);
        let ended: u64 = self.endings().iter().sum();
        let waiting =
            total(cells, |cells| &cells.undelivered) + total(cells, |cells| &cells.unacked);
        let shards = self.shards.iter();
        let on_their_way: usize = shards.map(|shard| shard.order.len()).sum();
        let missing = submitted.checked_sub(ended + waiting);
        assert!(
            missing.is_some_and(|missing| missing <= on_their_way as u64),
            "{submitted} taken up, {ended} ended, {waiting} wait, {on_their_way} on their way"
        );
    }

    /// Has what back ends were told judged.
    pub(super) fn collect_answers(&mut self) {
        let (checker, now_ms) = (&mut self.checker, self.now.ms());
        let written = self.written.borrow();
        self.waiting
            .retain(|number, waiting| match waiting.poll_answer(Waker::noop()) {
                Poll::Ready(answer) => {
                    checker.answer(*number, &answer, &written, now_ms);
                    false
                }
                Poll::Pending => true,
            });
    }
}

/// How long a back end waits for its level.
const PATIENCE_MS: u64 = 3_000;
