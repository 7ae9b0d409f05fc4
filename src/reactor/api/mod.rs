//! Connections of back ends: HTTP by hyper, polled by the reactor itself.
//!
//! A thread change per message would cost more than everything else in it, so the hot calls are answered on the
//! reactor that read them. hyper sees two buffers (`pipe`), a task is polled when its connection has something new
//! or its waker says so (`task`), and what it asks of the shard goes through `ApiContext`. Every other route is
//! handed to the control plane by the [`Fallback`].

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, MessageId, ShardId};
use crate::base::time::{Now, Tick};
use crate::config::section;
use crate::head::guard::Guard;
use crate::head::request::{self, BadHead};
use crate::head::response::Response as HeadResponse;
use crate::mailbox::command::{Delivery, Inspection, Post};
use crate::metrics::ShardCells;
use crate::net::stream::Transport;
use crate::protocol::auth::api_key::Bearer;
use crate::reactor::api::pipe::{Pipe, PipeEnd};
use crate::reactor::api::task::TaskWaker;
use crate::reactor::conn::Phase;
use crate::reactor::fanout::Errand;
use crate::reactor::node::Node;
use crate::reactor::shard::Shard;
use crate::reactor::waiter::Waiters;
use crate::wire::api::ErrorBody;
use crate::wire::error::ErrorCode;

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

/// One connection of a back end. Rare and fat: hyper's buffers are some 20 KB.
pub(crate) struct ApiConn {
    pipe: Rc<RefCell<Pipe>>,
    task: Pin<Box<dyn Future<Output = ()>>>,
    stage: Rc<Cell<Stage>>,
    /// Who the back end is by its client certificate, once TLS has verified one.
    bearer: Rc<OnceCell<Bearer>>,
    waker: Option<Arc<TaskWaker>>,
    guard: Guard,
    refusal: Option<BadHead>,
    is_finished: bool,
}

/// What the far end is expected to do next, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Send another request, or nothing.
    Idle(Tick),
    /// Finish the head it began.
    Head(Tick),
    /// Finish the body it announced.
    Body(Tick),
    /// Wait for the answer, or read it as it is made: an answer without an end has no deadline but the outbox's.
    Answering,
}

impl ApiConn {
    pub(crate) fn new(context: &Rc<ApiContext>, now: Now) -> Self {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let stage = Rc::new(Cell::new(Stage::Idle(now.tick())));
        let bearer = Rc::default();
        let task = service::serve(
            PipeEnd(Rc::clone(&pipe)),
            Rc::clone(context),
            Rc::clone(&stage),
            Rc::clone(&bearer),
        );
        Self {
            pipe,
            task: Box::pin(task),
            stage,
            bearer,
            waker: None,
            guard: Guard::default(),
            refusal: None,
            is_finished: false,
        }
    }

    /// Expects TLS to be agreed on before anything else, for no longer than a head may take.
    pub(crate) fn await_tls(&self, now: Now) {
        self.stage.set(Stage::Head(now.tick()));
    }

    /// TLS is agreed on, with somebody whose certificate says so.
    pub(crate) fn begin(&self, bearer: Option<Box<str>>, now: Now) {
        self.stage.set(Stage::Idle(now.tick()));
        if let Some(name) = bearer {
            // Hands are shaken once.
            self.bearer.set(Bearer(name.into())).ok();
        }
    }

    pub(crate) fn deadline(&self, api: &section::Api) -> Option<(Tick, CloseReason)> {
        match self.stage.get() {
            Stage::Idle(since) => Some((since.after(api.idle_timeout), CloseReason::Idle)),
            Stage::Head(since) => {
                Some((since.after(api.head_timeout), CloseReason::HandshakeTimeout))
            }
            Stage::Body(since) => {
                Some((since.after(api.body_timeout), CloseReason::HandshakeTimeout))
            }
            Stage::Answering => None,
        }
    }

    /// Whether hyper has room for more bytes.
    pub(crate) fn may_read(&self) -> bool {
        self.pipe.borrow().unread() < Pipe::INPUT_BYTES_MAX
    }

    /// Takes bytes from the socket; a request that is malformed or ambiguous, and all after it, goes no further.
    pub(crate) fn fill(&mut self, bytes: &[u8], heads: &request::Limits, now: Now) {
        if let Stage::Idle(_) = self.stage.get() {
            self.stage.set(Stage::Head(now.tick()));
        }
        let mut pipe = self.pipe.borrow_mut();
        if pipe.input_ended {
            return;
        }
        if let Err(bad) = self.guard.receive(bytes, heads, pipe.input()) {
            pipe.input_ended = true;
            // In a body, the request itself is answered: it did not arrive whole.
            self.refusal = self.guard.is_in_head().then_some(bad);
        }
    }

    /// What the connection is told after the answers that are due, because its last request was refused.
    fn take_refusal(&mut self, request_id: &str) -> Option<Vec<u8>> {
        let bad = self.refusal.take()?;
        let body = ErrorBody::new(ErrorCode::BadRequest, bad.message(), request_id);
        // A struct of strings always serialises.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let status = StatusCode::from_u16(bad.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut out = Vec::new();
        HeadResponse::new(status, &body).encode(&mut out);
        Some(out)
    }

    pub(crate) fn end_input(&self) {
        self.pipe.borrow_mut().input_ended = true;
    }

    fn poll(&mut self, id: ConnId, context: &ApiContext) -> Poll<()> {
        if self.is_finished {
            return Poll::Ready(());
        }
        let new_waker = || TaskWaker::new(id, context.shard, context.post.clone());
        let waker = self.waker.get_or_insert_with(new_waker);
        waker.begin_poll();
        let poll = self
            .task
            .as_mut()
            .poll(&mut Context::from_waker(&waker.waker()));
        self.is_finished = poll.is_ready();
        poll
    }
}

impl std::fmt::Debug for ApiConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiConn")
            .field("stage", &self.stage.get())
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
        let Some(conn) = self.arena.get_mut(id) else {
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
        let is_done = api.poll(id, &context).is_ready();
        let pipe = Rc::clone(&api.pipe);
        let has_room = api.may_read();
        let api_refusal = is_done
            .then(|| api.take_refusal(&context.mint().to_string()))
            .flatten();
        let mut pipe = pipe.borrow_mut();
        if !pipe.output.is_empty() {
            self.send(id, &pipe.output);
            pipe.output.clear();
        }
        if is_done || pipe.output_ended {
            if let Some(answer) = api_refusal {
                self.send(id, &answer);
            }
            self.close(id, CloseReason::PeerClosed);
        } else {
            self.arm(id, now);
            if has_room {
                self.mark_unread(id);
            }
        }
    }
}

/// Messages of batches taken up per iteration, all batches of a shard together: at some 10 µs each, the `send` to a
/// socket included, a thousand of them must not hold everybody up.
const BATCH_MESSAGES_PER_ITERATION_MAX: u32 = 64;
/// Requests of one shard that may wait for an answer at once; more are told `overloaded`.
const WAITERS_MAX: usize = 65_536;
