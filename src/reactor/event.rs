//! Tells of lines coming and going, if anybody listens: staged during the iteration, handed over once at its end.

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::protocol::device::Device;
use crate::reactor::shard::Shard;
use crate::route::event::{Change, ConnectionEvent};

impl<T: Transport> Shard<T> {
    /// Tells what happened to an open line.
    pub(crate) fn announce(&mut self, id: ConnId, change: Change, now: Now) {
        if !self.node.events.is_watched() {
            return;
        }
        let device = self.arena.get(id).and_then(|conn| conn.device());
        if let Some(event) = device.map(|device| self.event(id, device, change, now)) {
            self.stage_event(event);
        }
    }

    /// Tells what happened to a line whose device is no longer in the table.
    pub(crate) fn announce_of(&mut self, device: &Device, id: ConnId, change: Change, now: Now) {
        if self.node.events.is_watched() {
            let event = self.event(id, device, change, now);
            self.stage_event(event);
        }
    }

    fn event(&self, id: ConnId, device: &Device, change: Change, now: Now) -> ConnectionEvent {
        ConnectionEvent {
            change,
            device_id: device.identity.device().into(),
            user_id: device.identity.account().map(Into::into),
            connection_id: self.node.connection_id_of(self.id, id),
            generation: device.generation,
            at_ms: now.wall_ms,
        }
    }

    fn stage_event(&mut self, event: ConnectionEvent) {
        if self.events.events.len() < EVENTS_STAGED_MAX {
            self.events.events.push(event);
        } else {
            // Told in the place of the next hand-over, which is where this one's end will be.
            self.events_cut += 1;
        }
    }

    /// Hands the control plane what has happened in this iteration. What it has no room for is told as a gap as soon
    /// as it has.
    pub(crate) fn publish_events(&mut self) {
        if self.events.events.is_empty() && self.events.missed == 0 {
            return;
        }
        let batch = std::mem::take(&mut self.events);
        let count = batch.events.len() as u64;
        let refused = self.node.events.publish(batch).err();
        let mut missed = std::mem::take(&mut self.events_cut);
        if let Some(batch) = refused {
            missed += count;
            self.events.missed = batch.missed;
        } else {
            self.cells().events.add(count);
        }
        self.events.missed += missed;
        self.cells().events_missed.add(missed);
    }
}

/// Events of one iteration. Only the end of a whole shard's lines at once comes near it.
const EVENTS_STAGED_MAX: usize = 16_384;
