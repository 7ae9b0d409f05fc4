//! Broadcasts in a simulated life: each line hears each at most once and in order, and every line that was there is
//! accounted for.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use rand::Rng as _;

use super::world::{SHARDS, World};
use crate::base::id::{MessageId, ShardId};
use crate::mailbox::broadcast::{Broadcast, Standing};
use crate::mailbox::command::Completion;
use crate::metrics::{BroadcastEnding, total};
use crate::wire::broadcast::Audience;
use crate::wire::payload::Payload;

/// The broadcasts of a life.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    begun: Vec<Arc<Standing>>,
    /// The last one that each connection heard.
    last: HashMap<u64, u64>,
    /// How many heard each.
    heard: HashMap<u64, usize>,
}

impl Broadcasts {
    /// A line has heard a broadcast.
    pub(super) fn hear(&mut self, broadcast: u64, line: u64) {
        let last = self.last.insert(line, broadcast);
        assert!(
            last.is_none_or(|last| last < broadcast),
            "line {line} heard broadcast {broadcast} after {last:?}"
        );
        *self.heard.entry(broadcast).or_default() += 1;
    }

    pub(super) fn heard(&self) -> usize {
        self.heard.values().sum()
    }
}

impl World {
    /// A back end broadcasts, in haste or with patience, or changes its mind about the last one.
    pub(super) fn broadcast(&mut self) {
        if self.random.random_ratio(1, 5)
            && let Some(last) = self.broadcasts.begun.last()
        {
            return last.cancel();
        }
        let number = self.broadcasts.begun.len() as u64 + 1;
        let ttl_ms = self.random.random_ratio(1, 3).then_some(300);
        let id = MessageId::new(
            self.now.wall_ms,
            self.node.epoch,
            ShardId(SHARDS),
            u32::try_from(number).unwrap(),
        );
        let standing = Arc::new(Standing::new(
            id,
            u32::try_from(number).unwrap(),
            Audience::default(),
            ttl_ms.map(|ttl_ms| self.now.wall_ms + ttl_ms),
            usize::from(SHARDS),
        ));
        // Some are so long that few fit an outbox.
        let room = " ".repeat(self.random.random_range(0..50));
        let payload = Payload::from_plain(Bytes::from(format!(r#"{{"b":{number}{room}}}"#)));
        let broadcast = Arc::new(Broadcast::new(Arc::clone(&standing), "news", &payload));
        for post in &self.posts {
            post.post_completion(Completion::Broadcast(Arc::clone(&broadcast)));
        }
        self.broadcasts.begun.push(standing);
    }

    /// Every line that was there when a broadcast began had one ending with it.
    pub(super) fn check_broadcasts(&self) {
        let mut lines = 0;
        for standing in &self.broadcasts.begun {
            let number = standing.number;
            assert!(standing.is_ended(), "broadcast {number} goes on for ever");
            let endings = BroadcastEnding::ALL
                .map(|ending| standing.total(|shard| &shard.endings[ending as usize]));
            let (sum, all) = (endings.iter().sum::<u64>(), standing.total(|s| &s.lines));
            assert_eq!(sum, all, "broadcast {number}: {endings:?}");
            assert_eq!(standing.total(|shard| &shard.waiting), 0);
            let heard = self.broadcasts.heard.get(&u64::from(number));
            let written = endings[BroadcastEnding::Written as usize];
            assert!(heard.is_none_or(|&heard| heard as u64 <= written));
            lines += all;
        }
        let cells = &self.node.cells;
        assert_eq!(total(cells, |cells| &cells.broadcast_lines), lines);
        assert_eq!(total(cells, |cells| &cells.broadcast_waiting), 0);
        for shard in &self.shards {
            assert!(shard.broadcasts.is_empty(), "a broadcast is left");
        }
    }
}
