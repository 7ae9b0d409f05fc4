//! Who holds a device: one line, the newest.

use hashbrown::HashMap;
use rand::Rng as _;

use super::world::World;
use crate::base::id::ShardId;
use crate::base::place::Place;
use crate::mailbox::command::{Completion, Replacement};

impl World {
    /// What two lines bring about that claim their device at the same moment, and here never do: each has seen the
    /// other, and so the older one asks the newer one to go as well.
    pub(super) fn race(&mut self) {
        let at = self.random.random_range(0..self.shards.len());
        let shard = &mut self.shards[at];
        let lines = shard.ids(|conn| conn.device().is_some());
        let Some(id) = lines.first() else {
            return;
        };
        let Some(device) = shard.arena.get(*id).and_then(|conn| conn.device()) else {
            return;
        };
        let replacement = Replacement {
            device_id: device.identity.device().into(),
            slot: id.slot,
            generation: device.generation - 1,
            by: Place {
                shard: ShardId(0),
                slot: 8_000,
            },
        };
        shard.handle_completion(Completion::Replace(Box::new(replacement)), self.now);
    }

    /// A line was told that a newer one of its device took over: there must be one.
    pub(super) fn check_replaced(&self, number: u64, device: usize) {
        let generation = |number: &u64| self.generations.get(number).copied();
        let Some(own) = generation(&number) else {
            return;
        };
        let mut others = self.connections[&device]
            .iter()
            .filter(|other| **other != number);
        // One that was never seen as a line may have been one for a moment.
        assert!(
            others.any(|other| generation(other).is_none_or(|other| other > own)),
            "connection {number} gave way to no newer one"
        );
    }

    /// Each device that is here has one line, and is found.
    pub(super) fn check_one_holder(&self) {
        let mut holders: HashMap<String, usize> = HashMap::new();
        for shard in &self.shards {
            for (id, conn) in shard.arena.iter() {
                let Some(device) = conn.device() else {
                    continue;
                };
                let name = device.identity.device();
                *holders.entry(name.to_owned()).or_default() += 1;
                let found = self
                    .node
                    .presence
                    .lookup(self.node.presence.fingerprint(name.as_bytes()));
                assert!(
                    found.into_iter().any(|at| at
                        == Place {
                            shard: shard.id,
                            slot: id.slot
                        }),
                    "{name} is open and not found"
                );
            }
        }
        assert!(
            holders.values().all(|count| *count == 1),
            "two lines of one device: {holders:?}"
        );
    }
}
