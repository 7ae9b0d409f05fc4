//! From the shards' feed to every subscriber, each event with its number.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::reactor::node::Node;
use crate::route::event::{Batch, Batches, Notice, Subscriber};

/// The subscribers of this node's connection events.
pub struct Hub {
    node: Arc<Node>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscribers: Vec<(u64, Box<dyn Subscriber>)>,
    /// Names of subscriptions, ever.
    subscriptions: u64,
    /// Events numbered, ever; missing ones count.
    numbered: u64,
    /// How often somebody was the only subscriber and left: what happened after that has no number.
    pauses: u64,
}

/// A subscription; dropping it ends it.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    hub: Weak<Hub>,
    id: u64,
    /// Where the node's numbering stood when it began.
    pub start: Position,
}

/// A place in the order of a node's events. Numbers count as long as somebody listens; a pause begins a new order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The order.
    pub order: u64,
    /// The last event before the place.
    pub number: u64,
}

impl Hub {
    /// The hub of a node. [`Self::run`] must be running for subscribers to hear anything.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node,
            state: Mutex::default(),
        })
    }

    /// Hands on what the shards hand over, as long as the node lives.
    pub async fn run(self: Arc<Self>, mut batches: Batches) {
        while let Some(batch) = batches.receive().await {
            self.state.lock().publish(batch);
        }
    }

    /// Adds a subscriber, unless there are `readers_max` already.
    pub fn subscribe(
        self: &Arc<Self>,
        subscriber: Box<dyn Subscriber>,
        readers_max: usize,
    ) -> Option<Subscription> {
        let mut state = self.state.lock();
        if state.subscribers.len() >= readers_max {
            return None;
        }
        state.subscriptions += 1;
        let id = state.subscriptions;
        state.subscribers.push((id, subscriber));
        self.node.events.set_readers(state.subscribers.len());
        Some(Subscription {
            hub: Arc::downgrade(self),
            id,
            start: Position {
                order: state.pauses,
                number: state.numbered,
            },
        })
    }

    fn unsubscribe(&self, id: u64) {
        let mut state = self.state.lock();
        state.subscribers.retain(|(other, _)| *other != id);
        if state.subscribers.is_empty() {
            state.pauses += 1;
        }
        self.node.events.set_readers(state.subscribers.len());
    }
}

impl State {
    fn publish(&mut self, batch: Batch) {
        if batch.missed > 0 {
            self.numbered += batch.missed;
            self.tell(&Notice::Missed(batch.missed, self.numbered));
        }
        for event in batch.events {
            self.numbered += 1;
            self.tell(&Notice::Happened(self.numbered, Arc::new(event)));
        }
    }

    fn tell(&mut self, notice: &Notice) {
        for (_, subscriber) in &mut self.subscribers {
            subscriber.receive(notice);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.unsubscribe(self.id);
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscribers = self.state.lock().subscribers.len();
        f.debug_struct("Hub")
            .field("subscribers", &subscribers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.id).finish()
    }
}
