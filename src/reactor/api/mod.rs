//! Connections of back ends: HTTP, in front of hyper or by it, polled by the reactor itself.
//!
//! A thread change per message would cost more than everything else in it, so the hot calls are answered on the
//! reactor that read them. Ordinary pushes are answered in front of hyper (`conn`), which takes one request at a time.
//! hyper sees two buffers (`pipe`), a task is polled when its connection has something new
//! or its waker says so (`task`), and what it asks of the shard goes through `ApiContext`. Every other route is
//! handed to the control plane by the [`Fallback`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, MessageId, ShardId};
use crate::base::time::Now;
use crate::mailbox::command::{Delivery, Inspection, Post};
use crate::metrics::ShardCells;
use crate::net::stream::Transport;
use crate::reactor::api::service::writer::Date;
use crate::reactor::conn::Phase;
use crate::reactor::fanout::Errand;
use crate::reactor::node::Node;
use crate::reactor::shard::Shard;
use crate::reactor::waiter::Waiters;

pub(crate) mod conn;
pub(crate) mod intake;
pub(crate) mod pipe;
pub(crate) mod service;
pub(crate) mod task;

/// The body of an answer that another thread makes.
pub type ControlBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// Hands a request to the control plane; the answer comes back through the receiver.
pub type Fallback =
    Arc<dyn Fn(Request<Bytes>) -> oneshot::Receiver<Response<ControlBody>> + Send + Sync>;

/// What the API tasks of one shard share with its loop.
pub(crate) struct ApiContext {
    pub(crate) shard: ShardId,
    pub(crate) node: Arc<Node>,
    pub(crate) waiters: Waiters,
    /// Connections whose task has something to do.
    pub(crate) ready: RefCell<Vec<ConnId>>,
    /// What tasks ask of the shard; taken up after they were polled.
    pub(crate) submissions: RefCell<Vec<Submission>>,
    /// Tasks that go on in the next iteration, because what they do is long.
    pub(crate) next_iteration: RefCell<Vec<Waker>>,
    /// Messages of batches that may still be taken up in this iteration.
    batch_messages_left: Cell<u32>,
    /// The clock reading of the current iteration.
    pub(crate) now: Cell<Now>,
    pub(crate) fallback: Fallback,
    /// As answers tell it that hyper does not write.
    date: Cell<Date>,
    /// Leave everything to hyper: what the tests compare with.
    #[cfg(test)]
    pub(crate) is_hyper_alone: Cell<bool>,
    post: Post,
    counter: Cell<u32>,
}

/// A request of a task to its shard, and the monotonic millisecond until which it has patience.
#[derive(Debug)]
pub(crate) enum Submission {
    /// Deliver a message.
    Send(Box<Delivery>, u64),
    /// Deliver a message to all devices of an account.
    SendToAccount(Box<Errand>),
    /// Find a device.
    Ask(Box<Inspection>, u64),
}

impl ApiContext {
    pub(crate) fn new(shard: ShardId, node: Arc<Node>, post: Post, fallback: Fallback) -> Rc<Self> {
        Rc::new(Self {
            shard,
            node,
            waiters: Waiters::new(shard, WAITERS_MAX),
            ready: RefCell::default(),
            submissions: RefCell::default(),
            next_iteration: RefCell::default(),
            batch_messages_left: Cell::new(0),
            now: Cell::default(),
            fallback,
            date: Cell::default(),
            #[cfg(test)]
            is_hyper_alone: Cell::new(false),
            post,
            counter: Cell::new(0),
        })
    }

    /// To be called when an iteration begins: what had to wait for it goes on.
    pub(crate) fn begin_iteration(&self, now: Now) {
        self.now.set(now);
        self.batch_messages_left
            .set(BATCH_MESSAGES_PER_ITERATION_MAX);
        self.next_iteration.take().into_iter().for_each(Waker::wake);
    }

    /// Whether a task waits for the next iteration.
    pub(crate) fn has_work(&self) -> bool {
        !self.next_iteration.borrow().is_empty()
    }

    /// Whether another message of a batch may be taken up in this iteration.
    fn takes_message_of_batch(&self) -> bool {
        let left = self.batch_messages_left.get();
        self.batch_messages_left.set(left.saturating_sub(1));
        left > 0
    }

    /// What this shard counts.
    fn cells(&self) -> &ShardCells {
        &self.node.cells[usize::from(self.shard.0)]
    }

    /// Whether requests may be answered in front of hyper.
    #[cfg(not(test))]
    const fn answers_hot(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn answers_hot(&self) -> bool {
        !self.is_hyper_alone.get()
    }

    /// A new message id.
    pub(crate) fn mint(&self) -> MessageId {
        let counter = self.counter.get();
        self.counter.set(counter.wrapping_add(1));
        MessageId::new(self.now.get().wall_ms, self.node.epoch, self.shard, counter)
    }
}

impl std::fmt::Debug for ApiContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiContext")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Shard<T> {
    /// Polls the tasks that have something to do, until what they asked for has made no other task ready.
    pub(crate) fn poll_api_tasks(&mut self, now: Now) {
        let mut ready = Vec::new();
        loop {
            ready.append(&mut self.api.ready.borrow_mut());
            task::take_ready(&mut ready);
            if ready.is_empty() {
                return;
            }
            ready.sort_unstable();
            ready.dedup();
            for id in ready.drain(..) {
                self.poll_api_task(id, now);
            }
            let submissions = self.api.submissions.take();
            for submission in submissions {
                match submission {
                    Submission::Send(delivery, deadline_ms) => {
                        self.submit(delivery, deadline_ms, now)
                    }
                    Submission::SendToAccount(errand) => self.run(None, *errand, now),
                    Submission::Ask(inspection, deadline_ms) => self.ask(inspection, deadline_ms),
                }
            }
            // Own devices are written to here and now, so that the answers can leave in this iteration.
            self.flush_dirty(now);
        }
    }

    fn poll_api_task(&mut self, id: ConnId, now: Now) {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max.as_usize();
        let context = Rc::clone(&self.api);
        // What was to be closed in this iteration takes up nothing more.
        let conn = self.arena.get_mut(id);
        let Some(conn) = conn.filter(|conn| conn.flags.closing.is_none()) else {
            return;
        };
        let Phase::Api(api) = &mut conn.phase else {
            return;
        };
        // Who does not read its answers gets no more of them; emptying the outbox makes the task ready again.
        if conn
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.len() > outbox_bytes_max)
        {
            return;
        }
        let is_done = api.poll(id, &context, &self.settings.heads, now).is_ready();
        let pipe = Rc::clone(&api.pipe);
        let wants_resume = api.wants_resume();
        let refusal = is_done
            .then(|| api.take_refusal(&context.mint().to_string()))
            .flatten();
        let mut pipe = pipe.borrow_mut();
        if pipe.is_full() {
            // There is room again, and nobody else says so if the socket takes all of it at once.
            self.api.ready.borrow_mut().push(id);
        }
        if !pipe.output.is_empty() {
            self.send(id, &pipe.output);
            pipe.output.clear();
        }
        if is_done || pipe.output_ended {
            if let Some(answer) = refusal {
                self.send(id, &answer);
            }
            self.close(id, CloseReason::PeerClosed);
        } else {
            self.arm(id, now);
            if wants_resume {
                self.mark_unread(id);
            }
        }
    }
}

/// A control plane that says what it was asked.
#[cfg(test)]
pub(crate) fn parrot() -> Fallback {
    use http_body_util::BodyExt as _;

    Arc::new(|request| {
        let (answer, answered) = oneshot::channel();
        let (parts, body) = request.into_parts();
        let text = format!("{} {} {:?}", parts.method, parts.uri, body);
        let body = http_body_util::Full::new(Bytes::from(text));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        answer.send(Response::new(body)).ok();
        answered
    })
}

/// Messages of batches taken up per iteration, all batches of a shard together: at some 10 µs each, the `send` to a
/// socket included, a thousand of them must not hold everybody up.
const BATCH_MESSAGES_PER_ITERATION_MAX: u32 = 64;
/// Requests of one shard that may wait for an answer at once; more are told `overloaded`.
const WAITERS_MAX: usize = 65_536;
