//! The end of a simulated life: a drain that is taken back, and one that is not.

use rand::Rng as _;

use super::world::World;
use crate::base::close::CloseReason;
use crate::mailbox::command::{Command, DrainOrder};
use crate::metrics::total;

impl World {
    fn tell_all(&self, command: impl Fn() -> Command) {
        for post in &self.posts {
            post.post(command()).unwrap();
        }
    }

    /// A drain that is taken back: who was asked goes, and all others stay.
    pub(super) fn call_a_drain_back(&mut self) {
        let lines = |world: &Self| total(&world.node.cells, |cells| &cells.lines);
        let (before, asked_before) = (lines(self), self.asked());
        let order = DrainOrder {
            spread_ms: 2_000,
            url: None,
        };
        self.tell_all(|| Command::Drain(Box::new(order.clone())));
        for _ in 0..self.random.random_range(0..15) {
            self.step(100);
        }
        self.tell_all(|| Command::Resume);
        self.step(0);
        let streams_asked = self.streams_asked();
        let asked = self.asked() - asked_before;
        assert!(asked <= before, "{asked} of {before} were asked");
        for _ in 0..60 {
            self.step(100);
            assert!(
                self.streams_asked() <= streams_asked,
                "a stream was asked after it was called back"
            );
        }
        assert_eq!(
            self.asked() - asked_before,
            asked,
            "asked after it was called back"
        );
    }

    fn asked(&self) -> u64 {
        total(&self.node.cells, |cells| &cells.drain_asked)
    }

    /// Streams that were asked and are still there.
    fn streams_asked(&self) -> usize {
        let conns = self.shards.iter().flat_map(|shard| shard.arena.iter());
        conns
            .filter_map(|(_, conn)| conn.stream())
            .filter(|stream| stream.leaving == Some(CloseReason::Drain))
            .count()
    }

    pub(super) fn drain(&mut self) {
        let order = DrainOrder {
            spread_ms: 2_000,
            url: None,
        };
        self.tell_all(|| Command::Drain(Box::new(order.clone())));
        for _ in 0..90 {
            self.step(100);
        }
        assert_eq!(
            total(&self.node.cells, |cells| &cells.lines),
            0,
            "a line outlived the drain"
        );
        assert_eq!(
            total(&self.node.cells, |cells| &cells.streams),
            0,
            "a stream outlived the drain"
        );
        for post in &self.posts {
            post.post(Command::Stop(CloseReason::Shutdown)).unwrap();
        }
        for _ in 0..60 {
            self.step(100);
        }
    }
}
