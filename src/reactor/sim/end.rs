//! The end of a life: a quiet time, a drain, and nothing left behind.

use std::sync::atomic::Ordering;

use super::world::{DEVICES, World};
use crate::metrics::total;

impl World {
    /// No more mishaps: whoever stalled reads again; whoever vanished is found out by the heartbeat.
    pub(super) fn calm_down(&mut self) {
        for line in self.lines.values_mut() {
            line.is_stalled = false;
        }
        for _ in 0..150 {
            self.step(100);
        }
        assert!(
            self.lines.values().all(|line| !line.is_vanished),
            "the heartbeat did not find a vanished device out"
        );
        assert!(
            self.waiting.is_empty(),
            "somebody waits longer than their patience"
        );
    }

    /// A life leaves nothing behind.
    pub(super) fn check_nothing_left(&self) {
        for shard in &self.shards {
            assert!(shard.is_done(), "a connection is left");
            assert_eq!(shard.api.waiters.len(), 0, "a waiter is left");
            assert_eq!(shard.requests.len(), 0, "a request is left");
            assert_eq!(shard.allowances.len(), 0, "an allowance is left");
            assert_eq!(shard.order.len(), 0, "a message is on its way");
            assert!(shard.fanouts.is_empty(), "a message to an account is left");
            assert!(shard.watches.is_empty(), "a watch is left");
        }
        for device in 0..DEVICES {
            let presence = &self.node.presence;
            let found = presence.lookup(presence.fingerprint(format!("d-{device}").as_bytes()));
            assert_eq!(
                found.into_iter().count(),
                0,
                "d-{device} is left in presence"
            );
        }
        assert!(
            self.node.accounts.is_empty(),
            "a line is left in its account"
        );
        assert_eq!(self.node.accounts.watched(), 0, "a watch is left");
        let cells = &self.node.cells;
        let left = |name, number: fn(&crate::metrics::ShardCells) -> &crate::metrics::Cell| {
            assert_eq!(total(cells, number), 0, "{name}");
        };
        left("handshakes", |cells| &cells.handshakes);
        left("watches", |cells| &cells.watches);
        left("undelivered", |cells| &cells.undelivered);
        left("unacknowledged", |cells| &cells.unacked);
        left("outbox bytes", |cells| &cells.outbox_bytes);
        assert_eq!(self.node.sockets.load(Ordering::Relaxed), 0, "sockets");
        assert!(self.node.addresses.is_empty(), "an address is left");
        for shard in &self.shards {
            assert!(shard.wheel.is_empty(), "a timer is left");
        }
    }
}
