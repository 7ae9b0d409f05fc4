//! What all reactors of a node share. Everything in it is read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;

use crate::base::id::{ConnId, ConnectionId, Location, NodeEpoch, ShardId};
use crate::metrics::NodeCells;
use crate::reactor::settings::Settings;
use crate::route::presence::Presence;

/// One server process of the fleet, as its reactors see it.
#[derive(Debug)]
pub struct Node {
    /// The node's id.
    pub id: Arc<str>,
    /// What tells this run of it from every other.
    pub epoch: NodeEpoch,
    /// Which devices are here.
    pub presence: Presence,
    /// What the reactors go by now.
    pub settings: ArcSwap<Settings>,
    /// What the shards count.
    pub cells: NodeCells,
    /// Sockets of devices, in every state, on all shards: what `limits.connections_max` bounds.
    pub sockets: AtomicU32,
    /// The node is leaving: new connections are refused.
    pub is_draining: AtomicBool,
}

impl Node {
    /// Takes a place for a device's socket; `false` when the node is full.
    pub(crate) fn admit(&self, sockets_max: u32) -> bool {
        // Relaxed: the number guards nothing but itself. Giving back what was too much keeps it exact.
        if self.sockets.fetch_add(1, Ordering::Relaxed) < sockets_max {
            return true;
        }
        self.dismiss();
        false
    }

    /// Gives a place back.
    pub(crate) fn dismiss(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// The public name of a connection of this run of the node.
    pub fn connection_id(&self, location: Location) -> ConnectionId {
        ConnectionId {
            epoch: self.epoch,
            location,
        }
    }

    /// The public name of a connection of one shard.
    pub(crate) fn connection_id_of(&self, shard: ShardId, conn: ConnId) -> ConnectionId {
        self.connection_id(Location { shard, conn })
    }
}
