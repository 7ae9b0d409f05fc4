//! The sweep: every tick a tenth of the table is looked over for lines and streams that are silent or must leave.
//!
//! A full pass over a million lines without hits costs about 0.2 ms (`benches/wheel.rs`), and cutting it into ten
//! spreads the pings that follow.

use std::sync::Arc;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, ShardId};
use crate::base::time::{Now, Tick, millis};
use crate::net::stream::Transport;
use crate::protocol::device::Dialect;
use crate::protocol::heartbeat::{Beat, fraction};
use crate::protocol::stream::Stream;
use crate::reactor::shard::Shard;
use crate::wire::device::encode_goaway;

/// Where the sweep stands.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The next slot to look at.
    cursor: u32,
    /// Where this pass over the table ends. Slots that come meanwhile are for the next one, or a table that grows all the time
    /// would only be looked at where it grows.
    end: u32,
    /// When the next slice is due, in monotonic milliseconds.
    next_ms: u64,
    /// How far into a tick the slices of this shard are due.
    phase_ms: u64,
    /// The moving of presence words stands here, while the presence table grows.
    rehomed: u32,
    /// Lines whose moment has come, and whose turn has not.
    found: Vec<ConnId>,
}

impl Sweep {
    /// The sweep of one of a node's shards. They look over their slices by turns: at the same moment all would send their
    /// pings, and whatever else there is to do would wait for all of them where reactors share a core.
    pub(crate) fn new(shard: ShardId, shards: usize) -> Self {
        Self {
            phase_ms: u64::from(shard.0) * millis(Tick::LENGTH) / shards as u64,
            ..Self::default()
        }
    }

    /// When the next slice is due, in monotonic milliseconds.
    pub(crate) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Has the next slice wait for this shard's turn in the tick to come.
    fn await_turn(&mut self, now: Now) {
        let length_ms = millis(Tick::LENGTH);
        let passed = now.ms().saturating_sub(self.phase_ms) / length_ms;
        self.next_ms = (passed + 1) * length_ms + self.phase_ms;
    }

    /// Whether somebody waits for a turn.
    pub(crate) fn has_more(&self) -> bool {
        !self.found.is_empty()
    }
}

impl<T: Transport> Shard<T> {
    /// Looks over the next slice of lines, if it is due and the one before is dealt with, and gives some of those that were
    /// found their turn.
    pub(crate) fn sweep(&mut self, now: Now) {
        if now.ms() >= self.sweep.next_ms && !self.sweep.has_more() {
            self.look_over(now);
        }
        let mut found = std::mem::take(&mut self.sweep.found);
        let turns = found.len().min(TURNS_PER_ITERATION_MAX);
        for id in found.drain(..turns) {
            self.handle_due(id, now);
        }
        self.sweep.found = found;
    }

    fn look_over(&mut self, now: Now) {
        self.sweep.await_turn(now);
        self.end_stop(now);
        if self.sweep.cursor >= self.sweep.end {
            self.arena.trim();
            self.sweep.cursor = 0;
            self.sweep.end = self.arena.slots();
        }
        let Sweep { cursor, end, .. } = self.sweep;
        let slice = cursor..cursor.saturating_add(end.div_ceil(SLICES)).min(end);
        self.sweep.cursor = slice.end;
        let found = &mut self.sweep.found;
        self.arena.sweep(slice.clone(), now.tick(), found);
        self.shed(slice);
        self.forget_sources(now);
    }

    fn handle_due(&mut self, id: ConnId, now: Now) {
        if self.arena.leave(id.slot) <= now.tick() {
            self.part(id, now);
        }
        if self.arena.due(id.slot) <= now.tick() {
            self.beat(id, now);
        }
    }

    /// Pings who is silent, or gives up who did not answer.
    fn beat(&mut self, id: ConnId, now: Now) {
        let (heartbeat, random) = (self.settings.heartbeat, self.roll());
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        // The pong of a paused stream may wait behind records that are not read: its own answers show whether it lives.
        if conn.stream().is_some_and(Stream::is_paused) {
            let due = heartbeat.after_heard(now.tick(), random);
            return self.arena.set_due(id.slot, due);
        }
        let Some(is_pong_awaited) = conn.is_pong_awaited_mut() else {
            return;
        };
        match heartbeat.beat(*is_pong_awaited, now.tick(), random) {
            Beat::Ping(next) => {
                *is_pong_awaited = true;
                self.arena.set_due(id.slot, next);
                self.cells().pings.add(1);
                self.give_overdue_acks_up(id, now);
                self.send(id, PING_FRAME);
            }
            Beat::Dead => self.close(id, CloseReason::PongTimeout),
        }
    }

    /// Asks a line or a stream to leave, or closes it if it was asked before and has not gone.
    pub(crate) fn part(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if conn.stream().is_some() {
            return self.part_stream(id, now);
        }
        let Some(device) = conn.device_mut() else {
            return;
        };
        let reason = device.leave_reason;
        // A raw line has no words for it: its planned close comes with its code.
        let was_asked = device.leaving.replace(reason).is_some();
        if was_asked || device.dialect != Dialect::Json {
            return self.close(id, reason);
        }
        let url = self.drain_url().filter(|_| reason == CloseReason::Drain);
        self.say_goaway(id, reason, url.as_deref(), now);
        self.tell_leaving(id, now);
    }

    /// Writes the go-away. Who has not gone when the grace is over is found by the sweep.
    pub(crate) fn say_goaway(
        &mut self,
        id: ConnId,
        reason: CloseReason,
        url: Option<&str>,
        now: Now,
    ) {
        let grace = self.settings.lifetime.goaway_grace;
        self.arena.set_leave(id.slot, now.tick().after(grace));
        // In the first half of the grace, so that the new one can be up before the old one must go.
        let reconnect_after = fraction(grace / 2, self.roll());
        let mut text = Vec::new();
        encode_goaway(
            reason,
            millis(reconnect_after),
            millis(grace),
            url,
            &mut text,
        );
        self.send_text(id, &text);
    }

    /// When a line opened at the tick given must leave because of its age.
    pub(crate) fn leave_by_age(&mut self, opened: Tick) -> Tick {
        let random = self.roll();
        let lifetime = &self.settings.lifetime;
        crate::protocol::heartbeat::leave_at(lifetime.age_max, lifetime.age_jitter, random, opened)
    }

    /// Moves this shard's presence words to where they belong after the table has grown, some at a time.
    pub(crate) fn rehome(&mut self) {
        if !self.node.presence.is_rehoming(self.id) {
            return;
        }
        let node = Arc::clone(&self.node);
        let presence = &node.presence;
        let from = self.sweep.rehomed;
        let end = from
            .saturating_add(REHOMED_SLOTS_MAX)
            .min(self.arena.slots());
        let mut homeless = Vec::new();
        for (id, conn) in self
            .arena
            .iter_from(from)
            .take_while(|(id, _)| id.slot < end)
        {
            let Some(device) = conn.device() else {
                continue;
            };
            let fingerprint = presence.fingerprint(device.identity.device().as_bytes());
            if presence.rehome(fingerprint, self.place(id)).is_err() {
                homeless.push(id);
            }
        }
        for id in homeless {
            self.close(id, CloseReason::Overload);
        }
        self.sweep.rehomed = end;
        if end == self.arena.slots() {
            presence.finish_rehome(self.id);
            // The table may have grown again by the next look.
            self.sweep.rehomed = 0;
        }
    }
}

/// Some 8 µs for a ping, so that messages wait for half a millisecond. In tests few, so that a slice takes several iterations.
const TURNS_PER_ITERATION_MAX: usize = if cfg!(test) { 2 } else { 64 };
/// In how many slices a full pass is cut: one per tick, a pass per second.
const SLICES: u32 = 10;
/// Slots looked at per iteration while presence grows: some 0.3 ms of work.
const REHOMED_SLOTS_MAX: u32 = 4_096;
/// A ping without payload.
pub(crate) const PING_FRAME: &[u8] = &[0x89, 0x00];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_a_node_take_turns() {
        let next_ms = |shard| {
            let mut sweep = Sweep::new(ShardId(shard), 4);
            assert_eq!(sweep.next_ms(), 0, "the first slice waits for nothing");
            sweep.await_turn(Now {
                us: 1_030_000,
                wall_ms: 0,
            });
            sweep.next_ms()
        };
        assert_eq!([0, 1, 2, 3].map(next_ms), [1_100, 1_125, 1_050, 1_075]);
    }
}
