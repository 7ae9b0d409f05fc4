//! The state a reactor owns: its connections, their timers, and the lists of what is to be done in this iteration.
//!
//! The phases of the loop are methods, spread over the files beside this one by what they do. Nothing here knows what
//! a socket is made of ([`Transport`]) or reads a clock, so the simulator runs exactly this code.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use mio::Token;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::base::arena::Arena;
use crate::base::close::CloseReason;
use crate::base::id::{ConnId, Location, ShardId};
use crate::base::place::Place;
use crate::base::time::{Now, Tick};
use crate::base::wheel::Wheel;
use crate::mailbox::account::{Survey, Turn};
use crate::mailbox::command::{Command, Completion, Mailbox, Outcome, Outgoing, Ticket};
use crate::metrics::{Ending, ShardCells};
use crate::net::stream::Transport;
use crate::protocol::device::Dialect;
use crate::reactor::admission::Admission;
use crate::reactor::allowance::Allowances;
use crate::reactor::api::ApiContext;
use crate::reactor::broadcast::Broadcasts;
use crate::reactor::close_log::CloseLog;
use crate::reactor::conn::{Closing, Conn, Phase};
use crate::reactor::departure::Departures;
use crate::reactor::drain::Drain;
use crate::reactor::fanout::Fanouts;
use crate::reactor::node::Node;
use crate::reactor::order::Order;
use crate::reactor::outbox::Outbox;
use crate::reactor::plant::{Bug, is_planted};
use crate::reactor::request::Requests;
use crate::reactor::settings::Settings;
use crate::reactor::source::Sources;
use crate::reactor::sweep::Sweep;
use crate::reactor::watch::Watches;
use crate::route::event::{Batch, Change};
use crate::ws::decoder::Decoder;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// A shard of the node's connections.
#[derive(Debug)]
pub(crate) struct Shard<T: Transport> {
    pub(crate) id: ShardId,
    pub(crate) node: Arc<Node>,
    /// Counted here once more: whoever handles frames holds on to it, and the count of the `Arc`, which all reactors share,
    /// would travel between cores with every read.
    #[expect(
        clippy::redundant_allocation,
        reason = "two counts, not two boxes, are what is wanted"
    )]
    pub(crate) settings: Rc<Arc<Settings>>,
    pub(crate) arena: Arena<Conn<T>>,
    /// Most connections the shard may hold.
    pub(crate) slots_max: u32,
    pub(crate) wheel: Wheel<Timer>,
    pub(crate) poller: T::Poller,
    /// What other threads have to say.
    pub(crate) mailbox: Mailbox,
    /// What is staged for each shard of the node, this one included.
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) api: Rc<ApiContext>,
    pub(crate) random: SmallRng,

    /// Told to close everything and end.
    pub(crate) is_stopping: bool,
    /// When it ends, whoever is left.
    pub(crate) stop_by: Tick,
    pub(crate) commands: Vec<Command>,
    pub(crate) completions: Vec<Completion>,
    /// Connections with something to flush.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections whose socket may hold more than one visit's budget.
    pub(crate) unread: VecDeque<ConnId>,
    /// Connections to be buried at the end of the iteration.
    pub(crate) closing: Vec<ConnId>,
    /// Connections on their way to becoming lines.
    pub(crate) admission: Admission,
    /// Those that have left and are not buried yet.
    pub(crate) departures: Departures,
    /// Where they come from, while addresses are limited.
    pub(crate) sources: Sources,
    /// Processor time of the last iteration if newcomers wait, else how long it lasted; 0 where nobody has a clock.
    pub(crate) busy_us: u64,
    /// Where the sweep goes on.
    pub(crate) sweep: Sweep,
    /// Go-aways are being spread, or have been.
    pub(crate) drain: Option<Box<Drain>>,
    pub(crate) close_log: CloseLog,
    /// Messages to all lines, under way.
    pub(crate) broadcasts: Broadcasts,
    /// What lines may still send and get at once.
    pub(crate) allowances: Allowances,
    /// What is on its way to devices on other shards.
    pub(crate) order: Order,
    /// Messages to accounts, under way.
    pub(crate) fanouts: Fanouts,
    /// Lines opened in this iteration.
    pub(crate) newcomers: Vec<ConnId>,
    /// Questions about lines that wait for their turn, and how many may have it in this iteration.
    pub(crate) surveys: VecDeque<Box<Survey>>,
    pub(crate) surveys_left: u32,
    /// Who watches which account.
    pub(crate) watches: Watches,
    /// What lines have asked for.
    pub(crate) requests: Requests,
    /// What happened to lines in this iteration; empty unless somebody listens.
    pub(crate) events: Batch,
    /// Events of this iteration that did not fit behind those.
    pub(crate) events_cut: u64,

    /// The one buffer that everything is read into.
    pub(crate) read_buf: Vec<u8>,
    /// Frames written during one visit, before they have a home.
    pub(crate) scratch: Vec<u8>,
    /// A reply to a stream, while it is written.
    pub(crate) reply_text: Vec<u8>,
    #[expect(clippy::vec_box, reason = "a connection takes the box as it is")]
    outbox_pool: Vec<Box<Outbox>>,
}

/// What the wheel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A connection's earliest deadline, or an earlier moment at which it is looked up again.
    Conn(ConnId),
    /// A waiter's patience.
    Waiter(Ticket),
    /// The allowances of a connection that may be full again.
    Allowance(ConnId),
    /// Devices of watched accounts that have been away for long enough to be told of.
    Absences,
    /// The time of a message that waits for its socket.
    Expiry(ConnId),
    /// Bytes that may be spent on broadcasts again.
    Broadcasts,
}

impl<T: Transport> Shard<T> {
    pub(crate) fn new(
        node: Arc<Node>,
        poller: T::Poller,
        mailbox: Mailbox,
        outgoing: Vec<Outgoing>,
        api: Rc<ApiContext>,
        slots_max: u32,
        seed: u64,
    ) -> Self {
        Self {
            id: api.shard,
            sweep: Sweep::new(api.shard, node.cells.len()),
            settings: Rc::new(node.settings.load_full()),
            arena: Arena::new(slots_max),
            slots_max,
            wheel: Wheel::new(),
            poller,
            mailbox,
            api,
            random: SmallRng::seed_from_u64(seed),
            is_stopping: false,
            stop_by: Tick::NEVER,
            commands: Vec::new(),
            completions: Vec::new(),
            dirty: Vec::new(),
            unread: VecDeque::new(),
            closing: Vec::new(),
            admission: Admission::default(),
            departures: Departures::default(),
            sources: Sources::default(),
            busy_us: 0,
            drain: None,
            close_log: CloseLog::default(),
            broadcasts: Broadcasts::default(),
            allowances: Allowances::default(),
            order: Order::new(outgoing.len()),
            fanouts: Fanouts::default(),
            newcomers: Vec::new(),
            surveys: VecDeque::new(),
            surveys_left: 0,
            watches: Watches::default(),
            requests: Requests::default(),
            events: Batch::default(),
            events_cut: 0,
            read_buf: vec![0; READ_BYTES_MAX],
            scratch: Vec::new(),
            reply_text: Vec::new(),
            outbox_pool: Vec::new(),
            outgoing,
            node,
        }
    }

    pub(crate) fn cells(&self) -> &ShardCells {
        &self.node.cells[usize::from(self.id.0)]
    }

    /// The one way in: gives a socket its slot, its deadline and its place in the poll.
    pub(crate) fn open(&mut self, stream: T, phase: Phase, now: Now) -> Option<ConnId> {
        let id = self.arena.insert(Conn::new(stream, phase)).ok()?;
        let conn = self.arena.get_mut(id)?;
        if conn.stream.watch(&self.poller, token(id)).is_err() {
            self.arena.remove(id);
            return None;
        }
        self.arm(id, now);
        Some(id)
    }

    /// The one way out. Takes effect at the end of the iteration; the first reason stands.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if conn.flags.closing.is_none() && !matches!(conn.phase, Phase::Closing(_)) {
            conn.flags.closing = Some(reason);
            self.closing.push(id);
        }
    }

    /// Ends a connection whose socket failed, in reading or in writing; one that was closing has nothing left to say.
    pub(crate) fn close_broken(&mut self, id: ConnId) {
        if self
            .arena
            .get(id)
            .is_some_and(|conn| matches!(conn.phase, Phase::Closing(_)))
        {
            self.drop_conn(id);
        } else {
            self.close(id, CloseReason::NetworkError);
        }
    }

    /// Sets the wheel to the connection's earliest deadline, unless it is set to that or an earlier one; one that has no
    /// deadline any more leaves it.
    pub(crate) fn arm(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let timer = Timer::Conn(id);
        if let Some((deadline, _)) = conn.deadline(&self.settings) {
            // A deadline that has passed already still waits for the next tick: timers fire outside of visits.
            let at = deadline.max(Tick(now.tick().0 + 1));
            conn.timer = Some(self.wheel.hasten(conn.timer, at.ms(), timer));
        } else if let Some(id) = conn.timer.take() {
            self.wheel.cancel(id, timer);
        }
    }

    /// Marks that the connection has something to flush.
    pub(crate) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.arena.get_mut(id)
            && !std::mem::replace(&mut conn.flags.is_dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// The connection's outbox, given to it if it has none.
    pub(crate) fn outbox(&mut self, id: ConnId) -> Option<&mut Outbox> {
        let conn = self.arena.get_mut(id)?;
        let pool = &mut self.outbox_pool;
        Some(
            conn.outbox
                .get_or_insert_with(|| pool.pop().unwrap_or_default()),
        )
    }

    /// Takes the empty outbox of a connection back.
    pub(crate) fn recycle(&mut self, id: ConnId, mut outbox: Box<Outbox>) {
        if let Some(timer) = outbox.expiry_timer.take() {
            self.wheel.cancel(timer, Timer::Expiry(id));
        }
        outbox.reset();
        if self.outbox_pool.len() < OUTBOX_POOL_MAX {
            self.outbox_pool.push(outbox);
        }
    }

    /// Appends finished frames, or bytes of HTTP, to a connection's outbox.
    pub(crate) fn send(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(outbox) = self.outbox(id) else {
            return;
        };
        outbox.tail().extend_from_slice(bytes);
        self.cells().outbox_bytes.add(bytes.len() as u64);
        self.mark_dirty(id);
    }

    /// Appends a text frame to a connection's outbox.
    pub(crate) fn send_text(&mut self, id: ConnId, text: &[u8]) {
        let Some(outbox) = self.outbox(id) else {
            return;
        };
        let before = outbox.len();
        encoder::encode(Opcode::Text, text, outbox.tail());
        let grown = (outbox.len() - before) as u64;
        self.cells().outbox_bytes.add(grown);
        self.mark_dirty(id);
    }

    /// Tells whoever waits.
    pub(crate) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(number) = ticket.broadcast() {
            // Its frames are put into outboxes by the shard that is told.
            self.note_broadcast(number, &outcome);
        } else if ticket.shard == self.id {
            let now = self.api.now.get();
            let completed = self.api.waiters.complete(ticket, outcome, now);
            if let Some(timer) = completed.timer {
                self.wheel.cancel(timer, Timer::Waiter(ticket));
            }
            if let Some((request, answer)) = completed.reply {
                self.reply(ticket, &request, answer);
            }
        } else {
            self.complete(ticket.shard, Completion::Answer(ticket, outcome));
        }
    }

    pub(crate) fn count_ending(&self, ending: Ending) {
        self.cells().endings[ending as usize].add(1);
    }

    pub(crate) fn place(&self, conn: ConnId) -> Place {
        Place {
            shard: self.id,
            slot: conn.slot,
        }
    }

    pub(crate) fn location(&self, conn: ConnId) -> Location {
        Location {
            shard: self.id,
            conn,
        }
    }

    /// The connections of a kind, as they are now.
    pub(crate) fn ids(&self, is_meant: impl Fn(&Conn<T>) -> bool) -> Vec<ConnId> {
        let meant = self.arena.iter().filter(|(_, conn)| is_meant(conn));
        meant.map(|(id, _)| id).collect()
    }

    /// A random fraction for jitter.
    pub(crate) fn roll(&mut self) -> u32 {
        self.random.random()
    }

    /// Buries what was closed in this iteration: tells the far end, tells who waits, gives the name free.
    pub(crate) fn bury_closed(&mut self, now: Now) {
        while let Some(id) = self.closing.pop() {
            let Some(reason) = self.arena.get(id).and_then(|conn| conn.flags.closing) else {
                continue;
            };
            self.cells().closed[reason as usize].add(1);
            self.write_last_words(id, reason);
            self.end_phase(id, reason, now);
            self.flush_one(id, now);
            self.linger_or_drop(id, reason, now);
        }
    }

    /// A close frame for a line; the answer of an HTTP refusal is in the outbox already.
    fn write_last_words(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.arena.get(id) else {
            return;
        };
        let is_open_line = match &conn.phase {
            Phase::Device(_) | Phase::Stream(_) => true,
            Phase::Upgrade(upgrade) => upgrade.is_upgraded(),
            Phase::Api(_) | Phase::Closing(_) => false,
        };
        let is_heard = !matches!(
            reason,
            CloseReason::PeerClosed | CloseReason::NetworkError | CloseReason::TlsFailed
        );
        if is_open_line && is_heard {
            let mut frame = Vec::new();
            encoder::encode_close(reason.code(), reason.word(), &mut frame);
            self.send(id, &frame);
        }
    }

    /// Undoes what the phase stood for, and leaves the connection in [`Phase::Closing`].
    fn end_phase(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        let close_timeout = self.settings.lifetime.close_timeout;
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let awaits_end = !matches!(
            reason,
            CloseReason::PeerClosed | CloseReason::NetworkError | CloseReason::PongTimeout
        );
        let holds_place = !matches!(conn.phase, Phase::Api(_));
        let deadline = now.tick().after(close_timeout);
        let closing = Box::new(Closing {
            deadline,
            awaits_end,
            is_finished: false,
            holds_place,
        });
        let ended = std::mem::replace(&mut conn.phase, Phase::Closing(closing));
        conn.decoder = Decoder::default();
        conn.flags.closing = None;
        self.arena.set_due(id.slot, Tick::NEVER);
        self.arena.set_leave(id.slot, Tick::NEVER);
        match ended {
            Phase::Device(device) => {
                let fingerprint = self
                    .node
                    .presence
                    .fingerprint(device.identity.device().as_bytes());
                self.node.presence.release(fingerprint, self.place(id));
                if is_planted(Bug::UnconditionalRelease) {
                    let others = self.node.presence.lookup_all(fingerprint).into_iter();
                    others.for_each(|other| _ = self.node.presence.release(fingerprint, other));
                }
                self.cells().lines.sub(1);
                self.count_drained(&device, reason);
                let turn = Turn::Ended(device.leaving.unwrap_or(reason));
                self.leave_account(id, &device.identity, device.generation, turn, now);
                self.end_watch(id, device.identity.account().unwrap_or_default());
                self.forget_requests(id);
                self.forget_held(id);
                self.give_acks_up(id);
                self.allowances.forget(id);
                self.log_close(&device, id, reason, now);
                self.announce_of(&device, id, Change::Closed(reason), now);
            }
            Phase::Upgrade(_) => self.cells().handshakes.sub(1),
            Phase::Stream(stream) => {
                self.cells().streams.sub(1);
                self.log_stream_close(&stream, id, reason, now);
            }
            Phase::Api(_) => self.cells().api_connections.sub(1),
            Phase::Closing(_) => {}
        }
    }

    /// Messages that were not written whole did not arrive: whoever waits for them is told so.
    fn lose_unwritten(&mut self, id: ConnId) {
        let Some(outbox) = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut()) else {
            return;
        };
        let unwritten = outbox.take_unwritten();
        self.cells().undelivered.sub(unwritten.len() as u64);
        for mark in unwritten {
            self.count_ending(Ending::Lost);
            self.answer(mark.ticket, Outcome::Offline);
        }
    }

    /// What a line has not acknowledged when it ends it will not: whoever waits for that is told at once, however long the
    /// far end takes to finish.
    fn give_acks_up(&mut self, id: ConnId) {
        let outbox = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut());
        for mark in outbox
            .map(|outbox| outbox.take_all_unacked())
            .into_iter()
            .flatten()
        {
            self.give_ack_up(&mark);
        }
    }

    /// Forgets what a silent line has not acknowledged in time, so that it is as small as before.
    pub(crate) fn give_overdue_acks_up(&mut self, id: ConnId, now: Now) {
        let outbox = self.arena.get_mut(id).and_then(|conn| conn.outbox.as_mut());
        let overdue = outbox.map(|outbox| outbox.take_overdue(now.ms()));
        for mark in overdue.into_iter().flatten() {
            self.give_ack_up(&mark);
        }
    }

    /// Keeps a connection that was closed from this side until its last words are out and the far end has finished,
    /// and drops any other at once.
    fn linger_or_drop(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let Phase::Closing(closing) = &conn.phase else {
            return;
        };
        let is_broken = matches!(reason, CloseReason::NetworkError | CloseReason::PongTimeout);
        let has_words = conn.outbox.as_ref().is_some_and(|outbox| outbox.len() > 0);
        if is_broken || (!closing.awaits_end && !has_words) {
            if reason == CloseReason::PongTimeout {
                conn.stream.abort();
            } else if !is_broken {
                conn.stream.say_goodbye();
            }
            self.drop_conn(id);
            return;
        }
        self.arm(id, now);
        self.finish_closing(id);
    }

    /// Shuts our side once the last words are out; drops the connection when nothing is left to wait for.
    pub(crate) fn finish_closing(&mut self, id: ConnId) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let Phase::Closing(closing) = &mut conn.phase else {
            return;
        };
        if conn.outbox.as_ref().is_some_and(|outbox| outbox.len() > 0) {
            return;
        }
        if !closing.awaits_end || conn.flags.is_read_closed || self.is_stopping {
            conn.stream.say_goodbye();
            self.drop_conn(id);
        } else if !std::mem::replace(&mut closing.is_finished, true) {
            conn.stream.finish();
            self.settle_stream(id);
        }
    }

    /// Frees the slot and the socket.
    pub(crate) fn drop_conn(&mut self, id: ConnId) {
        self.lose_unwritten(id);
        let Some(mut conn) = self.arena.remove(id) else {
            return;
        };
        if let Some(timer) = conn.timer {
            self.wheel.cancel(timer, Timer::Conn(id));
        }
        if let Some(mut outbox) = conn.outbox.take() {
            self.cells().outbox_bytes.sub(outbox.len() as u64);
            outbox.clear();
            self.recycle(id, outbox);
        }
        if matches!(&conn.phase, Phase::Closing(closing) if closing.holds_place) {
            self.discount_source(id.slot, self.api.now.get());
            self.node.dismiss();
        }
    }
}

/// The poll's token for a connection.
pub(crate) fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

/// The connection a token stands for; stale ones miss in the arena.
pub(crate) fn conn_id(token: Token) -> ConnId {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the token are the two fields"
    )]
    ConnId {
        slot: token.0 as u32,
        generation: (token.0 >> 32) as u32,
    }
}

/// The name of a dialect on the wire.
pub(crate) fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Json => "tautline.v1.json",
        Dialect::Raw => "tautline.v1.raw",
        Dialect::Echo => "echo",
    }
}

/// The shared read buffer, and so the most that one `recv` takes: 64 KiB, a quarter of the usual socket buffer.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Spare outboxes of a shard, each with at most 4 KiB: a burst of pushes allocates nothing.
const OUTBOX_POOL_MAX: usize = 32;
