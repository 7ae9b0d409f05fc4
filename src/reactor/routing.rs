//! From a message to the shard that holds its device, and from there to the line; the same for questions about devices.
//!
//! Presence says where to look, the shard there compares the id. [`order`](crate::reactor::order) says why what misses
//! its device comes back instead of being passed on.

use crate::base::id::{ConnId, ShardId};
use crate::base::place::Place;
use crate::base::time::Now;
use crate::mailbox::command::{
    Command, Completion, Delivery, Inspection, Outcome, Recipient, Ticket, Way,
};
use crate::mailbox::sender::Sender;
use crate::metrics::Ending;
use crate::net::stream::Transport;
use crate::reactor::pressure::Pressure;
use crate::reactor::shard::{Shard, Timer};
use crate::route::presence::Fingerprint;

impl<T: Transport> Shard<T> {
    /// Takes a message to a device up: looks the device up, and delivers or sends it on its way.
    pub(crate) fn submit(&mut self, mut delivery: Box<Delivery>, deadline_ms: u64, now: Now) {
        self.cells().submitted.add(1);
        if self.node.pressure.level() >= Pressure::RefuseMessages {
            return self.end_busy(&delivery);
        }
        self.limit_patience(delivery.ticket, deadline_ms);
        delivery.way.deadline_ms = deadline_ms;
        let Recipient::Device(device_id) = &delivery.to else {
            return self.deliver_to_member(delivery, now);
        };
        let device = self.fingerprint(device_id);
        delivery.way.candidates = self.node.presence.lookup(device);
        self.route(device, delivery, now);
    }

    /// Delivers a message to the line of an account at the place it names, wherever that is.
    pub(crate) fn deliver_to_member(&mut self, delivery: Box<Delivery>, now: Now) {
        match delivery.way.candidates.last() {
            Some(place) if place.shard != self.id => self.send_on(place.shard, None, delivery),
            _ => self.place_or_end(delivery, now),
        }
    }

    /// Delivers a message if this shard holds its device, and sends it to the shard that may, behind every earlier one.
    fn route(&mut self, device: Fingerprint, mut delivery: Box<Delivery>, now: Now) {
        if self.order.is_holding(device) {
            return self.hold(device, delivery);
        }
        while let Some(place) = self.next_place(device, &mut delivery) {
            let lane = self.order.lane_in_use(device);
            if lane.is_some_and(|shard| shard != place.shard) {
                return self.hold(device, delivery);
            }
            if place.shard != self.id {
                return self.send_on(place.shard, Some(device), delivery);
            }
            delivery.way.candidates.pop();
            if let Some(conn) = self.recipient(place.slot, &delivery) {
                return self.enqueue(conn, *delivery, now);
            }
        }
        self.end_unplaced(&delivery);
    }

    /// Where to look next: everywhere the first look has found, then everywhere the device may be, since a false match
    /// may have hidden it, or it has moved.
    fn next_place(&self, device: Fingerprint, delivery: &mut Delivery) -> Option<Place> {
        let way = &mut delivery.way;
        if way.candidates.is_empty() && !std::mem::replace(&mut way.is_thorough, true) {
            way.candidates = self.node.presence.lookup_all(device);
        }
        way.candidates.last()
    }

    fn send_on(
        &mut self,
        shard: ShardId,
        device: Option<Fingerprint>,
        mut delivery: Box<Delivery>,
    ) {
        delivery.way.settled = self.order.settled(shard);
        let ticket = delivery.ticket;
        if self.stage(shard, Command::Deliver(delivery)) {
            self.order.note_sent(shard, device);
        } else {
            self.count_ending(Ending::Busy);
            self.answer(ticket, Outcome::Busy);
        }
    }

    /// Stages a command for another shard; `false` when its mailbox is full.
    pub(crate) fn stage(&mut self, shard: ShardId, command: Command) -> bool {
        let outgoing = self.outgoing.get_mut(usize::from(shard.0));
        let is_staged = outgoing.is_some_and(|outgoing| outgoing.stage(command).is_ok());
        if !is_staged {
            self.cells().mailbox_full.add(1);
        }
        is_staged
    }

    /// Delivers a message of another shard, or gives it back.
    pub(crate) fn handle_delivery(&mut self, mut delivery: Box<Delivery>, now: Now) {
        let from = delivery.ticket.shard;
        let may_miss = self.order.note_handled(from, delivery.way.settled);
        let Recipient::Device(device_id) = &delivery.to else {
            return self.place_or_end(delivery, now);
        };
        if may_miss && self.order.has_missed(from, self.fingerprint(device_id)) {
            return self.give_back(from, delivery);
        }
        while let Some(place) = delivery.way.candidates.last()
            && place.shard == self.id
        {
            delivery.way.candidates.pop();
            if let Some(conn) = self.recipient(place.slot, &delivery) {
                return self.enqueue(conn, *delivery, now);
            }
        }
        if delivery.way.candidates.is_empty() && delivery.way.is_thorough {
            return self.end_unplaced(&delivery);
        }
        self.order.note_miss(from, self.fingerprint(device_id));
        self.give_back(from, delivery);
    }

    /// In the lane that cannot refuse: the message had its place in the one that can.
    fn give_back(&mut self, shard: ShardId, delivery: Box<Delivery>) {
        self.cells().missed.add(1);
        self.complete(shard, Completion::Missed(delivery));
    }

    /// Stages a completion for another shard.
    pub(crate) fn complete(&mut self, shard: ShardId, completion: Completion) {
        if let Some(outgoing) = self.outgoing.get_mut(usize::from(shard.0)) {
            outgoing.stage_completion(completion);
        }
    }

    /// Takes a message back that has missed its device. It starts again when the others in its lane have arrived.
    pub(crate) fn handle_missed(&mut self, delivery: Box<Delivery>) {
        if let Recipient::Device(device_id) = &delivery.to {
            let device = self.fingerprint(device_id);
            self.order.take_back(device, delivery);
        }
    }

    /// Another shard has handled so many messages of this one: those that waited for that start again.
    pub(crate) fn handle_settled(&mut self, shard: ShardId, handled: u64, now: Now) {
        self.order.note_settled(shard, handled);
        for (device, queue) in self.order.release() {
            for delivery in queue {
                // Its sender has been told that it may not arrive, and may send something else by now.
                if delivery.way.deadline_ms <= now.ms() {
                    self.end_busy(&delivery);
                } else {
                    self.route(device, delivery, now);
                }
            }
        }
    }

    /// Tells the other shards how many of their messages were handled.
    pub(crate) fn tell_settled(&mut self) {
        for (shard, outgoing) in (0..).map(ShardId).zip(&mut self.outgoing) {
            if let Some(handled) = self.order.take_untold(shard) {
                outgoing.stage_completion(Completion::Settled(self.id, handled));
            }
        }
    }

    /// Holds a message until nothing is on its way to the device. Then it looks anew.
    fn hold(&mut self, device: Fingerprint, mut delivery: Box<Delivery>) {
        self.cells().held.add(1);
        let deadline_ms = delivery.way.deadline_ms;
        delivery.way = Way {
            deadline_ms,
            ..Way::default()
        };
        if let Err(delivery) = self.order.hold(device, delivery) {
            self.end_busy(&delivery);
        }
    }

    fn place_or_end(&mut self, mut delivery: Box<Delivery>, now: Now) {
        let place = delivery.way.candidates.pop();
        let place = place.filter(|place| place.shard == self.id);
        match place.and_then(|place| self.recipient(place.slot, &delivery)) {
            Some(conn) => self.enqueue(conn, *delivery, now),
            None => self.end_unplaced(&delivery),
        }
    }

    fn end_unplaced(&mut self, delivery: &Delivery) {
        let (ending, outcome) = match delivery.bound_to {
            Some(_) => (Ending::Refused, Outcome::Gone),
            None => (Ending::Offline, Outcome::Offline),
        };
        self.count_ending(ending);
        self.answer(delivery.ticket, outcome);
    }

    fn end_busy(&mut self, delivery: &Delivery) {
        self.count_ending(Ending::Busy);
        self.answer(delivery.ticket, Outcome::Busy);
    }

    /// The line in a slot, if the message is for it. A message to an account is not for the device that sends it.
    fn recipient(&self, slot: u32, delivery: &Delivery) -> Option<ConnId> {
        let account = match &delivery.to {
            Recipient::Device(device_id) => return self.holder(slot, device_id),
            Recipient::Member(account) => account,
        };
        let id = self.arena.id_at(slot)?;
        let identity = &self.arena.get(id)?.device()?.identity;
        let is_sender =
            matches!(&delivery.from, Sender::Device(from) if *from.device_id == *identity.device());
        (identity.account() == Some(&**account) && !is_sender).then_some(id)
    }

    /// The line in a slot, if it is the device's.
    pub(crate) fn holder(&self, slot: u32, device_id: &str) -> Option<ConnId> {
        let id = self.arena.id_at(slot)?;
        let device = self.arena.get(id)?.device()?;
        (device.identity.device() == device_id).then_some(id)
    }

    fn fingerprint(&self, device_id: &str) -> Fingerprint {
        self.node.presence.fingerprint(device_id.as_bytes())
    }

    /// Asks after a device.
    pub(crate) fn ask(&mut self, mut inspection: Box<Inspection>, deadline_ms: u64) {
        self.limit_patience(inspection.ticket, deadline_ms);
        let device = self.fingerprint(&inspection.device_id);
        inspection.candidates = self.node.presence.lookup(device);
        self.inspect(inspection);
    }

    /// Answers an inspection if this shard holds the device, and passes it on to the next shard that may.
    pub(crate) fn inspect(&mut self, mut inspection: Box<Inspection>) {
        loop {
            while let Some(place) = inspection.candidates.last() {
                if place.shard != self.id {
                    let ticket = inspection.ticket;
                    if !self.stage(place.shard, Command::Inspect(inspection)) {
                        self.answer(ticket, Outcome::Busy);
                    }
                    return;
                }
                inspection.candidates.pop();
                let holder = self.holder(place.slot, &inspection.device_id);
                if let Some(info) = holder.and_then(|id| self.device_info(id)) {
                    return self.answer(inspection.ticket, Outcome::Found(Box::new(info)));
                }
            }
            if std::mem::replace(&mut inspection.is_thorough, true) {
                return self.answer(inspection.ticket, Outcome::Offline);
            }
            let device = self.fingerprint(&inspection.device_id);
            inspection.candidates = self.node.presence.lookup_all(device);
        }
    }

    pub(crate) fn limit_patience(&mut self, ticket: Ticket, deadline_ms: u64) {
        let timer = self.wheel.schedule(deadline_ms, Timer::Waiter(ticket));
        self.api.waiters.set_timer(ticket, timer);
    }
}
