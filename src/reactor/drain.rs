//! The way out of a shard's lines when the node drains: who is asked to go, and when.
//!
//! Each line has its turn in a queue: those that have been idle for longest go first, those that are busy with something
//! last. Streams have theirs at random among them. Nobody is touched before the turn, so a drain that is taken back
//! leaves nothing to undo.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::{Now, Tick};
use crate::mailbox::command::DrainOrder;
use crate::net::stream::Transport;
use crate::protocol::device::{Device, Dialect};
use crate::protocol::heartbeat::fraction;
use crate::reactor::conn::Conn;
use crate::reactor::shard::Shard;

/// The lines and streams of a shard that are to be asked: 12 bytes each, while the node drains.
#[derive(Debug)]
pub(crate) struct Drain {
    turns: VecDeque<(Tick, ConnId)>,
    /// Lines that were busy when their turn came, and when to look at them again.
    busy: VecDeque<(Tick, ConnId)>,
    /// When the last turn is: nobody waits for longer because it is busy.
    until: Tick,
    /// Where devices should go.
    url: Option<Arc<str>>,
    /// More turns have come than one iteration has time for.
    has_more: bool,
}

impl<T: Transport> Shard<T> {
    /// Whether the node is leaving.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Where devices should go, if the node drains and knows.
    pub(crate) fn drain_url(&self) -> Option<Arc<str>> {
        self.drain.as_ref()?.url.clone()
    }

    /// Gives every line and stream its turn to be asked: the one moment of a drain that looks at all of them.
    pub(crate) fn begin_drain(&mut self, order: &DrainOrder, now: Now) {
        let spread = Duration::from_millis(order.spread_ms);
        let mut turns = self.turns_of_lines(spread, now);
        for id in self.ids(|conn| conn.stream().is_some()) {
            turns.push((now.tick().after(fraction(spread, self.roll())), id));
        }
        // Stable: lines whose turns fall into one tick stay in order.
        turns.sort_by_key(|(at, _)| *at);
        self.drain = Some(Box::new(Drain {
            turns: turns.into(),
            busy: VecDeque::new(),
            until: now.tick().after(spread),
            url: order.url.clone(),
            has_more: false,
        }));
    }

    fn turns_of_lines(&mut self, spread: Duration, now: Now) -> Vec<(Tick, ConnId)> {
        let mut lines = Vec::new();
        for (id, conn) in self.arena.iter() {
            match conn.device() {
                Some(device) if device.leaving.is_none() => {
                    lines.push((self.is_busy(id, conn), device.active, id));
                }
                // Its age, or its token, has told it to go already.
                Some(_) => self.cells().drain_asked.add(1),
                None => {}
            }
        }
        lines.sort_unstable();
        let share = spread.div_f64(lines.len().max(1) as f64);
        let turn = |(i, (_, _, id))| {
            // Half of the share, so that neighbours stay apart and in order.
            let after = share.mul_f64(i as f64) + fraction(share / 2, self.roll());
            (now.tick().after(after), id)
        };
        lines.into_iter().enumerate().map(turn).collect()
    }

    /// Takes the drain back: who was not asked to leave yet stays.
    pub(crate) fn end_drain(&mut self) {
        self.drain = None;
    }

    /// Gives a line or a stream its turn that was not open yet when the others got theirs.
    pub(crate) fn note_latecomer(&mut self, id: ConnId, now: Now) {
        if let Some(drain) = &mut self.drain {
            drain.turns.push_front((now.tick(), id));
        }
    }

    /// Asks those whose turn has come, as many as an iteration has time for.
    pub(crate) fn continue_drain(&mut self, now: Now) {
        for _ in 0..ASKED_PER_ITERATION_MAX {
            let Some(drain) = &mut self.drain else {
                return;
            };
            drain.has_more = false;
            let is_due = |turn: &mut (Tick, ConnId)| turn.0 <= now.tick();
            let due = drain.turns.pop_front_if(is_due);
            let Some((_, id)) = due.or_else(|| drain.busy.pop_front_if(is_due)) else {
                return drain.shrink();
            };
            let until = drain.until;
            let is_busy = self.arena.get(id).is_some_and(|c| self.is_busy(id, c));
            let again = now.tick().after(BUSY_WAIT);
            match &mut self.drain {
                Some(drain) if is_busy && again <= until => drain.busy.push_back((again, id)),
                Some(_) | None => self.ask_in_turn(id, now),
            }
        }
        if let Some(drain) = &mut self.drain {
            drain.has_more = true;
        }
    }

    fn ask_in_turn(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if let Some(stream) = conn.stream() {
            if stream.leaving.is_none() {
                self.tell_stream_to_leave(id, CloseReason::Drain, now);
            }
            return;
        }
        let Some(device) = conn.device_mut() else {
            return;
        };
        if device.leaving.is_none() {
            device.leave_reason = CloseReason::Drain;
            self.part(id, now);
        }
        self.cells().drain_asked.add(1);
    }

    /// Counts a line that ends while the node drains.
    pub(crate) fn count_drained(&self, device: &Device, reason: CloseReason) {
        if !self.is_draining() {
            return;
        }
        // The close of a raw line is its go-away.
        let is_asked_by_it = device.dialect != Dialect::Json && device.leaving.is_some();
        if reason == CloseReason::Drain && !is_asked_by_it {
            self.cells().drain_forced.add(1);
        } else {
            self.cells().drain_gone.add(1);
        }
    }

    /// Whether a line is in the middle of something that its end would spoil. A stream is not: it goes on with its
    /// records until there is another.
    fn is_busy(&self, id: ConnId, conn: &Conn<T>) -> bool {
        if conn.stream().is_some() {
            return false;
        }
        conn.outbox.is_some()
            || conn.decoder.incomplete_since().is_some()
            || self.requests.is_waiting(id)
            || self.fanouts.holds(id)
    }
}

impl Drain {
    /// Whether the next iteration has somebody to ask.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Gives the queue's memory back once nobody is in it.
    fn shrink(&mut self) {
        if self.turns.is_empty() {
            self.turns = VecDeque::new();
        }
    }
}

/// Lines asked per iteration, some 8 µs each with the `send`.
const ASKED_PER_ITERATION_MAX: usize = 128;
/// How long a busy line is left alone before it is looked at again.
const BUSY_WAIT: Duration = Duration::from_secs(1);
