//! Lines coming and going: from the shards, which see it, to whoever on this node wants to know.
//!
//! A shard hands over one batch per iteration and never waits: what does not fit is dropped, counted, and told to every
//! subscriber as a gap in its place. While nobody subscribes, nothing is built: an event costs a load of one number.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::base::close::CloseReason;
use crate::base::id::ConnectionId;

/// What happened to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// What it was.
    pub change: Change,
    /// The device at the far end.
    pub device_id: Box<str>,
    /// The account that owns the device, as the line's token says it now.
    pub user_id: Option<Box<str>>,
    /// The line.
    pub connection_id: ConnectionId,
    /// Which line of the device this is: the greatest holds it.
    pub generation: u64,
    /// When it happened, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The device was authenticated and holds this line.
    Opened,
    /// The line goes on under a new token, which may name another account.
    Renewed,
    /// The line ended.
    Closed(CloseReason),
}

impl Change {
    /// The word of the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Renewed => "renewed",
            Self::Closed(_) => "closed",
        }
    }
}

/// A port: a part of this process, or an adapter to another system, that wants to know of lines coming and going.
///
/// What a subscriber may rely on:
/// - The events of one line come in order: `Opened`, any number of `Renewed`, `Closed`.
/// - Two lines of one device may overlap, and on different shards the older one's end may come after the newer one's
///   beginning. Generations tell: a device is connected if, of the lines heard of, the one with the greatest generation
///   is open. A `Closed` with a smaller generation changes nothing.
/// - Nothing is lost in silence: a gap is told in the place where the events are missing, with their number.
/// - Events begin with the subscription. Whoever wants the whole picture subscribes first and reads the list of lines
///   then.
pub trait Subscriber: Send {
    /// Takes what is new. Called on the control plane for one subscriber after the other, so it must not block: what it
    /// cannot take it drops, and tells its own reader.
    fn receive(&mut self, notice: &Notice);
}

/// What a subscriber is told, with its number in the node's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An event.
    Happened(u64, Arc<ConnectionEvent>),
    /// So many events are missing here, the last of which had the number given.
    Missed(u64, u64),
}

/// What one shard hands over.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events that were dropped before these.
    pub missed: u64,
    /// In the order in which they happened.
    pub events: Vec<ConnectionEvent>,
}

/// The way from the shards to the control plane.
#[derive(Debug, Default)]
pub struct Feed {
    /// Events handed over that the control plane has not taken.
    waiting: Arc<AtomicUsize>,
    batches: OnceLock<mpsc::Sender<Batch>>,
    /// Subscribers now, and events they did not take in time: for metrics.
    readers: AtomicU64,
    missed_by_readers: AtomicU64,
}

/// The control plane's end of the feed.
#[derive(Debug)]
pub struct Batches {
    receiver: mpsc::Receiver<Batch>,
    waiting: Arc<AtomicUsize>,
}

impl Feed {
    /// The receiving end; `None` if it was taken before.
    pub fn open(&self) -> Option<Batches> {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        self.batches.set(sender).ok()?;
        let waiting = Arc::clone(&self.waiting);
        Some(Batches { receiver, waiting })
    }

    /// Whether anybody wants events. Shards ask before they build one.
    pub fn is_watched(&self) -> bool {
        // Relaxed: the number guards nothing but itself. Who subscribes hears of what happens from about then on.
        self.readers() > 0
    }

    /// Notes how many subscribers there are.
    pub fn set_readers(&self, readers: usize) {
        self.readers.store(readers as u64, Ordering::Relaxed);
    }

    /// Subscribers now.
    pub fn readers(&self) -> u64 {
        self.readers.load(Ordering::Relaxed)
    }

    /// Counts an event that a subscriber's reader was too slow for.
    pub fn count_missed_by_reader(&self) {
        self.missed_by_readers.fetch_add(1, Ordering::Relaxed);
    }

    /// Events that readers were too slow for, since the start.
    pub fn missed_by_readers(&self) -> u64 {
        self.missed_by_readers.load(Ordering::Relaxed)
    }

    /// Hands a batch over without waiting.
    ///
    /// # Errors
    /// Hands it back when the control plane is too far behind.
    pub fn publish(&self, batch: Batch) -> Result<(), Batch> {
        let Some(batches) = self.batches.get() else {
            return Ok(());
        };
        let count = batch.events.len();
        // Relaxed: a bound on memory, exact to within what the shards hand over at the same moment.
        if self.waiting.fetch_add(count, Ordering::Relaxed) + count > EVENTS_WAITING_MAX {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            return Err(batch);
        }
        batches.try_send(batch).map_err(|error| {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            error.into_inner()
        })
    }
}

impl Batches {
    /// The next batch; `None` when the node is gone.
    pub async fn receive(&mut self) -> Option<Batch> {
        let batch = self.receiver.recv().await?;
        self.waiting
            .fetch_sub(batch.events.len(), Ordering::Relaxed);
        Some(batch)
    }
}

/// Batches of all shards that may wait: some thousand iterations' worth.
const BATCHES_WAITING_MAX: usize = 1_024;
/// Events of all shards that may wait, some 10 MB of them. A million lines that end at once are more.
const EVENTS_WAITING_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, Location, NodeEpoch, ShardId};

    fn batch(count: usize) -> Batch {
        let event = ConnectionEvent {
            change: Change::Opened,
            device_id: "tv-1".into(),
            user_id: None,
            connection_id: ConnectionId {
                epoch: NodeEpoch { node: 1, boot: 2 },
                location: Location {
                    shard: ShardId(0),
                    conn: ConnId {
                        slot: 0,
                        generation: 0,
                    },
                },
            },
            generation: 1,
            at_ms: 0,
        };
        Batch {
            missed: 0,
            events: vec![event; count],
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_events_and_in_batches() {
        let feed = Feed::default();
        let mut batches = feed.open().unwrap();
        assert!(feed.open().is_none(), "the end is taken");
        assert!(feed.publish(batch(EVENTS_WAITING_MAX)).is_ok());
        assert_eq!(feed.publish(batch(1)).unwrap_err().events.len(), 1);
        assert_eq!(
            batches.receive().await.unwrap().events.len(),
            EVENTS_WAITING_MAX
        );
        for _ in 0..BATCHES_WAITING_MAX {
            assert!(feed.publish(batch(1)).is_ok());
        }
        assert!(feed.publish(batch(1)).is_err());
        assert_eq!(feed.waiting.load(Ordering::Relaxed), BATCHES_WAITING_MAX);
    }

    #[test]
    fn a_feed_that_nobody_took_up_takes_everything() {
        let feed = Feed::default();
        assert!(feed.publish(batch(3)).is_ok());
        assert!(!feed.is_watched());
    }
}
