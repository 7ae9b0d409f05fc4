//! Leaving politely: readiness off, one load-balancer interval, go-aways spread over the time that is left, and only
//! then force.
//!
//! One engine for a signal and for the API. What differs: after a signal there is no way back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::clock::wall;
use crate::api::pace::Pace;
use crate::base::time::millis;
use crate::mailbox::command::{Command, DrainOrder, Post};
use crate::metrics::{Cell, ShardCells, total};
use crate::reactor::node::Node;
use crate::wire::drain::{DrainForecast, DrainProgress, DrainState, DrainStatus};

/// The node's way out.
#[derive(Debug)]
pub struct Drain {
    node: Arc<Node>,
    posts: Vec<Post>,
    progress: watch::Sender<Progress>,
    /// The walk that the API began. Held while one begins or ends, so that there is never more than one.
    walk: Mutex<Option<JoinHandle<()>>>,
}

/// What a drain is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// From its start to its end; `None` is what the rate takes, and without a rate the configured one.
    pub deadline: Option<Duration>,
    /// How many lines are asked in a second; `None` spreads them over the time there is.
    pub lines_per_second: Option<u32>,
    /// Where devices should go.
    pub url: Option<Arc<str>>,
}

/// Where the node stands on its way out.
#[derive(Clone, Debug, Default)]
struct Progress {
    state: DrainState,
    plan: Plan,
    times: Option<Times>,
    leaving: Option<Leaving>,
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

/// How lines stood when the node began to ask them.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    lines: u64,
    lines_per_second: u64,
    eta_ms: u64,
    /// The counts then: what earlier drains have come to.
    counts: Counts,
}

/// What the shards have counted of drains.
#[derive(Clone, Copy, Debug)]
struct Counts {
    asked: u64,
    gone: u64,
    forced: u64,
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
        let progress = self.progress.borrow();
        DrainStatus {
            node_id: self.node.id.to_string(),
            state: progress.state,
            lines: self.lines(),
            started_ms: progress.times.map(|times| times.started_ms),
            deadline_ms: progress.times.map(|times| times.deadline_ms),
            progress: progress.leaving.map(|leaving| {
                let counts = self.counts();
                DrainProgress {
                    lines_at_start: leaving.lines,
                    lines_per_second: leaving.lines_per_second,
                    asked: counts.asked.wrapping_sub(leaving.counts.asked),
                    gone: counts.gone.wrapping_sub(leaving.counts.gone),
                    forced: counts.forced.wrapping_sub(leaving.counts.forced),
                    eta_ms: leaving.eta_ms,
                }
            }),
        }
    }

    /// How a drain would go, if it began now.
    pub fn forecast(&self, plan: &Plan) -> DrainForecast {
        let pace = self.pace();
        let lines = self.lines();
        let deadline = self.deadline(plan, pace);
        let spread = pace.spread(lines, plan.lines_per_second, deadline);
        let duration = if self.remaining() == 0 {
            Duration::ZERO
        } else {
            pace.duration(spread)
        };
        DrainForecast {
            lines,
            lines_per_second: Pace::lines_per_second(lines, spread),
            duration_ms: millis(duration),
            deadline_ms: millis(deadline),
            fits: duration <= deadline,
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

    fn counts(&self) -> Counts {
        let count = |cell: fn(&ShardCells) -> &Cell| total(&self.node.cells, cell);
        Counts {
            asked: count(|cells| &cells.drain_asked),
            gone: count(|cells| &cells.drain_gone),
            forced: count(|cells| &cells.drain_forced),
        }
    }

    fn pace(&self) -> Pace {
        let settings = self.node.settings.load();
        Pace {
            interval: settings.drain.interval,
            grace: settings.lifetime.goaway_grace,
        }
    }

    /// From the start of a drain to its end.
    fn deadline(&self, plan: &Plan, pace: Pace) -> Duration {
        let configured = || self.node.settings.load().drain.deadline;
        plan.deadline.unwrap_or_else(|| {
            plan.lines_per_second.map_or_else(configured, |rate| {
                pace.duration(Pace::spread_at(self.lines(), rate))
            })
        })
    }

    /// Begins to drain and returns at once; a drain that has begun already goes on as it is.
    pub async fn begin(self: &Arc<Self>, plan: Plan) {
        let mut walk = self.walk.lock().await;
        if self.progress.borrow().state != DrainState::Serving {
            return;
        }
        self.leave_by(plan, false);
        let drain = Arc::clone(self);
        *walk = Some(tokio::spawn(async move { drain.walk().await }));
    }

    /// Drains the node for good, in the configured time even if the API gave more; returns when no line is left, by
    /// the deadline at the latest.
    pub async fn run(&self) {
        {
            let mut walk = self.walk.lock().await;
            let url = self.progress.borrow().plan.url.clone();
            let plan = Plan {
                url,
                ..Plan::default()
            };
            self.leave_by(plan, true);
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
    fn leave_by(&self, plan: Plan, is_final: bool) {
        // Relaxed, as all flags of the node: each guards nothing but itself.
        self.node.is_unready.store(true, Ordering::Relaxed);
        let deadline = self.deadline(&plan, self.pace());
        let (now, wall) = (Instant::now(), wall());
        self.progress.send_modify(|progress| {
            let begun = progress.times;
            progress.times = Some(Times {
                started: begun.map_or(now, |times| times.started),
                deadline: now + deadline,
                started_ms: begun.map_or_else(|| millis(wall), |times| times.started_ms),
                deadline_ms: millis(wall + deadline),
            });
            progress.state = progress.state.max(DrainState::Unready);
            progress.plan = plan;
            progress.is_final = is_final;
        });
    }

    /// The steps of a drain, from where it stands.
    async fn walk(&self) {
        let Some(times) = self.progress.borrow().times else {
            return;
        };
        // Without lines and streams there is nobody to be polite to.
        if self.remaining() > 0 {
            sleep_until(times.started + self.pace().interval).await;
        }
        if !self.advance(DrainState::Leaving) {
            return;
        }
        self.node.is_draining.store(true, Ordering::Relaxed);
        let Some((order, deadline)) = self.begin_leaving() else {
            return;
        };
        self.tell_all(|| Command::Drain(Box::new(order.clone())))
            .await;
        tokio::select! {
            () = self.until_empty() => {}
            () = sleep_until(deadline) => self.force().await,
        }
        self.advance(DrainState::Drained);
    }

    /// Decides how fast lines are asked, by how many there are now.
    fn begin_leaving(&self) -> Option<(DrainOrder, Instant)> {
        let (now, wall) = (Instant::now(), wall());
        let (pace, lines, counts) = (self.pace(), self.lines(), self.counts());
        let mut begun = None;
        self.progress.send_modify(|progress| {
            let Some(times) = &mut progress.times else {
                return;
            };
            let rate = progress.plan.lines_per_second;
            if let (Some(rate), None) = (rate, progress.plan.deadline) {
                // Lines have come and gone since the drain was asked for.
                let left = pace.time_to_leave(Pace::spread_at(lines, rate));
                times.deadline = now + left;
                times.deadline_ms = millis(wall + left);
            }
            let deadline = times.deadline.saturating_duration_since(now);
            let spread = pace.spread(lines, rate, deadline + pace.interval);
            progress.leaving = Some(Leaving {
                lines,
                lines_per_second: Pace::lines_per_second(lines, spread),
                eta_ms: millis(wall + pace.time_to_leave(spread).min(deadline)),
                counts,
            });
            let order = DrainOrder {
                spread_ms: millis(spread),
                url: progress.plan.url.clone(),
            };
            begun = Some((order, times.deadline));
        });
        begun
    }

    /// Closes what is left.
    async fn force(&self) {
        if !self.advance(DrainState::Forcing) {
            return;
        }
        let lines = self.remaining();
        tracing::warn!(lines, "the drain's deadline passed; closing what is left");
        self.tell_all(|| Command::CloseLines).await;
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
