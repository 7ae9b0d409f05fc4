//! The sending end: one thread with a few connections that push over HTTP, send as devices, or send on streams.
//!
//! Each line belongs to one connection, so that the order of its messages is a promise the server can break.
//! With a rate the loop is open: arrivals are fixed in advance, wait in a backlog while the window is full, and
//! their latency counts from the intended time. Without one it is closed: each answer makes room for the next push.

pub(crate) mod book;
mod connection;
mod http;
pub(crate) mod record;
mod reply;
mod response;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender as Post, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::name::Row;
use crate::node::target::Target;
use crate::oracle::ledger::Ledger;
use crate::oracle::shadow::Shadows;
use crate::schedule::Spread;
use crate::sender::book::Book;
use crate::sender::record::RecordPlan;
use crate::sender::thread::SenderThread;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct SenderPlan {
    /// How to speak, and who the lines are.
    pub(crate) dialect: Arc<Dialect>,
    /// What it is sent over.
    pub(crate) medium: Medium,
    /// The lines to send to, at random: a row for each connection, none of them empty.
    pub(crate) rows: Vec<Row>,
    /// Arrivals a second; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    /// How arrivals are spread.
    pub(crate) spread: Spread,
    /// Bytes of a message's body.
    pub(crate) body_bytes: usize,
    /// Fixes targets and arrivals.
    pub(crate) seed: u64,
    /// Which lines are about to be cut.
    pub(crate) shadows: Option<Arc<Shadows>>,
    /// Whether connections that break are opened again, as a back end would.
    pub(crate) mends: bool,
}

impl SenderPlan {
    /// The shortest messages in a closed loop, each by whom it is answered.
    pub(crate) fn new(dialect: Dialect, medium: Medium, rows: Vec<Row>) -> Self {
        Self {
            dialect: Arc::new(dialect),
            medium,
            rows,
            rate: None,
            spread: Spread::Poisson,
            body_bytes: 0,
            seed: 1,
            shadows: None,
            mends: false,
        }
    }
}

/// What messages are sent over.
#[derive(Clone, Debug)]
pub(crate) enum Medium {
    /// Keep-alive connections to the sending API.
    Http {
        /// Where it is.
        api: Target,
        /// Unanswered pushes on each connection.
        pipeline: u32,
    },
    /// WebSockets.
    Record(Arc<RecordPlan>),
}

/// When to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Messages intended before this are warm-up and in no latency.
    pub(crate) record_from: Duration,
    /// When to stop.
    pub(crate) until: Duration,
}

/// The sending thread.
#[derive(Debug)]
pub(crate) struct Sender {
    thread: JoinHandle<io::Result<Book>>,
    begin: Post<Span>,
    is_stopped: Arc<AtomicBool>,
}

impl Sender {
    /// Opens the connections.
    pub(crate) fn open(plan: SenderPlan, clock: Clock) -> io::Result<Self> {
        let book = Book::empty(Ledger::of(&plan.dialect.names));
        Self::resume(plan, book, clock)
    }

    /// The same, going on in the book of an earlier sender.
    pub(crate) fn resume(plan: SenderPlan, book: Book, clock: Clock) -> io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = is_stopped.clone();
        let (opened, is_open) = channel::<()>();
        let (begin, span) = channel();
        let thread = std::thread::Builder::new()
            .name("sender".to_owned())
            .spawn(move || {
                let thread = SenderThread::open(plan, book, clock, stop)?;
                // Both ends live as long as the sender does, so neither is gone.
                opened.send(()).map_err(io::Error::other)?;
                thread.run(span.recv().map_err(io::Error::other)?)
            })?;
        if is_open.recv().is_err() {
            let ended = || io::Error::other("the sender ended");
            return Err(outcome(thread).err().unwrap_or_else(ended));
        }
        Ok(Self {
            thread,
            begin,
            is_stopped,
        })
    }

    /// Starts sending.
    pub(crate) fn start(&self, span: Span) -> io::Result<()> {
        self.begin.send(span).map_err(io::Error::other)
    }

    /// Whether all answers are in, or were given up.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops sending, and lets the answers under way come in.
    pub(crate) fn finish(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Stops sending, waits for the answers under way, and hands over the book.
    pub(crate) fn stop(self) -> io::Result<Book> {
        self.finish();
        outcome(self.thread)
    }
}

fn outcome(thread: JoinHandle<io::Result<Book>>) -> io::Result<Book> {
    thread
        .join()
        .map_err(|_| io::Error::other("the sender panicked"))?
}
