//! The waker of an API connection's task: a list on its own thread, a mailbox from any other.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use crate::base::id::{ConnId, ShardId};
use crate::mailbox::command::{Completion, Post};

/// Wakes the task of one API connection, at most once per poll.
pub(crate) struct TaskWaker {
    conn: ConnId,
    shard: ShardId,
    queued: AtomicBool,
    post: Post,
}

impl TaskWaker {
    /// Makes the waker for a connection of the shard that `post` leads to.
    pub(crate) fn new(conn: ConnId, shard: ShardId, post: Post) -> Arc<Self> {
        Arc::new(Self {
            conn,
            shard,
            queued: AtomicBool::new(false),
            post,
        })
    }

    /// The standard library's view of it.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// To be called before each poll: what happens from now on must queue the task again.
    pub(crate) fn begin_poll(&self) {
        // Pairs with the swap in `wake_by_ref`: a wake before this store is answered by the poll that follows it.
        self.queued.store(false, Ordering::SeqCst);
    }

    /// Whether it was woken since the poll began: another one follows.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::SeqCst)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let is_here = READY.with_borrow_mut(|ready| match ready {
            Some((shard, tasks)) if *shard == self.shard => {
                tasks.push(self.conn);
                true
            }
            _ => false,
        });
        if !is_here {
            self.post.post_completion(Completion::Wake(self.conn));
        }
    }
}

impl std::fmt::Debug for TaskWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskWaker")
            .field("conn", &self.conn)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// Says that the calling thread runs this shard from now on.
pub(crate) fn enter_shard(shard: ShardId) {
    READY.set(Some((shard, Vec::new())));
}

/// Takes the tasks that were woken on this thread.
pub(crate) fn take_ready(into: &mut Vec<ConnId>) {
    READY.with_borrow_mut(|ready| {
        if let Some((_, tasks)) = ready {
            into.append(tasks);
        }
    });
}

thread_local! {
    static READY: RefCell<Option<(ShardId, Vec<ConnId>)>> = const { RefCell::new(None) };
}
