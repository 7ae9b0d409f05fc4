//! Where a line may be on this node.

use crate::base::id::ShardId;

/// Where a line is on this node: what a presence word holds. The shard knows the slot's present occupant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The owning shard.
    pub shard: ShardId,
    /// The slot in its arena.
    pub slot: u32,
}

impl Place {
    /// How many shards a node may have.
    pub const SHARDS_MAX: u32 = 1 << 10;
    /// How many slots a shard may have.
    pub const SLOTS_MAX: u32 = 1 << Self::SLOT_BITS;

    const SLOT_BITS: u32 = 22;

    pub(crate) fn pack(self) -> u32 {
        debug_assert!(self.slot < Self::SLOTS_MAX && u32::from(self.shard.0) < Self::SHARDS_MAX);
        u32::from(self.shard.0) << Self::SLOT_BITS | self.slot
    }

    pub(crate) fn unpack(packed: u32) -> Self {
        Self {
            shard: ShardId((packed >> Self::SLOT_BITS) as u16),
            slot: packed & (Self::SLOTS_MAX - 1),
        }
    }
}

const _: () = assert!(Place::SHARDS_MAX as u64 * Place::SLOTS_MAX as u64 == 1 << 32);

/// The places a lookup found, without an allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    packed: [u32; Self::MAX],
    len: usize,
}

impl Candidates {
    /// How many are kept. More lines of one device than this stand side by side only while it floods the node, and
    /// each claim replaces those it sees.
    pub const MAX: usize = 8;

    /// Whether the device is nowhere here.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place to try next.
    pub fn last(&self) -> Option<Place> {
        let at = self.len.checked_sub(1)?;
        Some(Place::unpack(self.packed[at]))
    }

    /// Takes the place to try next off the list.
    pub fn pop(&mut self) -> Option<Place> {
        let place = self.last()?;
        self.len -= 1;
        Some(place)
    }

    /// The places, nearest to the device's home first.
    pub fn iter(&self) -> impl Iterator<Item = Place> {
        self.into_iter()
    }

    /// Appends a place that is not there yet, if there is room.
    pub(crate) fn push(&mut self, place: Place) {
        if self.len < Self::MAX && self.position(place).is_none() {
            self.packed[self.len] = place.pack();
            self.len += 1;
        }
    }

    pub(crate) fn position(&self, place: Place) -> Option<usize> {
        let packed = place.pack();
        self.packed[..self.len]
            .iter()
            .position(|&other| other == packed)
    }
}

impl IntoIterator for Candidates {
    type Item = Place;
    type IntoIter =
        std::iter::Map<std::iter::Take<std::array::IntoIter<u32, { Self::MAX }>>, fn(u32) -> Place>;

    fn into_iter(self) -> Self::IntoIter {
        self.packed.into_iter().take(self.len).map(Place::unpack)
    }
}
