//! Broadcasts, as a shard carries them out: a cursor goes over the table and each line on its way gets the frame, a slice
//! in each iteration and no more bytes in a second than the node is allowed.
//!
//! What enters an outbox is a message like others, with its mark and its counted ending. Lines that open after a broadcast
//! has begun are not reached: a device that changes its line meanwhile would get it twice. Later broadcasts do not
//! overtake earlier ones, so each line gets them in order.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::bucket::TokenBucket;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::mailbox::broadcast::{Broadcast, Progress};
use crate::mailbox::command::{Outcome, Terms, Ticket};
use crate::metrics::BroadcastEnding;
use crate::net::stream::Transport;
use crate::protocol::device::Dialect;
use crate::reactor::outbox::Mark;
use crate::reactor::shard::{Shard, Timer};
use crate::wire::api::Level;
use crate::wire::broadcast::LineProtocol;

/// The broadcasts of a shard.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts {
    /// Those whose cursor has not passed all lines, the oldest first.
    running: VecDeque<Run>,
    /// Those that have lines to come or frames in outboxes, by number.
    open: HashMap<u32, Arc<Broadcast>>,
    /// Which of the running ones has the next slice.
    turn: usize,
    budget: Option<Budget>,
    /// The wheel will say when there is more to spend.
    is_armed: bool,
    has_more: bool,
}

/// A broadcast on its way over the table.
#[derive(Debug)]
struct Run {
    broadcast: Arc<Broadcast>,
    /// The next slot.
    cursor: u32,
    /// Where the table ended when it began.
    end: u32,
    /// Lines of this generation and later ones came after it.
    generation: u64,
    /// Lines it has met.
    met: u64,
}

/// The bytes that the shard may still write for broadcasts.
#[derive(Debug)]
struct Budget {
    bytes_per_second: u32,
    burst: u32,
    bucket: TokenBucket,
    /// What the next frame has paid already: it may cost more than a burst.
    paid: u32,
}

/// Why a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// It has had what an iteration may give.
    Slice,
    /// An earlier broadcast has not come further.
    Behind,
    /// There are no bytes left to spend.
    Poor,
    /// It is through.
    End,
}

impl Ticket {
    /// Where the answers for a broadcast's frames belong.
    fn of_broadcast(broadcast: &Broadcast, shard: crate::base::id::ShardId) -> Self {
        Self {
            shard,
            waiter: BROADCAST_WAITER,
            generation: broadcast.standing.number,
            part: 0,
        }
    }

    /// The number of the broadcast that it belongs to.
    pub(crate) fn broadcast(self) -> Option<u32> {
        (self.waiter == BROADCAST_WAITER).then_some(self.generation)
    }
}

impl<T: Transport> Shard<T> {
    /// Takes a broadcast up: whoever has a line now is to get it.
    pub(crate) fn begin_broadcast(&mut self, broadcast: Arc<Broadcast>, now: Now) {
        let lines = self.cells().lines.value();
        self.cells().broadcast_lines.add(lines);
        self.progress(&broadcast).lines.add(lines);
        self.broadcasts
            .open
            .insert(broadcast.standing.number, Arc::clone(&broadcast));
        self.broadcasts.running.push_back(Run {
            broadcast,
            cursor: 0,
            end: self.arena.slots(),
            generation: self.node.presence.mint(now.wall_ms).0,
            met: 0,
        });
        self.broadcasts.has_more = true;
    }

    /// Goes on with the broadcast whose turn it is.
    pub(crate) fn continue_broadcasts(&mut self, now: Now) {
        self.broadcasts.has_more = false;
        for _ in 0..self.broadcasts.running.len() {
            let turn = self.broadcasts.turn % self.broadcasts.running.len().max(1);
            self.broadcasts.turn = turn + 1;
            match self.continue_broadcast(turn, now) {
                Pause::Behind => {}
                Pause::Poor => return self.await_budget(now),
                Pause::Slice | Pause::End => {
                    self.broadcasts.has_more = !self.broadcasts.running.is_empty();
                    return;
                }
            }
        }
    }

    fn continue_broadcast(&mut self, turn: usize, now: Now) -> Pause {
        let earlier = turn
            .checked_sub(1)
            .and_then(|i| self.broadcasts.running.get(i));
        let limit = earlier.map_or(u32::MAX, |earlier| earlier.cursor);
        let Some(mut run) = self.broadcasts.running.remove(turn) else {
            return Pause::End;
        };
        let standing = &run.broadcast.standing;
        let is_over = standing.is_cancelled() || standing.has_expired(now.wall_ms);
        let pause = if is_over {
            Pause::End
        } else {
            self.walk(&mut run, limit, now)
        };
        if pause == Pause::End {
            self.end_run(&run, is_over);
        } else {
            self.broadcasts.running.insert(turn, run);
        }
        pause
    }

    /// Goes over some slots.
    fn walk(&mut self, run: &mut Run, limit: u32, now: Now) -> Pause {
        let mut lines_left = LINES_PER_ITERATION_MAX;
        let mut slots_left = SLOTS_PER_ITERATION_MAX;
        while run.cursor < run.end {
            if run.cursor >= limit {
                return Pause::Behind;
            }
            if lines_left == 0 || slots_left == 0 {
                return Pause::Slice;
            }
            if let Some(id) = self.arena.id_at(run.cursor)
                && let Some(protocol) = self.listener(id, run.generation)
            {
                if !self.is_meant(id, &run.broadcast, protocol) {
                    self.end_line(&run.broadcast, BroadcastEnding::Unmatched);
                } else if !self.takes_frame(id, run.broadcast.frame(protocol).len()) {
                    self.end_line(&run.broadcast, BroadcastEnding::Slow);
                } else if self.spend(run.broadcast.frame(protocol).len(), now) {
                    self.put(id, &run.broadcast, protocol, now);
                    lines_left -= 1;
                } else {
                    return Pause::Poor;
                }
                run.met += 1;
            }
            run.cursor += 1;
            slots_left -= 1;
        }
        Pause::End
    }

    /// How a line hears, if it was there before the generation given.
    fn listener(&self, id: ConnId, generation: u64) -> Option<LineProtocol> {
        let device = self.arena.get(id)?.device()?;
        let protocol = match device.dialect {
            Dialect::Json => LineProtocol::Json,
            Dialect::Raw | Dialect::Echo => LineProtocol::Raw,
        };
        (device.generation < generation).then_some(protocol)
    }

    fn is_meant(&self, id: ConnId, broadcast: &Broadcast, protocol: LineProtocol) -> bool {
        let device = self.arena.get(id).and_then(|conn| conn.device());
        device.is_some_and(|device| {
            let labels = device.identity.labels();
            broadcast.standing.audience.includes(labels, protocol)
        })
    }

    /// Whether a line's outbox takes the frame. Half of it is kept for messages that are for this line alone.
    fn takes_frame(&self, id: ConnId, bytes: usize) -> bool {
        let most = self.settings.limits.outbox_bytes_max.as_usize() / 2;
        let outbox = self.arena.get(id).and_then(|conn| conn.outbox.as_ref());
        let waiting = outbox.map_or(0, |outbox| outbox.len());
        waiting == 0 || waiting + bytes <= most
    }

    /// Pays for a frame, or a part of its price for now.
    fn spend(&mut self, bytes: usize, now: Now) -> bool {
        let all = self.settings.broadcast.bytes_per_second.bytes();
        let shards = u32::try_from(self.node.cells.len()).unwrap_or(u32::MAX);
        let bytes_per_second = (all / shards).max(1);
        let budget = &mut self.broadcasts.budget;
        budget.take_if(|budget| budget.bytes_per_second != bytes_per_second);
        let budget = budget.get_or_insert_with(|| Budget::new(bytes_per_second));
        let price = u32::try_from(bytes).unwrap_or(u32::MAX);
        budget.pay(price.max(FRAME_PRICE_MIN), now)
    }

    /// Has the wheel say when there are bytes to spend again.
    fn await_budget(&mut self, now: Now) {
        if !std::mem::replace(&mut self.broadcasts.is_armed, true) {
            self.wheel
                .schedule(now.ms() + BUDGET_WAIT_MS, Timer::Broadcasts);
        }
    }

    /// There may be bytes to spend again.
    pub(crate) fn resume_broadcasts(&mut self) {
        self.broadcasts.is_armed = false;
        self.broadcasts.has_more = !self.broadcasts.running.is_empty();
    }

    /// Puts the frame into a line's outbox, from where it goes its way like any message.
    fn put(&mut self, id: ConnId, broadcast: &Broadcast, protocol: LineProtocol, now: Now) {
        let expires_ms = broadcast.standing.expires_ms;
        let left_ms = expires_ms.map(|at| at.saturating_sub(now.wall_ms));
        let terms = left_ms.map(|left_ms| {
            Box::new(Terms {
                expires_ms: Some(now.ms() + left_ms),
                collapse_key: None,
            })
        });
        let ticket = Ticket::of_broadcast(broadcast, self.id);
        // Nobody waits for an `ack`, so there is no deadline for it.
        let mark = Mark::new(
            broadcast.standing.id,
            ticket,
            Level::Written,
            now.us,
            u64::MAX,
            terms,
        );
        let frame = broadcast.frame(protocol);
        let Some(outbox) = self.outbox(id) else {
            return;
        };
        let begin = outbox.end();
        outbox.tail().extend_from_slice(frame);
        outbox.mark(begin, mark);
        self.cells().submitted.add(1);
        self.cells().undelivered.add(1);
        self.cells().outbox_bytes.add(frame.len() as u64);
        self.cells().broadcast_waiting.add(1);
        self.progress(broadcast).waiting.add(1);
        if let Some(device) = self.arena.get_mut(id).and_then(|conn| conn.device_mut()) {
            device.delivered = device.delivered.saturating_add(1);
        }
        self.mark_dirty(id);
    }

    /// Takes note of what became of a frame in an outbox.
    pub(crate) fn note_broadcast(&mut self, number: u32, outcome: &Outcome) {
        let ending = match outcome {
            // It has to wait for its socket; more is to come.
            Outcome::Reached(Level::Queued, _) => return,
            Outcome::Reached(..) | Outcome::Acked(..) => BroadcastEnding::Written,
            Outcome::Expired(_) => BroadcastEnding::Unreached,
            Outcome::Superseded(_)
            | Outcome::Found(_)
            | Outcome::Holder(_)
            | Outcome::Surveyed(_)
            | Outcome::Offline
            | Outcome::Gone
            | Outcome::Unacked
            | Outcome::SlowConsumer
            | Outcome::AckUnsupported
            | Outcome::RateLimited
            | Outcome::Busy
            | Outcome::Timeout => BroadcastEnding::Gone,
        };
        let Some(broadcast) = self.broadcasts.open.get(&number).map(Arc::clone) else {
            return;
        };
        self.cells().broadcast_waiting.sub(1);
        self.progress(&broadcast).waiting.sub(1);
        self.end_line(&broadcast, ending);
        self.end_broadcast(&broadcast);
    }

    /// No line is to come: those that were not met have ended before, or will not be reached.
    fn end_run(&mut self, run: &Run, is_over: bool) {
        let lines = self.progress(&run.broadcast).lines.value();
        let ending = if is_over {
            BroadcastEnding::Unreached
        } else {
            BroadcastEnding::Gone
        };
        self.end_lines(&run.broadcast, ending, lines.saturating_sub(run.met));
        self.end_broadcast(&run.broadcast);
    }

    fn end_line(&self, broadcast: &Broadcast, ending: BroadcastEnding) {
        self.end_lines(broadcast, ending, 1);
    }

    fn end_lines(&self, broadcast: &Broadcast, ending: BroadcastEnding, lines: u64) {
        self.cells().broadcast_endings[ending as usize].add(lines);
        self.progress(broadcast).endings[ending as usize].add(lines);
    }

    /// Says that every line was dealt with, if that is so.
    fn end_broadcast(&mut self, broadcast: &Broadcast) {
        let number = broadcast.standing.number;
        let is_running = |run: &Run| run.broadcast.standing.number == number;
        let has_lines = self.broadcasts.running.iter().any(is_running);
        let progress = self.progress(broadcast);
        if !has_lines && progress.waiting.value() == 0 {
            progress.ended_ms.add(self.api.now.get().wall_ms.max(1));
            self.broadcasts.open.remove(&number);
        }
    }

    fn progress<'a>(&self, broadcast: &'a Broadcast) -> &'a Progress {
        &broadcast.standing.progress[usize::from(self.id.0)]
    }
}

impl Budget {
    fn new(bytes_per_second: u32) -> Self {
        let burst = (bytes_per_second / BURSTS_PER_SECOND).max(FRAME_PRICE_MIN);
        Self {
            bytes_per_second,
            burst,
            bucket: TokenBucket::new(bytes_per_second, burst),
            paid: 0,
        }
    }

    /// Pays what is there until the price is paid. By halves of a burst, so that what comes in during a wait has room
    /// beside what was too little.
    fn pay(&mut self, price: u32, now: Now) -> bool {
        while self.paid < price {
            let part = (price - self.paid).min(self.burst / 2);
            if !self.bucket.take(part, now) {
                return false;
            }
            self.paid += part;
        }
        self.paid = 0;
        true
    }
}

impl Broadcasts {
    /// Whether the next iteration has somebody to write to.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.open.is_empty()
    }
}

/// No waiter has this number: a shard has far fewer.
const BROADCAST_WAITER: u32 = u32::MAX;
/// Lines that one iteration writes to: some 8 µs each with the `send`, so that whoever else wants something waits for a
/// millisecond at most. In tests few, so that a broadcast takes several.
const LINES_PER_ITERATION_MAX: u32 = if cfg!(test) { 2 } else { 128 };
/// Slots that one iteration looks at, when few lines are meant.
const SLOTS_PER_ITERATION_MAX: u32 = 4_096;
/// The budget of so many parts of a second may be spent at once: twice what comes in while a shard waits for more.
const BURSTS_PER_SECOND: u32 = 50;
/// What a short frame is charged: below this, its `send` costs the same however short it is.
const FRAME_PRICE_MIN: u32 = 512;
/// How long a shard waits that has spent its budget.
const BUDGET_WAIT_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    #[test]
    fn the_rate_is_kept_whatever_frames_cost() {
        let mut rng = seed::rng();
        let rate = rng.random_range(10_000..5_000_000);
        let dearest = rng.random_range(FRAME_PRICE_MIN..=rate);
        let mut budget = Budget::new(rate);
        let (mut us, mut paid) = (0, 0);
        let mut price = rng.random_range(1..=dearest);
        for _ in 0..10_000 {
            // Somebody who asks often enough has all that comes in.
            us += rng.random_range(0..10_000);
            while budget.pay(price, Now { us, wall_ms: 0 }) {
                paid += u64::from(price);
                price = rng.random_range(1..=dearest);
            }
            let earned = us * u64::from(rate) / 1_000_000;
            assert!(paid <= earned + u64::from(budget.burst));
            let owed = u64::from(dearest + budget.burst);
            assert!(paid + owed >= earned, "{paid} of {earned} at {us} µs");
        }
    }
}
