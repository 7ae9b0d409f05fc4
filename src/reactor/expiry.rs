//! Messages that need not be written any more: their time is over, or a newer one took their place.

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::mailbox::command::Outcome;
use crate::metrics::Ending;
use crate::net::stream::Transport;
use crate::reactor::outbox::Mark;
use crate::reactor::shard::{Shard, Timer};

impl<T: Transport> Shard<T> {
    /// Drops the messages of a line whose time is over, and tells their senders.
    pub(crate) fn drop_expired(&mut self, id: ConnId, now: Now) {
        let outbox = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut());
        let Some(outbox) = outbox.filter(|outbox| outbox.may_expire(now.ms())) else {
            return;
        };
        let before = outbox.len();
        let expired = outbox.expire(now.ms());
        let freed = before - outbox.len();
        self.cells().outbox_bytes.sub(freed as u64);
        for mark in expired {
            self.cells().undelivered.sub(1);
            self.count_ending(Ending::Expired);
            self.answer(mark.ticket, Outcome::Expired(self.location(id)));
        }
    }

    /// Sets the timer that drops messages which their socket does not take in time. A line has one such timer, and
    /// only while its socket is blocked.
    pub(crate) fn arm_expiry(&mut self, id: ConnId) {
        let outbox = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut());
        let Some(outbox) = outbox else {
            return;
        };
        let Some(at) = outbox.next_expiry() else {
            return;
        };
        let timer = Timer::Expiry(id);
        outbox.expiry_timer = Some(self.wheel.hasten(outbox.expiry_timer, at, timer));
    }

    /// A message's time may be over: the flush drops it, and sets the timer again if there are others.
    pub(crate) fn handle_expiry(&mut self, id: ConnId) {
        if let Some(outbox) = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut()) {
            outbox.expiry_timer = None;
            self.mark_dirty(id);
        }
    }

    /// Tells the sender of a message that a newer one took its place.
    pub(crate) fn supersede(&mut self, id: ConnId, older: &Mark) {
        self.cells().undelivered.sub(1);
        self.count_ending(Ending::Superseded);
        self.answer(older.ticket, Outcome::Superseded(self.location(id)));
    }
}
