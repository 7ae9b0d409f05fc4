//! Leaving politely: readiness off, one load-balancer interval, go-aways spread over the time that is left, and only
//! then force.
//!
//! One engine for a signal and for the API. What differs: after a signal there is no way back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::close::CloseReason;
use crate::mailbox::command::{Command, Post};
use crate::metrics::total;
use crate::reactor::node::Node;
use crate::reactor::sweep::millis;
use crate::wire::api::{DrainState, DrainStatus};

/// The node's way out.
#[derive(Debug)]
pub struct Drain {
    node: Arc<Node>,
    posts: Vec<Post>,
    progress: watch::Sender<Progress>,
    /// The walk that the API began. Held while one begins or ends, so that there is never more than one.
    walk: Mutex<Option<JoinHandle<()>>>,
}

/// Where the node stands on its way out.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    state: DrainState,
    times: Option<Times>,
    /// The process is to end: there is no way back.
    is_final: bool,
}

/// When a drain began and when it ends, on both clocks.
#[derive(Clone, Copy, Debug)]
struct Times {
    started: Instant,
    deadline: Instant,
    started_ms: u64,
    deadline_ms: u64,
}

/// The drain cannot be taken back: the process is ending, or lines are being closed by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl Drain {
    /// A node that stays.
    pub fn new(node: Arc<Node>, posts: Vec<Post>) -> Self {
        Self {
            node,
            posts,
            progress: watch::Sender::default(),
            walk: Mutex::default(),
        }
    }

    /// Where the node stands.
    pub fn status(&self) -> DrainStatus {
        let progress = *self.progress.borrow();
        DrainStatus {
            node_id: self.node.id.to_string(),
            state: progress.state,
            lines: self.lines(),
            started_ms: progress.times.map(|times| times.started_ms),
            deadline_ms: progress.times.map(|times| times.deadline_ms),
        }
    }

    /// Lines open now.
    pub fn lines(&self) -> u64 {
        total(&self.node.cells, |cells| &cells.lines)
    }

    /// What must leave before the node is drained: lines and streams.
    fn remaining(&self) -> u64 {
        self.lines() + total(&self.node.cells, |cells| &cells.streams)
    }

    /// Begins to drain and returns at once; a drain that has begun already goes on as it is. `None` is the
    /// configured deadline.
    pub async fn begin(self: &Arc<Self>, deadline: Option<Duration>) {
        let mut walk = self.walk.lock().await;
        if self.progress.borrow().state != DrainState::Serving {
            return;
        }
        let deadline = deadline.unwrap_or_else(|| self.node.settings.load().drain.deadline);
        self.leave_by(deadline, false);
        let drain = Arc::clone(self);
        *walk = Some(tokio::spawn(async move { drain.walk().await }));
    }

    /// Drains the node for good, in the configured time even if the API gave more; returns when no line is left, by
    /// the deadline at the latest.
    pub async fn run(&self) {
        {
            let mut walk = self.walk.lock().await;
            self.leave_by(self.node.settings.load().drain.deadline, true);
            stop(walk.take()).await;
        }
        self.walk().await;
    }

    /// Takes the drain back: lines that were not asked to leave yet stay, and new ones are let in.
    ///
    /// # Errors
    /// [`TooLate`].
    pub async fn cancel(&self) -> Result<(), TooLate> {
        let mut walk = self.walk.lock().await;
        let is_cancelled = self.progress.send_if_modified(|progress| {
            let is_too_late = progress.is_final || progress.state == DrainState::Forcing;
            if !is_too_late {
                *progress = Progress::default();
            }
            !is_too_late
        });
        if !is_cancelled {
            return Err(TooLate);
        }
        // Only when the walk has stopped is its last command behind the one that takes it back.
        stop(walk.take()).await;
        self.node.is_draining.store(false, Ordering::Relaxed);
        self.node.is_unready.store(false, Ordering::Relaxed);
        self.tell_all(|| Command::Resume).await;
        Ok(())
    }

    /// Turns readiness off and sets the deadline; a drain that has begun keeps its beginning.
    #[expect(
        clippy::disallowed_methods,
        reason = "the control plane has its own clock"
    )]
    fn leave_by(&self, deadline: Duration, is_final: bool) {
        // Relaxed, as all flags of the node: each guards nothing but itself.
        self.node.is_unready.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.progress.send_modify(|progress| {
            let begun = progress.times;
            progress.times = Some(Times {
                started: begun.map_or(now, |times| times.started),
                deadline: now + deadline,
                started_ms: begun.map_or_else(|| millis(wall), |times| times.started_ms),
                deadline_ms: millis(wall + deadline),
            });
            progress.state = progress.state.max(DrainState::Unready);
            progress.is_final = is_final;
        });
    }

    /// The steps of a drain, from where it stands.
    async fn walk(&self) {
        let Some(times) = self.progress.borrow().times else {
            return;
        };
        let (interval, grace) = {
            let settings = self.node.settings.load();
            (settings.drain.interval, settings.lifetime.goaway_grace)
        };
        // Without lines and streams there is nobody to be polite to.
        if self.remaining() > 0 {
            sleep_until(times.started + interval).await;
        }
        if !self.advance(DrainState::Leaving) {
            return;
        }
        self.node.is_draining.store(true, Ordering::Relaxed);
        // The last device that is asked must have its grace before the deadline.
        let asked = times.started + interval + grace;
        let spread = times.deadline.saturating_duration_since(asked);
        let spread_ms = millis(spread);
        self.tell_all(|| Command::Drain { spread_ms }).await;
        tokio::select! {
            () = self.until_empty() => {}
            () = sleep_until(times.deadline) => self.force().await,
        }
        self.advance(DrainState::Drained);
    }

    /// Closes what is left.
    async fn force(&self) {
        if !self.advance(DrainState::Forcing) {
            return;
        }
        let lines = self.remaining();
        tracing::warn!(lines, "the drain's deadline passed; closing what is left");
        self.tell_all(|| Command::CloseLines(CloseReason::Drain))
            .await;
        // The close frames need a moment to leave.
        tokio::time::timeout(LAST_WORDS, self.until_empty())
            .await
            .ok();
    }

    /// Goes on to the next step, unless the drain was taken back meanwhile.
    fn advance(&self, state: DrainState) -> bool {
        self.progress.send_if_modified(|progress| {
            let goes_on = progress.state != DrainState::Serving;
            if goes_on {
                progress.state = state;
            }
            goes_on
        })
    }

    async fn until_empty(&self) {
        while self.remaining() > 0 {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Posts a command to every shard; one whose mailbox is full is tried again, and one that has died is left.
    async fn tell_all(&self, command: impl Fn() -> Command) {
        for (shard, post) in self.posts.iter().enumerate() {
            let told = async {
                while post.post(command()).is_err() {
                    sleep(POLL_INTERVAL).await;
                }
            };
            if tokio::time::timeout(POST_PATIENCE, told).await.is_err() {
                tracing::error!(shard, "a reactor takes no commands");
            }
        }
    }
}

/// Ends a walk between two of its steps.
async fn stop(walk: Option<JoinHandle<()>>) {
    if let Some(walk) = walk {
        walk.abort();
        walk.await.ok();
    }
}

/// How often the count of lines is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// A full mailbox empties within an iteration or two; one that has not by now never will.
const POST_PATIENCE: Duration = Duration::from_secs(1);
/// How long close frames may take to leave at the very end.
const LAST_WORDS: Duration = Duration::from_secs(1);
