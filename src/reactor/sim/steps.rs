//! A life step by step, for races that are not to be left to chance: one shard goes on while the others stand still.

use super::caller::Wish;
use super::world::World;
use crate::wire::api::Level;

impl World {
    /// Opens a line on a shard while the others stand still.
    pub(super) fn open_on(&mut self, shard: usize, device: usize) {
        self.connect_to(shard, device);
        let lines = |world: &Self| world.shards[shard].cells().lines.value();
        let before = lines(self);
        while lines(self) == before {
            self.turn(shard);
        }
        self.look();
    }

    pub(super) fn cut(&self, device: usize) {
        let number = self.newest[&device];
        self.lines[&number].wire.borrow_mut().cut();
    }

    /// Cuts a device's line, of which only its shard learns.
    pub(super) fn cut_on(&mut self, shard: usize, device: usize) {
        self.cut(device);
        self.turn(shard);
        self.look();
    }

    pub(super) fn turn(&mut self, shard: usize) {
        self.pass(50);
        self.iterate(shard);
    }

    pub(super) fn turns(&mut self, shards: &[usize]) {
        shards.iter().for_each(|shard| self.turn(*shard));
    }

    pub(super) fn send(&mut self, sender: usize, device: usize) {
        self.submit_one(sender, device, wish(Level::Written));
    }

    pub(super) fn come_to_rest(&mut self) {
        (0..10).for_each(|_| self.step(50));
    }
}

/// Nothing but a level.
pub(super) fn wish(wait: Level) -> Wish {
    Wish {
        wait,
        ttl_ms: None,
        key: None,
        is_bound: false,
    }
}
