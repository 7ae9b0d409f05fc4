//! Layer 4: the engine room. One thread, one poll, one shard of the node's connections.
//!
//! The only code that owns sockets and reads the clock. It never blocks but in `poll`, takes no lock that a slow path
//! holds, and logs nothing per message. [`Reactor::run`] is the loop; its phases are methods of the shard, by file:
//! `input`, `line` and `stream` (what arrives), `delivery` (what leaves), `sweep` (heartbeats, parting), `command` (other
//! threads, timers), `api` (back ends), `acceptor` (who comes in).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::base::id::ConnId;
use crate::base::time::{Now, millis};
use crate::mailbox::command::{Mailbox, Post};
use crate::net::listener::Listener;
use crate::net::processor::Meter;
use crate::net::stream::Stream;
use crate::reactor::acceptor::{Acceptor, Port};
use crate::reactor::account::SURVEYS_PER_ITERATION_MAX;
use crate::reactor::api::{ApiContext, Fallback};
use crate::reactor::node::Node;
use crate::reactor::shard::{Shard, conn_id};

pub mod acceptor;
pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod allowance;
pub mod api;
pub(crate) mod broadcast;
pub(crate) mod close_log;
pub(crate) mod command;
pub(crate) mod conn;
pub(crate) mod d2d;
pub(crate) mod delivery;
pub(crate) mod departure;
pub(crate) mod drain;
pub(crate) mod event;
pub(crate) mod expiry;
pub(crate) mod fanout;
pub mod idempotency;
pub(crate) mod input;
pub(crate) mod line;
pub mod node;
pub(crate) mod opening;
pub(crate) mod order;
pub(crate) mod outbox;
mod plant;
pub mod pressure;
pub mod receipt;
pub(crate) mod request;
pub(crate) mod routing;
pub mod settings;
pub(crate) mod shard;
#[cfg(test)]
mod sim;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod sweep;
pub(crate) mod tally;
mod view;
pub(crate) mod waiter;
pub(crate) mod watch;

/// An event loop and what it owns.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    clock: Clock,
    meter: Meter,
    shard: Shard<Stream>,
    acceptor: Acceptor,
}

/// What must exist before any reactor splits its descriptor table off, so that its numbers mean the same in all of
/// them: where readiness comes from, and the mailbox whose waker ends the poll's sleep.
#[derive(Debug)]
pub struct Seed {
    poll: Poll,
    mailbox: Mailbox,
}

impl Seed {
    /// Makes the poll and the mailbox of one reactor.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(commands_max: u32) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mailbox = Mailbox::new(commands_max as usize, waker);
        Ok(Self { poll, mailbox })
    }

    /// A way to the reactor.
    pub fn post(&self) -> Post {
        self.mailbox.post()
    }
}

/// What a reactor is made of.
#[derive(Debug)]
pub struct Parts {
    /// The shard's number.
    pub shard: crate::base::id::ShardId,
    /// What was made before the descriptor tables were split.
    pub seed: Seed,
    /// Ways to every shard, this one included, in order.
    pub posts: Vec<Post>,
    /// What all reactors share.
    pub node: Arc<Node>,
    /// When the node started: the origin of the monotonic clock of all its reactors.
    pub started: Instant,
    /// Most connections this reactor may hold; its descriptor table is the bound.
    pub slots_max: u32,
    /// The kernel hands what waits in the queue of a listener that closes to another process.
    pub hands_over: bool,
}

impl Reactor {
    /// Assembles a reactor on the thread that will run it.
    ///
    /// # Errors
    /// When the kernel refuses to watch a listener.
    pub fn new(
        parts: Parts,
        listeners: Vec<(Port, Listener)>,
        fallback: Fallback,
    ) -> std::io::Result<Self> {
        let Parts {
            shard: id,
            seed: Seed { poll, mailbox },
            posts,
            node,
            started,
            slots_max,
            hands_over,
        } = parts;
        api::task::enter_shard(id);
        let own_post = posts[usize::from(id.0)].clone();
        let outgoing = posts.iter().map(Post::batch).collect();
        let context = ApiContext::new(id, Arc::clone(&node), own_post, fallback);
        let acceptor = Acceptor::new(listeners, hands_over, poll.registry())?;
        let registry = poll.registry().try_clone()?;
        let shard = Shard::new(
            node,
            registry,
            mailbox,
            outgoing,
            context,
            slots_max,
            rand::random(),
        );
        Ok(Self {
            poll,
            clock: Clock::new(started),
            meter: Meter::default(),
            shard,
            acceptor,
        })
    }

    /// Runs until it is told to stop and its last connection is buried.
    ///
    /// # Errors
    /// When `poll` itself fails, which leaves nothing to do.
    pub fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut now = self.clock.read();
        while !self.shard.is_done() {
            self.wait(&mut events, now)?;
            now = self.clock.read();
            self.shard.begin_iteration(now);
            self.handle_events(&mut events, now)?;
            self.accept(now);
            self.shard.finish_iteration(now);
            self.time_iteration(now);
        }
        Ok(())
    }

    /// Says how long the iteration took that began at `start`. What newcomers get of the next depends on the processor's time:
    /// where others want the core, time passes without any work, and a storm would be let in at a fifth of the pace it could have.
    fn time_iteration(&mut self, start: Now) {
        let lasted_us = self.clock.read().us - start.us;
        self.shard.cells().iteration.observe_us(lasted_us);
        // To ask is a system call; while nobody waits, the one who comes next is content with less.
        let is_asked = !self.shard.admission.is_empty();
        let worked_us = self.meter.lap(is_asked);
        self.shard.busy_us = worked_us.unwrap_or(lasted_us);
    }

    /// Blocks until there is something to do.
    fn wait(&mut self, events: &mut Events, now: Now) -> std::io::Result<()> {
        let has_work =
            self.shard.has_work() || self.acceptor.has_backlog(now) || !self.shard.mailbox.sleep();
        let timeout = if has_work {
            Duration::ZERO
        } else {
            self.patience(now)
        };
        self.poll(events, timeout)
    }

    fn poll(&mut self, events: &mut Events, timeout: Duration) -> std::io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Until the next slice of the sweep, the next timer, or the next attempt to accept.
    fn patience(&self, now: Now) -> Duration {
        let sweep_ms = self.shard.sweep.next_ms();
        let timer_ms = self.shard.wheel.next_deadline().unwrap_or(u64::MAX);
        let next_ms = sweep_ms.min(timer_ms).min(self.acceptor.retry_at_ms());
        Duration::from_millis(next_ms.saturating_sub(now.ms()))
    }

    /// Takes what is ready, and what has become so behind it: the kernel tells in the order in which things happened, and
    /// who is to be served at once may stand behind thousands who come or go, for whom a note is all that is made here.
    fn handle_events(&mut self, events: &mut Events, now: Now) -> std::io::Result<()> {
        let mut visits = 0;
        for round in 0..POLLS_PER_ITERATION_MAX {
            if round > 0 {
                self.poll(events, Duration::ZERO)?;
            }
            let mut count = 0;
            for event in &*events {
                count += 1;
                match event.token() {
                    WAKER => {}
                    token if self.acceptor.owns(token) => self.acceptor.note(token),
                    _ => visits += usize::from(self.shard.handle_readiness(event, now)),
                }
            }
            if count < EVENTS_PER_POLL || visits >= VISITS_PER_ITERATION_MAX {
                break;
            }
        }
        Ok(())
    }

    fn accept(&mut self, now: Now) {
        if self.shard.is_stopping {
            self.acceptor.close(&mut self.shard, now);
        } else {
            self.acceptor.accept(&mut self.shard, now);
        }
    }
}

impl Shard<Stream> {
    /// Takes what the poll says about a connection; tells whether its socket was read.
    fn handle_readiness(&mut self, event: &Event, now: Now) -> bool {
        let id = conn_id(event.token());
        let Some(conn) = self.arena.get_mut(id) else {
            return false;
        };
        // EPOLLRDHUP comes with the edge of the last data, and never again.
        conn.flags.is_read_closed |= event.is_read_closed();
        if event.is_writable() {
            self.mark_dirty(id);
        }
        let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
        is_readable && self.notice_readable(id, now)
    }
}

impl<T: crate::net::stream::Transport> Shard<T> {
    /// The first phases of an iteration: budgets, and what other threads have said, which feeds the rest.
    pub(crate) fn begin_iteration(&mut self, now: Now) {
        self.api.begin_iteration(now);
        self.admission.refill(self.busy_us);
        self.surveys_left = SURVEYS_PER_ITERATION_MAX;
        self.cells().iterations.add(1);
        self.receive_commands(now);
        self.start_fanouts(now);
    }

    /// The phases after the sockets were read, in the order that lets an answer leave in the iteration it was made in.
    pub(crate) fn finish_iteration(&mut self, now: Now) {
        self.continue_unread(now);
        self.continue_departures(now);
        self.admit_waiting(now);
        self.poll_api_tasks(now);
        self.continue_fanouts(now);
        self.continue_surveys();
        self.continue_watches();
        self.continue_broadcasts(now);
        self.continue_drain(now);
        self.sweep(now);
        self.rehome();
        self.expire_timers(now);
        self.flush_dirty(now);
        self.settle(now);
        self.bury_closed(now);
        self.publish();
        if !self.newcomers.is_empty() {
            self.enter_accounts(now);
            self.publish();
        }
    }

    fn receive_commands(&mut self, now: Now) {
        let (mut commands, mut completions) = (
            std::mem::take(&mut self.commands),
            std::mem::take(&mut self.completions),
        );
        self.mailbox
            .receive(&mut commands, &mut completions, COMMANDS_PER_ITERATION_MAX);
        for completion in completions.drain(..) {
            self.handle_completion(completion, now);
        }
        for command in commands.drain(..) {
            self.handle_command(command, now);
        }
        (self.commands, self.completions) = (commands, completions);
    }

    /// Visits the connections whose socket may hold more than they were given time for.
    fn continue_unread(&mut self, now: Now) {
        for _ in 0..self.unread.len() {
            let Some(id) = self.unread.pop_front() else {
                break;
            };
            self.visit(id, now);
        }
    }

    /// Reads a connection whose turn has come.
    pub(crate) fn visit(&mut self, id: ConnId, now: Now) {
        if let Some(conn) = self.arena.get_mut(id) {
            conn.flags.is_unread = false;
            self.resume_stream(id, now);
            self.handle_readable(id, now);
        }
    }

    /// Lets the API tasks see what the flush has answered, until nothing new comes of it.
    fn settle(&mut self, now: Now) {
        self.poll_api_tasks(now);
        self.flush_dirty(now);
    }

    /// Whether it was told to stop and nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.is_stopping && self.arena.is_empty()
    }

    /// Whether another iteration has something to do at once.
    pub(crate) fn has_work(&self) -> bool {
        let is_rehoming = self.node.presence.is_rehoming(self.id);
        is_rehoming
            || !self.unread.is_empty()
            || !self.admission.is_empty()
            || !self.departures.is_empty()
            || self.sweep.has_more()
            || !self.fanouts.is_idle()
            || !self.surveys.is_empty()
            || self.watches.has_more()
            || self.broadcasts.has_more()
            || self.drain.as_ref().is_some_and(|drain| drain.has_more())
            || !self.dirty.is_empty()
            || !self.closing.is_empty()
            || self.api.has_work()
    }

    /// Hands the other shards what was staged for them, one lock and at most one wake each, and the control plane what
    /// happened to lines.
    fn publish(&mut self) {
        self.tell_settled();
        for outgoing in &mut self.outgoing {
            outgoing.publish();
        }
        self.publish_events();
    }
}

/// The clock: read once per iteration, by the reactor only.
#[derive(Debug)]
struct Clock {
    started: Instant,
    wall_ms: u64,
}

impl Clock {
    fn new(started: Instant) -> Self {
        Self {
            started,
            wall_ms: 0,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everyone else is handed"
    )]
    fn read(&mut self) -> Now {
        let us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // A wall clock that is set back must not make ids and generations step back.
        self.wall_ms = self.wall_ms.max(millis(wall));
        Now {
            us,
            wall_ms: self.wall_ms,
        }
    }
}

/// The waker's token; connections and listeners have others.
const WAKER: Token = Token(usize::MAX);
/// Events taken from one `poll`.
const EVENTS_PER_POLL: usize = 256;
/// Polls in one iteration, as long as each is full.
const POLLS_PER_ITERATION_MAX: usize = 64;
/// Sockets read at once in one iteration before the rest of it has its turn, some 8 µs each with the answer.
const VISITS_PER_ITERATION_MAX: usize = 256;
/// Commands carried out per iteration; the rest stay in the mailbox.
const COMMANDS_PER_ITERATION_MAX: usize = 4_096;
