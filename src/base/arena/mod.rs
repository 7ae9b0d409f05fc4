//! The connection table: values in slots, their two deadlines in dense arrays beside them.
//!
//! A heartbeat timer per line would cost a relink at every frame. Here traffic stores one `u32`, and a sweep that
//! reads nothing but two `u32` per slot finds who is due: about 0.2 ms for a full pass over a million lines.

use std::ops::Range;
use std::{fmt, iter};

use crate::base::id::ConnId;
use crate::base::time::Tick;

/// Values addressed by generational ids, with the two moments of each at which the owner must look at it.
///
/// Memory grows by pages of `PAGE_SLOTS` that never move, so growing copies no value. Freed slots are reused
/// oldest first: an id that went stale keeps missing for as long as the table can make it.
///
/// What a storm took is given back by [`Self::trim`]: pages at the end of a table that has become too large are shut, which
/// means that their slots are not reused, and go when their last value has.
pub struct Arena<T> {
    pages: Vec<Page<T>>,
    slots_max: u32,
    /// The first pages, whose free slots are on the list; the others are shut.
    open: usize,
    /// Slots used; every slot from here on is untouched.
    slots: u32,
    len: u32,
    /// How many slots are on the list of free ones, the longest-free and the latest-freed of them.
    free: u32,
    free_first: u32,
    free_last: u32,
    /// Where the generations of a new page begin: past all that a page that was given back has seen.
    generation_first: u32,
}

impl<T> Arena<T> {
    /// An empty table for at most `slots_max` values. Nothing is allocated before the first insert.
    pub const fn new(slots_max: u32) -> Self {
        Self {
            pages: Vec::new(),
            slots_max,
            open: 0,
            slots: 0,
            len: 0,
            free: 0,
            free_first: NONE,
            free_last: NONE,
            generation_first: 0,
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
        page.live += 1;
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
        page.live -= 1;
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

    /// How many slots are in use or have been: the end of every sweep and iteration. Shrinks by [`Self::trim`] only.
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

    /// Gives back what a storm took: a table of more than twice the pages that its values need is cut to one and a
    /// half times as many. To be called now and then; when it cuts, it looks at every free slot once.
    pub fn trim(&mut self) {
        let needed = self.len.div_ceil(PAGE_SLOTS) as usize + 1;
        if self.open > 2 * needed {
            self.shut(needed + needed.div_ceil(2));
        }
        while self.pages.len() > self.open && self.pages.last().is_some_and(|page| page.live == 0) {
            let seen = self
                .pages
                .pop()
                .and_then(|page| page.generation.into_iter().max());
            self.generation_first = self.generation_first.max(seen.unwrap_or(0));
        }
        let end = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        self.slots = self.slots.min(end.saturating_mul(PAGE_SLOTS));
    }

    /// Shuts all pages but the first: takes their slots off the list.
    fn shut(&mut self, open: usize) {
        self.open = open;
        let mut slot = self.free_first;
        for _ in 0..std::mem::take(&mut self.free) {
            let (page, cell) = self.cell_mut(slot);
            let Slot::Free { next } = page.slots[cell] else {
                break;
            };
            page.slots[cell] = Slot::Free { next: NONE };
            self.give_free_slot(slot);
            slot = next;
        }
    }

    /// Opens the first page that is shut: its free slots are on the list again.
    fn reopen(&mut self) {
        let from = u32::try_from(self.open).unwrap_or(u32::MAX) * PAGE_SLOTS;
        self.open += 1;
        for slot in from..(from + PAGE_SLOTS).min(self.slots) {
            if self.id_at(slot).is_none() {
                self.give_free_slot(slot);
            }
        }
    }

    /// The longest-free slot, or a fresh one; `None` when the table is full.
    fn take_free_slot(&mut self) -> Option<u32> {
        while self.free == 0 && self.open < self.pages.len() {
            self.reopen();
        }
        if self.free == 0 {
            return self.take_fresh_slot();
        }
        self.free -= 1;
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
            self.pages.push(Page::new(self.generation_first));
            self.open = self.pages.len();
        }
        self.slots += 1;
        Some(slot)
    }

    /// Appends a vacant slot to the free ones, unless its page is shut.
    fn give_free_slot(&mut self, slot: u32) {
        if (slot / PAGE_SLOTS) as usize >= self.open {
            return;
        }
        if self.free == 0 {
            self.free_first = slot;
        } else {
            let (page, cell) = self.cell_mut(self.free_last);
            page.slots[cell] = Slot::Free { next: slot };
        }
        self.free += 1;
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
    /// Slots that are occupied.
    live: u32,
    due: Box<[Tick]>,
    leave: Box<[Tick]>,
    generation: Box<[u32]>,
    slots: Box<[Slot<T>]>,
}

impl<T> Page<T> {
    fn new(generation_first: u32) -> Self {
        Self {
            live: 0,
            due: filled(|| Tick::NEVER),
            leave: filled(|| Tick::NEVER),
            generation: filled(|| generation_first),
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
mod tests;
