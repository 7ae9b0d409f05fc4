//! What waits for one reader: a bounded queue that says where it had no room.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::reactor::node::Node;
use crate::route::event::{ConnectionEvent, Notice, Subscriber};

/// The events that wait for one reader.
#[derive(Debug)]
pub(crate) struct Queue {
    notices: Mutex<VecDeque<Notice>>,
    notices_max: usize,
    news: Notify,
}

/// The end of a queue that the hub fills: what its reader wants, as far as there is room.
#[derive(Debug)]
pub(crate) struct Inlet {
    queue: Arc<Queue>,
    interest: Interest,
    node: Arc<Node>,
}

/// Which events a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Only lines of this account.
    pub(crate) user_id: Option<String>,
    /// Only lines of this device.
    pub(crate) device_id: Option<String>,
}

impl Interest {
    fn covers(&self, event: &ConnectionEvent) -> bool {
        let is_user = self.user_id.is_none() || self.user_id.as_deref() == event.user_id.as_deref();
        let is_device = self
            .device_id
            .as_ref()
            .is_none_or(|device| **device == *event.device_id);
        is_user && is_device
    }
}

impl Queue {
    /// An empty queue for so many events.
    pub(crate) fn new(notices_max: usize) -> Arc<Self> {
        Arc::new(Self {
            notices: Mutex::default(),
            notices_max,
            news: Notify::new(),
        })
    }

    /// The end for the hub.
    pub(crate) fn inlet(self: &Arc<Self>, interest: Interest, node: Arc<Node>) -> Box<Inlet> {
        Box::new(Inlet {
            queue: Arc::clone(self),
            interest,
            node,
        })
    }

    /// Waits for what comes next. For one reader.
    pub(crate) async fn receive(&self) -> Notice {
        loop {
            let news = self.news.notified();
            if let Some(notice) = self.notices.lock().pop_front() {
                return notice;
            }
            news.await;
        }
    }

    /// Puts an event in, or notes at the end that one is missing; whether it had room.
    fn push(&self, number: u64, event: &Arc<ConnectionEvent>) -> bool {
        let mut notices = self.notices.lock();
        let has_room = notices.len() < self.notices_max;
        if has_room {
            notices.push_back(Notice::Happened(number, Arc::clone(event)));
        } else {
            note_missed(&mut notices, 1, number);
        }
        drop(notices);
        self.news.notify_one();
        has_room
    }
}

impl Subscriber for Inlet {
    fn receive(&mut self, notice: &Notice) {
        match notice {
            Notice::Happened(number, event) => {
                if self.interest.covers(event) && !self.queue.push(*number, event) {
                    self.node.events.count_missed_by_reader();
                }
            }
            // Whether they were of interest nobody can tell any more.
            Notice::Missed(count, number) => {
                note_missed(&mut self.queue.notices.lock(), *count, *number);
                self.queue.news.notify_one();
            }
        }
    }
}

/// Gaps beside each other are one, so a full queue grows by one notice and no further.
fn note_missed(notices: &mut VecDeque<Notice>, count: u64, number: u64) {
    if let Some(Notice::Missed(missed, last)) = notices.back_mut() {
        *missed += count;
        *last = number;
    } else {
        notices.push_back(Notice::Missed(count, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::Bench;
    use crate::base::id::{ConnId, ConnectionId, Location, ShardId};
    use crate::config::Config;
    use crate::route::event::Change;

    fn event(node: &Node, device: &str, user: Option<&str>) -> Arc<ConnectionEvent> {
        let conn = ConnId {
            slot: 0,
            generation: 0,
        };
        let location = Location {
            shard: ShardId(0),
            conn,
        };
        Arc::new(ConnectionEvent {
            change: Change::Opened,
            device_id: device.into(),
            user_id: user.map(Into::into),
            connection_id: ConnectionId {
                epoch: node.epoch,
                location,
            },
            generation: 1,
            at_ms: 0,
        })
    }

    async fn numbers(queue: &Queue, count: usize) -> Vec<(bool, u64)> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(match queue.receive().await {
                Notice::Happened(number, _) => (true, number),
                Notice::Missed(count, _) => (false, count),
            });
        }
        numbers
    }

    #[tokio::test]
    async fn a_reader_is_told_where_and_how_much_it_missed() {
        let node = Arc::clone(&Bench::new(&Config::default()).control.node);
        let queue = Queue::new(2);
        let mut inlet = queue.inlet(Interest::default(), Arc::clone(&node));
        let mut tell = |number| {
            inlet.receive(&Notice::Happened(number, event(&node, "tv-1", None)));
        };
        (1..=5).for_each(&mut tell);
        assert_eq!(numbers(&queue, 2).await, [(true, 1), (true, 2)]);
        // Room again behind the gap.
        (6..=9).for_each(&mut tell);
        assert_eq!(
            numbers(&queue, 3).await,
            [(false, 3), (true, 6), (false, 3)]
        );
        assert_eq!(node.events.missed_by_readers(), 6);
        assert!(queue.notices.lock().is_empty());
    }

    #[tokio::test]
    async fn gaps_of_the_shards_are_told_to_everybody() {
        let node = Arc::clone(&Bench::new(&Config::default()).control.node);
        let queue = Queue::new(1);
        let interest = Interest {
            user_id: Some("ann".into()),
            device_id: Some("tv-1".into()),
        };
        let mut inlet = queue.inlet(interest, Arc::clone(&node));
        for (device, user) in [("tv-1", None), ("tv-2", Some("ann")), ("tv-1", Some("bob"))] {
            inlet.receive(&Notice::Happened(1, event(&node, device, user)));
        }
        inlet.receive(&Notice::Missed(7, 8));
        inlet.receive(&Notice::Missed(1, 9));
        inlet.receive(&Notice::Happened(10, event(&node, "tv-1", Some("ann"))));
        assert_eq!(queue.receive().await, Notice::Missed(9, 10));
    }
}
