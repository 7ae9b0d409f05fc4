//! The sending end: pushes over HTTP, from one thread on a few keep-alive connections.
//!
//! Each line belongs to one connection, so that the order of its messages is a promise the server can break.
//! With a rate the loop is open: arrivals are fixed in advance, wait in a backlog while the window is full, and
//! their latency counts from the intended time. Without one it is closed: each answer makes room for the next push.

mod connection;
mod response;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::latency::Latency;
use crate::oracle::Answer;
use crate::oracle::ledger::Ledger;
use crate::schedule::Spread;
use crate::sender::connection::{Connection, Pending};
use crate::sender::thread::SenderThread;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct SenderPlan {
    /// The sending API.
    pub(crate) api: SocketAddr,
    /// How to speak.
    pub(crate) dialect: Dialect,
    /// Lines to push to: `0..lines`, at random.
    pub(crate) lines: u32,
    /// Connections.
    pub(crate) connections: u32,
    /// Unanswered pushes on each.
    pub(crate) pipeline: u32,
    /// Arrivals a second; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    /// How arrivals are spread.
    pub(crate) spread: Spread,
    /// Bytes of a message's body.
    pub(crate) body_bytes: usize,
    /// Pushes intended before this are warm-up and in no latency.
    pub(crate) record_from: Duration,
    /// When to stop sending.
    pub(crate) until: Duration,
    /// How long to wait for the last answers.
    pub(crate) answer_timeout: Duration,
    /// Fixes targets and arrivals.
    pub(crate) seed: u64,
}

/// The sending thread.
#[derive(Debug)]
pub(crate) struct Sender {
    thread: JoinHandle<io::Result<Book>>,
    is_stopped: Arc<AtomicBool>,
}

/// What the sending thread brings home.
#[derive(Debug)]
pub(crate) struct Book {
    /// What was sent and answered.
    pub(crate) ledger: Ledger,
    /// From the intended time of a push to its answer.
    pub(crate) round_trip: Latency,
    /// How late pushes left because this generator was late; empty in a closed loop.
    pub(crate) lateness: Latency,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Arrivals that never left, because the window stayed full.
    pub(crate) unsent: u64,
    /// Connections that broke, and why.
    pub(crate) broken: Vec<String>,
    /// The share of one core this thread used while sending.
    pub(crate) busy: f64,
}

impl Sender {
    /// Starts sending.
    pub(crate) fn start(plan: SenderPlan, clock: Clock) -> io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = is_stopped.clone();
        let thread = std::thread::Builder::new()
            .name("sender".to_owned())
            .spawn(move || SenderThread::open(plan, clock, stop)?.run())?;
        Ok(Self { thread, is_stopped })
    }

    /// Whether all answers are in, or were given up.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops sending, waits for the answers under way, and hands over the book.
    pub(crate) fn stop(self) -> io::Result<Book> {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| io::Error::other("the sender panicked"))?
    }
}

impl Book {
    fn new(lines: u32) -> Self {
        Self {
            ledger: Ledger::new(lines),
            round_trip: Latency::new(),
            lateness: Latency::new(),
            statuses: BTreeMap::new(),
            unsent: 0,
            broken: Vec::new(),
            busy: 0.0,
        }
    }

    fn settle(&mut self, pending: Pending, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
        let answer = match status {
            200..300 => Answer::Accepted,
            // A gateway's time ran out, or something broke inside: the message may be on its way.
            500 | 502 | 504 => Answer::Unknown,
            _ => Answer::Refused,
        };
        self.ledger.settle(pending.line, pending.sequence, answer);
    }

    /// Statuses other than success, with their counts.
    pub(crate) fn bad_statuses(&self) -> String {
        let bad = self
            .statuses
            .iter()
            .filter(|(status, _)| !(200..300).contains(*status));
        bad.map(|(status, n)| format!("{n} × {status}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn give_up(&mut self, connection: &mut Connection) {
        for pending in connection.abandon() {
            self.ledger
                .settle(pending.line, pending.sequence, Answer::Unknown);
        }
    }
}
