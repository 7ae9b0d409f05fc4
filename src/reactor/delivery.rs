//! Messages into outboxes, and out of them: deliver, flush, answer.

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, Location, MessageId, ShardId};
use crate::base::place::Place;
use crate::base::time::Now;
use crate::mailbox::broadcast::encode_raw;
use crate::mailbox::command::{Completion, Delivery, Outcome, Recipient, Replacement};
use crate::mailbox::sender::Sender;
use crate::metrics::Ending;
use crate::net::stream::{Io, Transport};
use crate::protocol::device::Dialect;
use crate::reactor::conn::Phase;
use crate::reactor::fanout::RESULTS_MAX;
use crate::reactor::outbox::{Flushed, Mark, Waiting};
use crate::reactor::plant::{Bug, is_planted};
use crate::reactor::shard::{Shard, token};
use crate::wire::api::Level;
use crate::wire::device::{MessageFrom, encode_message};
use crate::ws::encoder;
use crate::ws::frame::Opcode;

impl<T: Transport> Shard<T> {
    /// Puts a message into a line's outbox, or says why not.
    pub(crate) fn enqueue(&mut self, id: ConnId, delivery: Delivery, now: Now) {
        self.name_holder(id, &delivery);
        let (ticket, wait) = (delivery.ticket, delivery.wait);
        let superseded = match self.check_line(id, &delivery, now) {
            Ok(superseded) => superseded,
            Err((ending, outcome)) => {
                self.count_ending(ending);
                return self.answer(ticket, outcome);
            }
        };
        self.write_message(id, delivery, superseded, now);
        self.cells().undelivered.add(1);
        self.mark_dirty(id);
        if wait == Level::Queued {
            self.answer(ticket, Outcome::Reached(Level::Queued, self.location(id)));
        } else if is_planted(Bug::EarlyWritten) {
            self.answer(ticket, Outcome::Reached(Level::Written, self.location(id)));
        }
    }

    /// Tells a back end which device a message to an account's line is for, as long as it keeps the results.
    fn name_holder(&mut self, id: ConnId, delivery: &Delivery) {
        let is_kept = delivery.ticket.part < RESULTS_MAX;
        let is_wanted = matches!(
            (&delivery.to, &delivery.from),
            (Recipient::Member(_), Sender::Service(_))
        );
        let device = self.arena.get(id).and_then(|conn| conn.device());
        if let Some(device) = device.filter(|_| is_wanted && is_kept) {
            let holder = Outcome::Holder(device.identity.device().into());
            self.answer(delivery.ticket, holder);
        }
    }

    /// Whether a line takes a message, and the waiting one whose place it takes.
    fn check_line(
        &mut self,
        id: ConnId,
        delivery: &Delivery,
        now: Now,
    ) -> Result<Option<Waiting>, (Ending, Outcome)> {
        let here = self.location(id);
        let is_elsewhere = |bound: Location| {
            bound != here && !(is_planted(Bug::SkippedGeneration) && bound.conn.slot == id.slot)
        };
        if delivery.bound_to.is_some_and(is_elsewhere) {
            return Err((Ending::Refused, Outcome::Gone));
        }
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max.as_usize();
        let Some(conn) = self.arena.get(id) else {
            return Err((Ending::Offline, Outcome::Offline));
        };
        let device = conn.device();
        let is_allowed = device.is_some_and(|device| {
            let identity = &device.identity;
            delivery
                .from
                .may_reach(identity.device(), identity.account())
        });
        if !is_allowed {
            // As if it were away: whoever may not reach it does not learn that it is here.
            return Err((Ending::Refused, Outcome::Offline));
        }
        let cannot_ack = device.is_some_and(|device| device.dialect != Dialect::Json);
        if delivery.wait == Level::Acked && cannot_ack {
            return Err((Ending::Refused, Outcome::AckUnsupported));
        }
        let is_from_device = matches!(delivery.from, Sender::Device(_));
        if is_from_device && !self.take_receive(id, now) {
            return Err((Ending::RateLimited, Outcome::RateLimited));
        }
        let terms = delivery.terms.as_deref();
        let expires_ms = terms.and_then(|terms| terms.expires_ms);
        if expires_ms.is_some_and(|at| at <= now.ms()) {
            return Err((Ending::Expired, Outcome::Expired(self.location(id))));
        }
        let outbox = self.arena.get(id).and_then(|conn| conn.outbox.as_ref());
        let superseded = outbox
            .zip(terms)
            .and_then(|(outbox, terms)| outbox.superseded_by(terms));
        let waiting = outbox.map_or(0, |outbox| outbox.len())
            - superseded.map_or(0, |superseded| superseded.bytes);
        // A message over the limit by itself still fits an empty outbox: payloads have their own bound.
        if waiting > 0 && waiting + delivery.payload.bytes.len() > outbox_bytes_max {
            self.close(id, CloseReason::SlowConsumer);
            return Err((Ending::SlowConsumer, Outcome::SlowConsumer));
        }
        Ok(superseded)
    }

    /// Appends a message's frame to the outbox, or puts it where the superseded one was.
    fn write_message(
        &mut self,
        id: ConnId,
        delivery: Delivery,
        superseded: Option<Waiting>,
        now: Now,
    ) {
        let mut text = std::mem::take(&mut self.scratch);
        let Some(device) = self.arena.get_mut(id).and_then(|conn| conn.device_mut()) else {
            return;
        };
        device.delivered = device.delivered.saturating_add(1);
        device.active = now.tick();
        let dialect = device.dialect;
        let Some(outbox) = self.outbox(id) else {
            return;
        };
        let before = outbox.len() as u64;
        let begin = outbox.end();
        let mut frame = Vec::new();
        let out = match superseded {
            Some(_) => &mut frame,
            None => outbox.tail(),
        };
        encode_delivery(dialect, &delivery, &mut text, out);
        let mark = Mark::new(
            delivery.message_id,
            delivery.ticket,
            delivery.wait,
            delivery.submitted_us,
            delivery.way.deadline_ms,
            delivery.terms,
        );
        let older = match superseded {
            Some(waiting) => Some(outbox.replace(waiting, &frame, mark)),
            None => {
                outbox.mark(begin, mark);
                None
            }
        };
        let after = outbox.len() as u64;
        self.cells().outbox_bytes.add(after.wrapping_sub(before));
        self.scratch = text;
        if let Some(older) = older {
            self.supersede(id, &older);
        }
    }

    /// Gives a device up to a newer line of it, or defends it with an even newer one.
    pub(crate) fn replace(&mut self, replacement: Replacement) {
        let Some(id) = self.holder(replacement.slot, &replacement.device_id) else {
            return;
        };
        let Some(device) = self.arena.get(id).and_then(|conn| conn.device()) else {
            return;
        };
        if device.generation < replacement.generation {
            return self.close(id, CloseReason::Replaced);
        }
        let Place { shard, slot } = replacement.by;
        let (generation, by) = (device.generation, self.place(id));
        self.post_replacement(
            shard,
            Replacement {
                device_id: replacement.device_id,
                slot,
                generation,
                by,
            },
        );
    }

    /// Tells the shard that may hold an older line of a device.
    pub(crate) fn post_replacement(&mut self, shard: ShardId, replacement: Replacement) {
        if shard == self.id {
            self.replace(replacement);
        } else {
            // In the lane that cannot refuse: a replacement that got lost would leave a device with two lines.
            self.complete(shard, Completion::Replace(Box::new(replacement)));
        }
    }

    /// Hands every socket with something to say what it takes: one `send` each.
    pub(crate) fn flush_dirty(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(conn) = self.arena.get_mut(id) {
                conn.flags.is_dirty = false;
                self.flush_one(id, now);
            }
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Hands one socket what it takes.
    pub(crate) fn flush_one(&mut self, id: ConnId, now: Now) {
        self.drop_expired(id, now);
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let Some(outbox) = conn.outbox.as_mut() else {
            return self.settle_stream(id);
        };
        let before = outbox.len();
        let flushed = outbox.flush(&mut conn.stream, now.ms());
        let taken = (before - outbox.len()) as u64;
        self.cells().bytes_out.add(taken);
        self.cells().outbox_bytes.sub(taken);
        self.answer_written(id, now);
        match flushed {
            Flushed::Empty => {
                self.resume_api(id);
                self.settle_stream(id);
            }
            Flushed::Blocked => {
                self.watch_writes(id, true);
                self.answer_queued(id);
                self.arm(id, now);
                self.arm_expiry(id);
            }
            Flushed::Broken => self.close_broken(id),
        }
        self.free_idle_outbox(id);
        self.finish_closing(id);
        self.reconsider_stream(id);
    }

    /// Hands the socket what its stream has to say by itself, when nothing of ours is in front of it.
    pub(crate) fn settle_stream(&mut self, id: ConnId) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let is_settled = !conn.stream.owes() && !conn.stream.watches_writes();
        if is_settled || conn.outbox.as_ref().is_some_and(|outbox| outbox.len() > 0) {
            return;
        }
        if conn.stream.owes() && matches!(conn.stream.settle(), Io::Closed | Io::Failed(_)) {
            return self.close_broken(id);
        }
        let owes = conn.stream.owes();
        self.watch_writes(id, owes);
    }

    /// A back end that has read its answers again gets more of them.
    fn resume_api(&self, id: ConnId) {
        let conn = self.arena.get(id);
        if conn
            .is_some_and(|conn| conn.stream.watches_writes() && matches!(conn.phase, Phase::Api(_)))
        {
            self.api.ready.borrow_mut().push(id);
        }
    }

    fn watch_writes(&mut self, id: ConnId, on: bool) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if conn.stream.watches_writes() != on
            && conn
                .stream
                .watch_writes(&self.poller, token(id), on)
                .is_err()
        {
            self.close(id, CloseReason::NetworkError);
        }
    }

    fn free_idle_outbox(&mut self, id: ConnId) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if let Some(outbox) = conn.outbox.take_if(|outbox| outbox.is_idle()) {
            self.recycle(id, outbox);
        }
    }

    /// Tells the senders of all messages whose last byte the kernel has taken.
    fn answer_written(&mut self, id: ConnId, now: Now) {
        let next = |shard: &mut Self| shard.arena.get_mut(id)?.outbox.as_mut()?.next_written();
        while let Some(mark) = next(self) {
            self.cells().undelivered.sub(1);
            self.cells()
                .delivery
                .observe_us(now.us.saturating_sub(mark.submitted_us));
            if mark.wait > Level::Queued {
                self.answer(
                    mark.ticket,
                    Outcome::Reached(Level::Written, self.location(id)),
                );
            }
            if mark.wait == Level::Acked {
                self.await_ack(id, mark);
            } else {
                self.count_ending(Ending::Written);
            }
        }
    }

    /// Tells the senders of messages that have to wait that they are queued, for when their patience ends first.
    fn answer_queued(&mut self, id: ConnId) {
        let Some(outbox) = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut()) else {
            return;
        };
        for ticket in outbox.take_untold() {
            self.answer(ticket, Outcome::Reached(Level::Queued, self.location(id)));
        }
    }

    fn await_ack(&mut self, id: ConnId, mark: Mark) {
        self.cells().unacked.add(1);
        let conn = self.arena.get_mut(id);
        // Of a line that is being closed no acknowledgement is read.
        let line = conn.filter(|conn| conn.device().is_some());
        let given_up = match line.and_then(|line| line.outbox.as_mut()) {
            Some(outbox) => outbox.await_ack(mark),
            None => Some(mark),
        };
        if let Some(mark) = given_up {
            self.give_ack_up(&mark);
        }
    }

    /// Ends a written message that nobody will acknowledge any more.
    pub(crate) fn give_ack_up(&mut self, mark: &Mark) {
        self.cells().unacked.sub(1);
        self.count_ending(Ending::Written);
        self.answer(mark.ticket, Outcome::Unacked);
    }

    /// Notes that the device has acknowledged a message, and what it said with that.
    pub(crate) fn handle_ack(&mut self, id: ConnId, message_id: MessageId, data: Option<&str>) {
        let outbox = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut());
        if let Some(mark) = outbox.and_then(|outbox| outbox.take_unacked(message_id)) {
            self.cells().unacked.sub(1);
            self.count_ending(Ending::Acked);
            let location = self.location(id);
            self.answer(mark.ticket, Outcome::Acked(location, data.map(Box::from)));
            self.free_idle_outbox(id);
        }
    }
}

/// What a receiver is told of the sender.
fn message_from(sender: &Sender) -> MessageFrom<'_> {
    match sender {
        Sender::Service(name) => MessageFrom::Service(name),
        Sender::Device(device) => MessageFrom::Device(&device.device_id),
    }
}

/// Appends a message's frame as the line's dialect has it; `text` is room to compose it in.
fn encode_delivery(dialect: Dialect, delivery: &Delivery, text: &mut Vec<u8>, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Json => {
            text.clear();
            let wants_ack = delivery.wait == Level::Acked;
            encode_message(
                delivery.message_id,
                message_from(&delivery.from),
                &delivery.payload,
                wants_ack,
                text,
            );
            encoder::encode(Opcode::Text, text, out);
        }
        Dialect::Raw | Dialect::Echo => {
            encode_raw(&delivery.payload, out);
        }
    }
}
