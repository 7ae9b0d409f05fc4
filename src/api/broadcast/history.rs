//! The broadcasts that a node remembers: those under way, and the last that have ended.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::clock::wall;
use crate::base::id::{MessageId, ShardId};
use crate::base::time::millis;
use crate::mailbox::broadcast::{Broadcast, Progress, Standing};
use crate::mailbox::command::{Completion, Post};
use crate::metrics::{BroadcastEnding, Cell};
use crate::reactor::idempotency::Digest;
use crate::reactor::node::Node;
use crate::reactor::pressure::Pressure;
use crate::wire::broadcast::{BroadcastRequest, BroadcastState, BroadcastStatus};
use crate::wire::error::ErrorCode;

/// The broadcasts of a node.
#[derive(Debug)]
pub struct History {
    node: Arc<Node>,
    posts: Vec<Post>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// Broadcasts ever begun.
    count: u32,
    /// When the last one was: a clock that is set back must not make an id come again.
    last_ms: u64,
}

/// A broadcast and what only the control plane knows of it.
#[derive(Debug)]
struct Entry {
    standing: Arc<Standing>,
    service: Arc<str>,
    started_ms: u64,
    /// Its idempotency key, and what was asked for with it.
    keyed: Option<(Digest, Digest)>,
}

/// What came of asking for a broadcast.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) status: BroadcastStatus,
    /// It had begun before, by the same request.
    pub(crate) is_replay: bool,
}

impl History {
    /// A node that has broadcast nothing.
    pub(crate) fn new(node: Arc<Node>, posts: Vec<Post>) -> Self {
        Self {
            node,
            posts,
            kept: Mutex::default(),
        }
    }

    /// Has all shards begin a broadcast.
    ///
    /// # Errors
    /// `overloaded` while as many are under way as may be, or memory is short; `idempotency_conflict` when the key was used
    /// for another one.
    pub(crate) fn begin(
        &self,
        service: &Arc<str>,
        request: &BroadcastRequest,
    ) -> Result<Begun, (ErrorCode, &'static str)> {
        let keyed = keyed(service, request);
        // The lock is held until all shards have been told, so that all begin broadcasts in the same order.
        let mut kept = self.kept.lock();
        if let Some(entry) = kept.by_key(keyed) {
            let is_same = entry.keyed == keyed;
            let cause = "the idempotency key was used for another broadcast";
            return is_same
                .then(|| Begun {
                    status: self.status_of(entry),
                    is_replay: true,
                })
                .ok_or((ErrorCode::IdempotencyConflict, cause));
        }
        let running = kept
            .entries
            .iter()
            .filter(|entry| !entry.standing.is_ended());
        let running_max = self.node.settings.load().broadcast.running_max;
        if running.count() >= running_max as usize {
            let cause = "as many broadcasts are under way as may be (broadcast.running_max)";
            return Err((ErrorCode::Overloaded, cause));
        }
        if self.node.pressure.level() >= Pressure::RefuseMessages {
            return Err((ErrorCode::Overloaded, "memory is short; try again"));
        }
        let entry = self.entry(&mut kept, service, request, keyed);
        let payload = &request.message.payload;
        let broadcast = Broadcast::new(Arc::clone(&entry.standing), service, payload);
        let broadcast = Arc::new(broadcast);
        for post in &self.posts {
            post.post_completion(Completion::Broadcast(Arc::clone(&broadcast)));
        }
        let status = self.status_of(&entry);
        kept.keep(entry);
        Ok(Begun {
            status,
            is_replay: false,
        })
    }

    fn entry(
        &self,
        kept: &mut Kept,
        service: &Arc<str>,
        request: &BroadcastRequest,
        keyed: Option<(Digest, Digest)>,
    ) -> Entry {
        kept.count = kept.count.wrapping_add(1);
        kept.last_ms = kept.last_ms.max(millis(wall()));
        let started_ms = kept.last_ms;
        // Its ids are those of a shard behind the last one.
        let shard = ShardId(u16::try_from(self.posts.len()).unwrap_or(u16::MAX));
        let id = MessageId::new(started_ms, self.node.epoch, shard, kept.count);
        let ttl_ms = request.message.ttl_ms;
        let standing = Standing::new(
            id,
            kept.count,
            request.audience.clone(),
            ttl_ms.map(|ttl_ms| started_ms.saturating_add(ttl_ms)),
            self.posts.len(),
        );
        Entry {
            standing: Arc::new(standing),
            service: Arc::clone(service),
            started_ms,
            keyed,
        }
    }

    /// How far a broadcast has come, if it is remembered.
    pub(crate) fn status(&self, id: MessageId) -> Option<BroadcastStatus> {
        let kept = self.kept.lock();
        kept.by_id(id).map(|entry| self.status_of(entry))
    }

    /// All that are remembered, the newest first.
    pub(crate) fn statuses(&self) -> Vec<BroadcastStatus> {
        let kept = self.kept.lock();
        let entries = kept.entries.iter().rev();
        entries.map(|entry| self.status_of(entry)).collect()
    }

    /// Has shards stop where they are, unless they are through.
    pub(crate) fn cancel(&self, id: MessageId) -> Option<BroadcastStatus> {
        let kept = self.kept.lock();
        let entry = kept.by_id(id)?;
        if !entry.standing.is_ended() {
            entry.standing.cancel();
        }
        Some(self.status_of(entry))
    }

    fn status_of(&self, entry: &Entry) -> BroadcastStatus {
        let standing = &entry.standing;
        let ended = |ending: BroadcastEnding| {
            standing.total(|shard: &Progress| -> &Cell { &shard.endings[ending as usize] })
        };
        // Read before the counts: once it says that all is over they do not change any more.
        let is_ended = standing.is_ended();
        let ends = standing.progress.iter().map(|shard| shard.ended_ms.value());
        BroadcastStatus {
            broadcast_id: standing.id.to_string(),
            node_id: self.node.id.to_string(),
            service: entry.service.to_string(),
            audience: standing.audience.clone(),
            state: entry.state(is_ended, ended(BroadcastEnding::Unreached)),
            started_ms: entry.started_ms,
            ended_ms: ends.max().filter(|_| is_ended),
            lines: standing.total(|shard| &shard.lines),
            written: ended(BroadcastEnding::Written),
            waiting: standing.total(|shard| &shard.waiting),
            slow: ended(BroadcastEnding::Slow),
            gone: ended(BroadcastEnding::Gone),
            unmatched: ended(BroadcastEnding::Unmatched),
            unreached: ended(BroadcastEnding::Unreached),
        }
    }
}

impl Entry {
    fn state(&self, is_ended: bool, unreached: u64) -> BroadcastState {
        if self.standing.is_cancelled() {
            BroadcastState::Cancelled
        } else if !is_ended {
            BroadcastState::Running
        } else if unreached > 0 {
            BroadcastState::Expired
        } else {
            BroadcastState::Done
        }
    }
}

impl Kept {
    fn by_id(&self, id: MessageId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.standing.id == id)
    }

    fn by_key(&self, keyed: Option<(Digest, Digest)>) -> Option<&Entry> {
        let (key, _) = keyed?;
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.keyed.is_some_and(|(other, _)| other == key))
    }

    /// Remembers one more, and forgets the oldest that has ended when there are too many.
    fn keep(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.entries.len() > KEPT_MAX
            && let Some(oldest) = self
                .entries
                .iter()
                .position(|entry| entry.standing.is_ended())
        {
            self.entries.remove(oldest);
        }
    }
}

/// The idempotency key of a request, which is its sender's own, and what is asked for with it.
fn keyed(service: &str, request: &BroadcastRequest) -> Option<(Digest, Digest)> {
    let key = request.message.idempotency_key.as_deref()?;
    // A struct of strings always serialises.
    let audience = serde_json::to_string(&request.audience).unwrap_or_default();
    let fingerprint = Digest::of_request(&audience, &request.message);
    Some((Digest::of_key(service, key), fingerprint))
}

/// Broadcasts that are remembered, with their idempotency keys.
const KEPT_MAX: usize = 64;
