//! One connection of a back end, and who answers what it asks: `service::hot` or hyper.
//!
//! What has come is held until its turn: requests go to hyper one at a time, and only when nothing in front of them is
//! unanswered; hot ones are taken up as long as hyper has nothing to do. So answers leave in the order of the requests,
//! whoever makes them. Bytes are moved, never changed: hyper reads what came, or nothing of it.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::StatusCode;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::{Now, Tick};
use crate::config::section;
use crate::head::guard::{Choice, Guard};
use crate::head::request::{BadHead, Limits};
use crate::head::response::Response;
use crate::protocol::auth::api_key::Bearer;
use crate::reactor::api::ApiContext;
use crate::reactor::api::pipe::{Pipe, PipeEnd};
use crate::reactor::api::service;
use crate::reactor::api::service::hot::Hot;
use crate::reactor::api::task::TaskWaker;
use crate::wire::api::ErrorBody;
use crate::wire::error::ErrorCode;

/// One connection of a back end. Rare, and fat once hyper has been needed: its buffers are some 20 KB.
pub(crate) struct ApiConn {
    /// Bytes whose turn has not come.
    held: Vec<u8>,
    /// Of these, so many must be there before the first have their turn: a request whose body is on its way.
    awaited: usize,
    guard: Guard,
    hot: Hot,
    pub(super) pipe: Rc<RefCell<Pipe>>,
    /// hyper's side, made when it is first needed.
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    hyper: Hyper,
    stage: Rc<Cell<Stage>>,
    /// Who the back end is by its client certificate, once TLS has verified one.
    bearer: Rc<OnceCell<Bearer>>,
    waker: Option<Arc<TaskWaker>>,
    refusal: Option<BadHead>,
    /// The socket may hold bytes for which there was no room.
    is_left_alone: bool,
    /// The far end has finished; what it has sent may still be held.
    is_input_ended: bool,
    is_finished: bool,
}

/// What hyper has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hyper {
    /// Nothing: it has answered, and asks for no other poll.
    Idle,
    /// Take up a request, or part of one, when all in front of it is answered.
    Next,
    /// Answer it.
    Busy,
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
    pub(crate) fn new(now: Now) -> Self {
        Self {
            held: Vec::new(),
            awaited: 0,
            guard: Guard::default(),
            hot: Hot::default(),
            pipe: Rc::default(),
            task: None,
            hyper: Hyper::Idle,
            stage: Rc::new(Cell::new(Stage::Idle(now.tick()))),
            bearer: Rc::default(),
            waker: None,
            refusal: None,
            is_left_alone: false,
            is_input_ended: false,
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

    /// Whether there is room for what the socket holds.
    pub(crate) fn may_read(&mut self) -> bool {
        self.is_left_alone = !self.has_room();
        !self.is_left_alone
    }

    /// Whether a socket that was left alone is to be read again. Reading any other would find nothing.
    pub(super) fn wants_resume(&self) -> bool {
        self.is_left_alone && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.held.len() + self.pipe.borrow().unread() < Pipe::INPUT_BYTES_MAX
    }

    /// Takes bytes from the socket. The task is to be polled afterwards.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        if !self.pipe.borrow().input_ended {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The far end has finished. The task is to be polled afterwards.
    pub(crate) fn end_input(&mut self) {
        self.is_input_ended = true;
    }

    /// What the connection is told after the answers that are due, because its last request was refused.
    pub(super) fn take_refusal(&mut self, request_id: &str) -> Option<Vec<u8>> {
        let bad = self.refusal.take()?;
        let body = ErrorBody::new(ErrorCode::BadRequest, bad.message(), request_id);
        // A struct of strings always serialises.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let status = StatusCode::from_u16(bad.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut out = Vec::new();
        Response::new(status, &body).encode(&mut out);
        Some(out)
    }

    /// Answers what can be answered. Ready when nothing more will be.
    pub(super) fn poll(
        &mut self,
        id: ConnId,
        context: &Rc<ApiContext>,
        heads: &Limits,
        now: Now,
    ) -> Poll<()> {
        if self.is_finished {
            return Poll::Ready(());
        }
        let new_waker = || TaskWaker::new(id, context.shard, context.post.clone());
        let waker = self.waker.get_or_insert_with(new_waker);
        waker.begin_poll();
        let waker = waker.waker();
        let cx = &mut Context::from_waker(&waker);
        for _ in 0..TURNS_PER_POLL {
            self.answer_hot(context, cx);
            self.take_input(context, heads);
            self.answer_hot(context, cx);
            if self.hot.is_empty() && self.poll_hyper(context, cx, now).is_ready() {
                self.is_finished = true;
                return Poll::Ready(());
            }
            if self.held.is_empty() || self.awaited > 0 || !self.may_begin() {
                self.settle_stage(now);
                return Poll::Pending;
            }
        }
        // Others have their turn, and the outbox is looked at.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[cfg(test)]
    pub(crate) fn has_needed_hyper(&self) -> bool {
        self.task.is_some()
    }

    fn answer_hot(&mut self, context: &ApiContext, cx: &Context<'_>) {
        let mut pipe = self.pipe.borrow_mut();
        self.hot.answer(context, cx.waker(), &mut pipe.output);
    }

    /// Whether the next request has its turn.
    fn may_begin(&self) -> bool {
        self.hot.has_room() && self.hyper == Hyper::Idle
    }

    /// Hands on what has come, as far as its turn has. A request that is malformed or ambiguous, and all after it, goes
    /// no further.
    fn take_input(&mut self, context: &ApiContext, heads: &Limits) {
        let pipe = Rc::clone(&self.pipe);
        let mut pipe = pipe.borrow_mut();
        if self.held.len() < self.awaited && !self.is_input_ended {
            return;
        }
        self.awaited = 0;
        let mut taken = 0;
        while taken < self.held.len() && !pipe.input_ended {
            if self.guard.is_in_head() && !self.may_begin() && context.answers_hot() {
                break;
            }
            let (hot, bearer, stage) = (&mut self.hot, self.bearer.get(), &self.stage);
            let rest = &self.held[taken..];
            let (is_last, mut whole_bytes) = (self.is_input_ended, 0);
            let received = self.guard.receive_some(rest, heads, pipe.input(), |offer| {
                if !context.answers_hot() {
                    return Choice::Pass;
                }
                whole_bytes = offer.whole_bytes();
                match hot.choose(context, bearer, offer) {
                    Choice::Take => stage.set(Stage::Answering),
                    Choice::Await if !is_last => return Choice::Await,
                    Choice::Await | Choice::Pass => return Choice::Pass,
                }
                Choice::Take
            });
            match received {
                Ok(0) => {
                    self.awaited = whole_bytes;
                    break;
                }
                Ok(n) => taken += n,
                Err(bad) => {
                    taken = self.held.len();
                    pipe.input_ended = true;
                    // In a body, the request itself is answered: it did not arrive whole.
                    self.refusal = self.guard.is_in_head().then_some(bad);
                }
            }
            if pipe.unread() > 0 && self.hyper == Hyper::Idle {
                self.hyper = Hyper::Next;
            }
        }
        self.held.drain(..taken);
        if self.held.is_empty() {
            self.held.shrink_to(Pipe::SPARE_BYTES);
            pipe.input_ended |= self.is_input_ended;
        }
    }

    /// Lets hyper go on if there is anything for it. Ready when the connection is over.
    fn poll_hyper(&mut self, context: &Rc<ApiContext>, cx: &mut Context<'_>, now: Now) -> Poll<()> {
        let is_over = self.pipe.borrow().input_ended;
        match (self.hyper, &self.task) {
            (Hyper::Idle, _) if !is_over => return Poll::Pending,
            (Hyper::Idle, None) => return Poll::Ready(()),
            (Hyper::Next, _) => self.stage.set(Stage::Head(now.tick())),
            (Hyper::Idle, Some(_)) | (Hyper::Busy, _) => {}
        }
        let task = self.task.get_or_insert_with(|| {
            let (pipe, stage) = (Rc::clone(&self.pipe), Rc::clone(&self.stage));
            let bearer = Rc::clone(&self.bearer);
            Box::pin(service::serve(
                PipeEnd(pipe),
                Rc::clone(context),
                stage,
                bearer,
            ))
        });
        let poll = task.as_mut().poll(cx);
        let is_answered = matches!(self.stage.get(), Stage::Idle(_)) && self.guard.is_in_head();
        // What hyper has refused early it may still have to read to the end, or to close: it asks for another poll.
        let is_awaited = self.waker.as_ref().is_some_and(|waker| waker.is_queued());
        let is_done = is_answered && !is_awaited && self.pipe.borrow().is_quiet();
        self.hyper = if is_done && context.answers_hot() {
            Hyper::Idle
        } else {
            Hyper::Busy
        };
        poll
    }

    /// Notes what the far end is expected to do next, unless that is for hyper's service to say.
    fn settle_stage(&self, now: Now) {
        if !self.hot.is_empty() {
            return self.stage.set(Stage::Answering);
        }
        if self.hyper != Hyper::Idle {
            return;
        }
        let is_between = self.guard.is_between_requests();
        let next = match self.stage.get() {
            same @ Stage::Body(_) if self.awaited > 0 => same,
            _ if self.awaited > 0 => Stage::Body(now.tick()),
            Stage::Idle(_) | Stage::Answering if !is_between => Stage::Head(now.tick()),
            Stage::Answering => Stage::Idle(now.tick()),
            same @ (Stage::Idle(_) | Stage::Head(_) | Stage::Body(_)) => same,
        };
        self.stage.set(next);
    }
}

impl std::fmt::Debug for ApiConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiConn")
            .field("stage", &self.stage.get())
            .finish_non_exhaustive()
    }
}

/// How often hyper and the hot requests take turns before others do.
const TURNS_PER_POLL: usize = 4;
