//! The connection table: values in slots, their two deadlines in dense arrays beside them.
//!
//! A heartbeat timer per line would cost a relink at every frame. Here traffic stores one `u32`, and a sweep that
//! reads nothing but two `u32` per slot finds who is due: about 0.2 ms for a full pass over a million lines.

use std::ops::Range;
use std::{fmt, iter};

use super::id::ConnId;
use super::time::Tick;

/// Values addressed by generational ids, with the two moments of each at which the owner must look at it.
///
/// Memory grows by pages of `PAGE_SLOTS` that never move, so growing copies no value. Freed slots are reused
/// oldest first: an id that went stale keeps missing for as long as the table can make it.
pub struct Arena<T> {
    pages: Vec<Page<T>>,
    slots_max: u32,
    /// Slots ever used; every slot from here on is untouched.
    slots: u32,
    len: u32,
    /// The longest-free and the latest-freed slot; meaningless while `len` equals `slots`.
    free_first: u32,
    free_last: u32,
}

impl<T> Arena<T> {
    /// An empty table for at most `slots_max` values. Nothing is allocated before the first insert.
    pub const fn new(slots_max: u32) -> Self {
        Self {
            pages: Vec::new(),
            slots_max,
            slots: 0,
            len: 0,
            free_first: NONE,
            free_last: NONE,
        }
    }

    /// Puts a value into the slot that has been free for longest, with both moments at [`Tick::NEVER`].
    ///
    /// # Errors
    ///
    /// Hands the value back when `slots_max` values are in the table.
    pub fn insert(&mut self, value: T) -> Result<ConnId, T> {
        let Some(slot) = self.take_free_slot() else {
            return Err(value);
        };
        let (page, cell) = self.cell_mut(slot);
        page.slots[cell] = Slot::Live(value);
        let generation = page.generation[cell];
        self.len += 1;
        Ok(ConnId { slot, generation })
    }

    /// Takes a value out; its id, and every copy of it, misses from now on.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        if !self.contains(id) {
            return None;
        }
        let (page, cell) = self.cell_mut(id.slot);
        page.due[cell] = Tick::NEVER;
        page.leave[cell] = Tick::NEVER;
        page.generation[cell] = id.generation.wrapping_add(1);
        let vacated = std::mem::replace(&mut page.slots[cell], Slot::Free { next: NONE });
        self.give_free_slot(id.slot);
        self.len -= 1;
        match vacated {
            Slot::Live(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// Whether the id still names a value.
    pub fn contains(&self, id: ConnId) -> bool {
        self.id_at(id.slot) == Some(id)
    }

    /// The value, unless the id is stale.
    pub fn get(&self, id: ConnId) -> Option<&T> {
        let (page, cell) = self.cell(id.slot)?;
        let Slot::Live(value) = &page.slots[cell] else {
            return None;
        };
        (page.generation[cell] == id.generation).then_some(value)
    }

    /// The value, to change, unless the id is stale.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        if id.slot >= self.slots {
            return None;
        }
        let (page, cell) = self.cell_mut(id.slot);
        let Slot::Live(value) = &mut page.slots[cell] else {
            return None;
        };
        (page.generation[cell] == id.generation).then_some(value)
    }

    /// The id of the slot's present occupant, if it has one.
    pub fn id_at(&self, slot: u32) -> Option<ConnId> {
        let (page, cell) = self.cell(slot)?;
        let generation = page.generation[cell];
        matches!(page.slots[cell], Slot::Live(_)).then_some(ConnId { slot, generation })
    }

    /// How many values are in the table.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether the table holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many slots were ever used: the end of every sweep and iteration. Never shrinks.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The next moment at which the heartbeat must look at the value; [`Tick::NEVER`] when none was set.
    pub fn due(&self, slot: u32) -> Tick {
        self.cell(slot)
            .map_or(Tick::NEVER, |(page, cell)| page.due[cell])
    }

    /// Sets when the heartbeat must look next: one store, made at every sign of life. The slot must be occupied.
    pub fn set_due(&mut self, slot: u32, due: Tick) {
        debug_assert!(self.id_at(slot).is_some(), "a free slot is never due");
        let (page, cell) = self.cell_mut(slot);
        page.due[cell] = due;
    }

    /// When the value must leave, whatever it does; [`Tick::NEVER`] when it may stay.
    pub fn leave(&self, slot: u32) -> Tick {
        self.cell(slot)
            .map_or(Tick::NEVER, |(page, cell)| page.leave[cell])
    }

    /// Sets when the value must leave. The slot must be occupied.
    pub fn set_leave(&mut self, slot: u32, leave: Tick) {
        debug_assert!(self.id_at(slot).is_some(), "a free slot never leaves");
        let (page, cell) = self.cell_mut(slot);
        page.leave[cell] = leave;
    }

    /// Every value with its id, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.iter_from(0)
    }

    /// Every value from the given slot on: how a long walk is continued where it was left.
    pub fn iter_from(&self, slot: u32) -> impl Iterator<Item = (ConnId, &T)> {
        (slot..self.slots).filter_map(|slot| {
            let id = self.id_at(slot)?;
            Some((id, self.get(id)?))
        })
    }

    /// Appends to `found` everyone in the given slots who is due or must leave at `now`.
    ///
    /// They stay due until their moments are set anew. The range may reach past [`Self::slots`].
    pub fn sweep(&self, slots: Range<u32>, now: Tick, found: &mut Vec<ConnId>) {
        let end = slots.end.min(self.slots);
        let mut start = slots.start;
        while start < end {
            let page_end = end.min((start / PAGE_SLOTS + 1) * PAGE_SLOTS);
            self.sweep_page(start..page_end, now, found);
            start = page_end;
        }
    }

    /// Sweeps slots that all lie in one page.
    fn sweep_page(&self, slots: Range<u32>, now: Tick, found: &mut Vec<ConnId>) {
        let Some((page, first)) = self.cell(slots.start) else {
            return;
        };
        let cells = first..first + slots.len();
        let (due, leave) = (&page.due[cells.clone()], &page.leave[cells]);
        let (due_blocks, due_rest) = due.as_chunks::<BLOCK>();
        let (leave_blocks, leave_rest) = leave.as_chunks::<BLOCK>();
        let mut start = slots.start;
        for (due, leave) in due_blocks.iter().zip(leave_blocks) {
            if !is_everyone_later(due, leave, now) {
                self.collect_reached(start, due, leave, now, found);
            }
            start += BLOCK_SLOTS;
        }
        self.collect_reached(start, due_rest, leave_rest, now, found);
    }

    /// Looks at the slots from `start` on one by one.
    fn collect_reached(
        &self,
        start: u32,
        due: &[Tick],
        leave: &[Tick],
        now: Tick,
        found: &mut Vec<ConnId>,
    ) {
        for (slot, (due, leave)) in (start..).zip(due.iter().zip(leave)) {
            if *due <= now || *leave <= now {
                found.extend(self.id_at(slot));
            }
        }
    }

    /// The longest-free slot, or a fresh one; `None` when the table is full.
    fn take_free_slot(&mut self) -> Option<u32> {
        if self.len == self.slots {
            return self.take_fresh_slot();
        }
        let slot = self.free_first;
        let (page, cell) = self.cell_mut(slot);
        if let Slot::Free { next } = page.slots[cell] {
            self.free_first = next;
        }
        Some(slot)
    }

    fn take_fresh_slot(&mut self) -> Option<u32> {
        let slot = self.slots;
        if slot == self.slots_max {
            return None;
        }
        if slot.is_multiple_of(PAGE_SLOTS) {
            self.pages.push(Page::new());
        }
        self.slots += 1;
        Some(slot)
    }

    /// Appends a slot that was just vacated, and still counts as occupied, to the free ones.
    fn give_free_slot(&mut self, slot: u32) {
        if self.len == self.slots {
            self.free_first = slot;
        } else {
            let (page, cell) = self.cell_mut(self.free_last);
            page.slots[cell] = Slot::Free { next: slot };
        }
        self.free_last = slot;
    }

    /// The page and the index within it of a slot that was ever used.
    fn cell(&self, slot: u32) -> Option<(&Page<T>, usize)> {
        let page = (slot < self.slots).then(|| &self.pages[(slot / PAGE_SLOTS) as usize])?;
        Some((page, (slot % PAGE_SLOTS) as usize))
    }

    fn cell_mut(&mut self, slot: u32) -> (&mut Page<T>, usize) {
        let page = &mut self.pages[(slot / PAGE_SLOTS) as usize];
        (page, (slot % PAGE_SLOTS) as usize)
    }
}

impl<T> fmt::Debug for Arena<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.len)
            .field("slots", &self.slots)
            .field("slots_max", &self.slots_max)
            .finish_non_exhaustive()
    }
}

/// Dense arrays, so that a sweep reads 8 bytes per slot whatever a value weighs. Each is an allocation of its own: in one
/// struct they would be rounded up to the allocator's next class, 4 bytes per slot, and be made on the stack first, which
/// costs every thread 230 KB of stack for good.
struct Page<T> {
    due: Box<[Tick]>,
    leave: Box<[Tick]>,
    generation: Box<[u32]>,
    slots: Box<[Slot<T>]>,
}

impl<T> Page<T> {
    fn new() -> Self {
        Self {
            due: filled(|| Tick::NEVER),
            leave: filled(|| Tick::NEVER),
            generation: filled(|| 0),
            slots: filled(|| Slot::Free { next: NONE }),
        }
    }
}

fn filled<V>(value: impl FnMut() -> V) -> Box<[V]> {
    iter::repeat_with(value).take(PAGE_SLOTS as usize).collect()
}

/// The list of free slots is threaded through the room of the values that left, so it costs nothing.
enum Slot<T> {
    Live(T),
    Free { next: u32 },
}

/// Whether nobody in the block is due. A known length and no branches: it compiles to vector compares.
fn is_everyone_later(due: &[Tick; BLOCK], leave: &[Tick; BLOCK], now: Tick) -> bool {
    let moments = due.iter().zip(leave);
    moments.fold(true, |all, (due, leave)| {
        all & (due.0 > now.0) & (leave.0 > now.0)
    })
}

/// Slots per page: what the first connection of a reactor costs, and what growing allocates at once.
const PAGE_SLOTS: u32 = 1024;

/// Slots a sweep compares before it looks for a hit among them.
const BLOCK_SLOTS: u32 = 64;
const BLOCK: usize = BLOCK_SLOTS as usize;

/// The end of the free list.
const NONE: u32 = u32::MAX;

/// A slot costs its value and 12 bytes; a value with a niche, as one holding a box or an enum, pays no tag.
const _: () = {
    type Value = (Box<u8>, u64);
    assert!(size_of::<Slot<Value>>() == size_of::<Value>());
};

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;
    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    impl<T> Arena<T> {
        /// Every free slot is on the list once and looks like never to the sweep.
        fn check_invariants(&self) {
            assert!(self.len <= self.slots && self.slots <= self.slots_max);
            let live = (0..self.slots).filter(|&slot| self.id_at(slot).is_some());
            assert_eq!(live.count(), self.len as usize);
            let mut slot = self.free_first;
            for left in (0..self.slots - self.len).rev() {
                let (page, cell) = self.cell(slot).unwrap();
                assert_eq!(
                    (page.due[cell], page.leave[cell]),
                    (Tick::NEVER, Tick::NEVER)
                );
                let Slot::Free { next } = page.slots[cell] else {
                    panic!("slot {slot} is on the free list and occupied");
                };
                assert_eq!(slot == self.free_last, left == 0);
                slot = next;
            }
        }
    }

    #[test]
    fn a_stale_id_misses() {
        let mut arena = Arena::new(1);
        let old = arena.insert("old").unwrap();
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new").unwrap();
        assert_eq!(old.slot, new.slot);
        assert!(!arena.contains(old));
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.get_mut(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.get(new), Some(&"new"));
    }

    #[test]
    fn generations_wrap() {
        let mut arena = Arena::new(1);
        let id = arena.insert(()).unwrap();
        arena.pages[0].generation[0] = u32::MAX;
        let last = ConnId {
            generation: u32::MAX,
            ..id
        };
        assert_eq!(arena.remove(last), Some(()));
        assert_eq!(
            arena.insert(()),
            Ok(ConnId {
                generation: 0,
                ..id
            })
        );
    }

    #[test]
    fn free_slots_are_reused_oldest_first() {
        let mut arena = Arena::new(8);
        let ids: Vec<_> = (0..4).map(|i| arena.insert(i).unwrap()).collect();
        for i in [2, 0, 3] {
            arena.remove(ids[i]);
        }
        let reused: Vec<_> = (0..4).map(|i| arena.insert(i).unwrap().slot).collect();
        assert_eq!(reused, [2, 0, 3, 4]);
    }

    #[test]
    fn a_full_arena_gives_the_value_back() {
        let mut arena = Arena::new(2);
        let first = arena.insert('a').unwrap();
        arena.insert('b').unwrap();
        assert_eq!(arena.insert('c'), Err('c'));
        arena.remove(first);
        assert!(arena.insert('c').is_ok());
        assert_eq!(Arena::new(0).insert('a'), Err('a'));
    }

    #[test]
    fn a_new_tenant_inherits_no_moment() {
        let mut arena = Arena::new(1);
        let id = arena.insert(()).unwrap();
        arena.set_due(id.slot, Tick(1));
        arena.set_leave(id.slot, Tick(2));
        arena.remove(id);
        let mut found = Vec::new();
        arena.sweep(0..1, Tick(9), &mut found);
        assert_eq!(found, []);
        arena.insert(()).unwrap();
        assert_eq!((arena.due(0), arena.leave(0)), (Tick::NEVER, Tick::NEVER));
    }

    #[test]
    fn a_sweep_takes_any_range_across_pages() {
        let mut arena = Arena::new(3 * PAGE_SLOTS);
        let ids: Vec<_> = (0..2 * PAGE_SLOTS + 5)
            .map(|i| arena.insert(i).unwrap())
            .collect();
        for &id in &ids {
            arena.set_due(id.slot, Tick(5));
        }
        for range in [
            0..0,
            1..2,
            1000..1100,
            1023..2049,
            2040..u32::MAX,
            9999..u32::MAX,
        ] {
            let mut found = Vec::new();
            arena.sweep(range.clone(), Tick(5), &mut found);
            let expected = ids.iter().filter(|id| range.contains(&id.slot));
            assert!(found.iter().eq(expected), "{range:?}");
        }
    }

    #[test]
    fn random_operations_agree_with_a_map() {
        let mut rng = seed::rng();
        let slots_max = rng.random_range(1..3 * PAGE_SLOTS);
        let mut arena = Arena::new(slots_max);
        let mut twin: HashMap<ConnId, (u32, Tick, Tick)> = HashMap::new();
        let mut ids = Vec::new();
        for value in 0..20_000 {
            match rng.random_range(0..8) {
                0..3 => match arena.insert(value) {
                    Ok(id) => {
                        assert_eq!(twin.insert(id, (value, Tick::NEVER, Tick::NEVER)), None);
                        ids.push(id);
                    }
                    Err(value) => assert_eq!((twin.len(), value), (slots_max as usize, value)),
                },
                3..5 if !ids.is_empty() => {
                    let id = ids[rng.random_range(0..ids.len())];
                    assert_eq!(arena.remove(id), twin.remove(&id).map(|(value, ..)| value));
                }
                5..7 if !ids.is_empty() => {
                    let id = ids[rng.random_range(0..ids.len())];
                    assert_eq!(arena.get(id), twin.get(&id).map(|(value, ..)| value));
                    if let Some((_, due, leave)) = twin.get_mut(&id) {
                        (*due, *leave) = (
                            Tick(rng.random_range(0..200)),
                            Tick(rng.random_range(0..200)),
                        );
                        arena.set_due(id.slot, *due);
                        arena.set_leave(id.slot, *leave);
                    }
                }
                _ => {
                    let start = rng.random_range(0..slots_max);
                    let slots = start..start + rng.random_range(0..PAGE_SLOTS);
                    let now = Tick(rng.random_range(0..200));
                    let mut found = Vec::new();
                    arena.sweep(slots.clone(), now, &mut found);
                    let is_reached = |id: &ConnId| {
                        let moments = twin.get(id).filter(|_| slots.contains(&id.slot));
                        moments.is_some_and(|&(_, due, leave)| due <= now || leave <= now)
                    };
                    let mut expected: Vec<_> = twin.keys().copied().filter(is_reached).collect();
                    expected.sort_unstable();
                    assert_eq!(found, expected);
                }
            }
            assert_eq!(arena.len() as usize, twin.len());
        }
        arena.check_invariants();
        assert!(arena.iter().all(|(id, value)| twin[&id].0 == *value));
        assert_eq!(arena.iter().count(), twin.len());
    }
}
