//! Where devices' connections come from, while addresses are limited.

use std::net::IpAddr;

use hashbrown::HashMap;

use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::reactor::shard::Shard;
use crate::route::address::{AddressKey, AddressLimits, Fading, Standing};

/// The addresses of a shard's connections, by slot. Empty while there is no limit, so that lines cost nothing more.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    keys: HashMap<u32, AddressKey>,
    fading: Fading,
}

impl<T: Transport> Shard<T> {
    /// Counts a connection for the address it comes from, if that is limited; tells how the address stands.
    pub(crate) fn weigh_source(&self, from: IpAddr, now: Now) -> Option<(AddressKey, Standing)> {
        let limits = &self.settings.limits;
        let bounds = AddressLimits {
            open_max: limits.connections_per_address,
            per_second_max: limits.connects_per_address,
        };
        let is_exempt = || {
            let networks = &limits.exempt_networks;
            networks.iter().any(|network| network.contains(&from))
        };
        if bounds.is_none() || is_exempt() {
            return None;
        }
        let key = AddressKey::of(from);
        Some((key, self.node.addresses.arrive(key, bounds, now.tick())))
    }

    /// Notes for whom a connection was counted.
    pub(crate) fn keep_source(&mut self, slot: u32, key: AddressKey) {
        self.sources.keys.insert(slot, key);
    }

    /// Counts a connection out that there was no room for.
    pub(crate) fn drop_source(&mut self, key: AddressKey, now: Now) {
        let fading = &mut self.sources.fading;
        self.node.addresses.leave(key, fading, now.tick());
    }

    /// Counts a connection out that has ended.
    pub(crate) fn discount_source(&mut self, slot: u32, now: Now) {
        if let Some(key) = self.sources.keys.remove(&slot) {
            self.drop_source(key, now);
        }
    }

    /// Forgets addresses that nobody comes from any more.
    pub(crate) fn forget_sources(&mut self, now: Now) {
        let fading = &mut self.sources.fading;
        self.node.addresses.forget(fading, now.tick());
    }
}
