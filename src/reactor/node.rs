//! What all reactors of a node share. What every message needs is read without a lock; accounts, addresses and
//! idempotency keys have short ones, each for a part of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::base::id::{ConnId, ConnectionId, Location, NodeEpoch, ShardId};
use crate::metrics::NodeCells;
use crate::net::tls::policy::TlsCell;
use crate::reactor::idempotency::Window;
use crate::reactor::pressure::PressureGauge;
use crate::reactor::settings::Settings;
use crate::route::account::Accounts;
use crate::route::address::Addresses;
use crate::route::event::Feed;
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
    /// Which lines belong to an account.
    pub accounts: Accounts,
    /// What the reactors go by now.
    pub settings: ArcSwap<Settings>,
    /// How the listeners speak TLS.
    pub tls: TlsCell,
    /// What the shards count.
    pub cells: NodeCells,
    /// Requests that must not be carried out twice.
    pub window: Window,
    /// Sockets of devices, in every state, on all shards: what `limits.connections_max` bounds.
    pub sockets: AtomicU32,
    /// A drain has begun: no load balancer should send anybody here.
    pub is_unready: AtomicBool,
    /// The node is leaving: new connections are refused.
    pub is_draining: AtomicBool,
    /// Lines coming and going, for whoever subscribes.
    pub events: Feed,
    /// Reloads that failed and left the old settings in place.
    pub failed_reloads: AtomicU64,
    /// How short of memory the node is.
    pub pressure: PressureGauge,
    /// Where connections come from, while addresses are limited.
    pub addresses: Addresses,
}

impl Node {
    /// Gives back the place of a device's socket.
    pub(crate) fn dismiss(&self) {
        // Relaxed, as where the place is taken: the number guards nothing but itself.
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
