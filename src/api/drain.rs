//! Leaving politely: readiness off, one load-balancer interval, go-aways spread over the time that is left, and only
//! then force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::base::close::CloseReason;
use crate::mailbox::command::{Command, Post};
use crate::metrics::total;
use crate::reactor::node::Node;

/// The node's way out.
#[derive(Debug)]
pub struct Drain {
    node: Arc<Node>,
    posts: Vec<Post>,
    /// Readiness: off from the first moment of a drain.
    is_leaving: AtomicBool,
}

impl Drain {
    /// A node that stays.
    pub fn new(node: Arc<Node>, posts: Vec<Post>) -> Self {
        Self {
            node,
            posts,
            is_leaving: AtomicBool::new(false),
        }
    }

    /// Whether the node is leaving, so that no load balancer should send it anybody.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Drains the node; returns when no line is left, by the deadline at the latest.
    #[expect(
        clippy::disallowed_methods,
        reason = "the control plane has its own clock"
    )]
    pub async fn run(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        if self.lines() == 0 {
            return;
        }
        let (times, grace) = {
            let settings = self.node.settings.load();
            (settings.drain.clone(), settings.lifetime.goaway_grace)
        };
        let deadline = Instant::now() + times.deadline;
        sleep(times.interval).await;
        self.node.is_draining.store(true, Ordering::Relaxed);
        // The last device that is asked must have its grace before the deadline.
        let spread = times.deadline.saturating_sub(times.interval + grace);
        let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.tell_all(|| Command::Drain { spread_ms }).await;
        tokio::select! {
            () = self.until_empty() => {}
            () = sleep_until(deadline) => {
                tracing::warn!(lines = self.lines(), "the drain's deadline passed; closing what is left");
                self.tell_all(|| Command::CloseLines(CloseReason::Drain)).await;
                // The close frames need a moment to leave.
                tokio::time::timeout(LAST_WORDS, self.until_empty()).await.ok();
            }
        }
    }

    /// Lines open now.
    pub fn lines(&self) -> u64 {
        total(&self.node.cells, |cells| &cells.lines)
    }

    async fn until_empty(&self) {
        while self.lines() > 0 {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Posts a command to every shard; one whose mailbox is full is tried again.
    async fn tell_all(&self, command: impl Fn() -> Command) {
        for post in &self.posts {
            while post.post(command()).is_err() {
                sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// How often the count of lines is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long close frames may take to leave at the very end.
const LAST_WORDS: Duration = Duration::from_secs(1);
