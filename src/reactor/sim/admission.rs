//! Who may come in: limits of addresses and accounts, watched from outside at every step.

use std::net::{IpAddr, Ipv4Addr};

use hashbrown::{HashMap, HashSet};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::chat::account;
use super::wire::NodeEnd;
use super::world::World;
use crate::base::id::{Location, ShardId};
use crate::config::Config;
use crate::metrics::{Refusal, total};
use crate::protocol::upgrade::Door;
use crate::reactor::shard::conn_id;

impl World {
    /// A life in which, for some seeds, addresses or accounts have less room than their devices want.
    pub(super) fn with_limits(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(!seed);
        let mut config = Config::default();
        if random.random_ratio(1, 4) {
            config.limits.connections_per_address = random.random_range(2..5);
            config.limits.connects_per_address = random.random_range(0..4);
        }
        if random.random_ratio(1, 3) {
            config.limits.connections_per_account = random.random_range(1..3);
        }
        Self::configured(seed, config)
    }

    /// Brings a socket to a shard's door; tells where it is, if it was let in at all.
    pub(super) fn knock(
        &mut self,
        shard: usize,
        end: NodeEnd,
        from: IpAddr,
        door: Door,
    ) -> Option<Location> {
        let wire = end.0.clone();
        let now = self.now;
        let shard_id = ShardId(u16::try_from(shard).unwrap());
        let shard = &mut self.shards[shard];
        let is_device = door == Door::Devices;
        let source = is_device.then(|| shard.weigh_source(from, now)).flatten();
        shard.admit_socket(end, from, door, source, now);
        let token = wire.borrow().token?;
        let conn = conn_id(token);
        Some(Location {
            shard: shard_id,
            conn,
        })
    }

    /// No address and no account has more lines than it may.
    pub(super) fn check_limits(&self) {
        let limits = &self.shards[0].settings.limits;
        let (by_address, by_account) = (
            limits.connections_per_address as usize,
            limits.connections_per_account as usize,
        );
        let mut addresses: HashMap<IpAddr, usize> = HashMap::new();
        let mut accounts: HashMap<usize, HashSet<usize>> = HashMap::new();
        for device in self.open_devices() {
            *addresses.entry(address(device)).or_default() += 1;
            accounts.entry(account(device)).or_default().insert(device);
        }
        for (address, lines) in addresses.iter().filter(|_| by_address > 0) {
            assert!(*lines <= by_address, "{address} has {lines} lines");
        }
        for (account, devices) in accounts.iter().filter(|_| by_account > 0) {
            let here = devices.len();
            assert!(here <= by_account, "a-{account} has {here} devices");
        }
    }

    /// How many were refused for their address or their account.
    pub(super) fn turned_away(&self) -> [u64; 2] {
        [Refusal::AddressLimit, Refusal::AccountLimit]
            .map(|refusal| total(&self.node.cells, |cells| &cells.refused[refusal as usize]))
    }
}

/// Where a device connects from.
pub(super) fn address(device: usize) -> IpAddr {
    let last = u8::try_from(device % 3).unwrap();
    Ipv4Addr::new(10, 0, 0, last).into()
}
