//! The timer wheel: deadlines that are rare.
//!
//! Handshakes, acknowledgements and pending look-ups have timers here. Heartbeats do not: see the arena's sweep.

use std::fmt;
use std::num::NonZeroU32;

/// Deadlines of `K`s, by hierarchical hashed wheels (Varghese and Lauck, 1987, scheme 7).
///
/// Level `n` has 64 slots of 64ⁿ ticks. A deadline waits in the coarsest slot that tells it from now, and moves
/// down when the time comes to that slot's start. Occupied slots are bits of one word per level, so a jump over
/// hours of nothing costs as much as one over a tick. Times are monotonic milliseconds.
pub struct Wheel<K> {
    nodes: Vec<Node<K>>,
    /// The slots of all levels, then the list of what is due.
    lists: [List; DUE as usize + 1],
    /// Which slots of each level are occupied.
    occupied: [u64; LEVELS as usize],
    /// The tick up to which the wheel has turned.
    now_tick: u64,
    free: u32,
    len: u32,
}

impl<K: Copy + PartialEq> Wheel<K> {
    /// How late a timer may be, in milliseconds. None is early.
    pub const RESOLUTION_MS: u64 = 10;

    /// An empty wheel, which has allocated nothing.
    pub const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            lists: [List::EMPTY; DUE as usize + 1],
            occupied: [0; LEVELS as usize],
            now_tick: 0,
            free: NONE,
            len: 0,
        }
    }

    /// Arranges for `key` to expire at the deadline, or at once when it has passed.
    /// A key that is to be cancelled is on the wheel at most once.
    pub fn schedule(&mut self, deadline_ms: u64, key: K) -> TimerId {
        let node = Node {
            deadline_tick: deadline_ms.div_ceil(Self::RESOLUTION_MS),
            key,
            list: FREE,
            previous: NONE,
            next: NONE,
        };
        let index = self.place_node(node);
        self.attach(index);
        self.len += 1;
        TimerId::new(index)
    }

    /// Has the timer of a key expire at the deadline, unless it does so earlier; schedules one if there is none.
    pub fn hasten(&mut self, id: Option<TimerId>, deadline_ms: u64, key: K) -> TimerId {
        if let Some(id) = id {
            let armed_ms = self.deadline(id, key);
            if armed_ms.is_some_and(|armed_ms| armed_ms <= deadline_ms) {
                return id;
            }
            self.cancel(id, key);
        }
        self.schedule(deadline_ms, key)
    }

    /// Takes the timer of a key off the wheel; false when it has expired or was cancelled before, whoever has its place now.
    pub fn cancel(&mut self, id: TimerId, key: K) -> bool {
        let is_live = self.node(id, key).is_some();
        if is_live {
            self.detach(id.index());
            self.free_node(id.index());
        }
        is_live
    }

    /// When the timer of a key expires, rounded up to the resolution; `None` when it has, or was cancelled.
    pub fn deadline(&self, id: TimerId, key: K) -> Option<u64> {
        self.node(id, key)
            .map(|node| node.deadline_tick.saturating_mul(Self::RESOLUTION_MS))
    }

    /// Appends up to `budget` keys whose deadline has come. What the budget leaves expires at the next call.
    pub fn expire(&mut self, now_ms: u64, budget: usize, expired: &mut Vec<K>) {
        let end_tick = now_ms / Self::RESOLUTION_MS;
        for _ in 0..budget {
            if self.due().is_empty() && !self.turn(end_tick) {
                return;
            }
            let index = self.due().first;
            expired.push(self.nodes[index as usize].key);
            self.detach(index);
            self.free_node(index);
        }
    }

    /// When to call [`Self::expire`] next: never later than the earliest deadline rounded up to the resolution.
    ///
    /// Exact for a timer that was scheduled less than 64 ticks ahead. For another it may be the moment at which the
    /// timer moves down a level, so a timer costs at most one early call for every factor of 64 it lies ahead.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.due().is_empty() {
            return Some(self.now_tick.saturating_mul(Self::RESOLUTION_MS));
        }
        self.next_tick()
            .map(|tick| tick.saturating_mul(Self::RESOLUTION_MS))
    }

    /// How many timers are scheduled.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no timer is scheduled.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The node of a timer, if it is still this key's.
    fn node(&self, id: TimerId, key: K) -> Option<&Node<K>> {
        self.nodes
            .get(id.index() as usize)
            .filter(|node| node.list != FREE && node.key == key)
    }

    fn due(&self) -> &List {
        &self.lists[usize::from(DUE)]
    }

    /// Turns until something is due or `end_tick` is reached; whether something is.
    fn turn(&mut self, end_tick: u64) -> bool {
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= end_tick) {
            self.turn_to(tick);
            if !self.due().is_empty() {
                return true;
            }
        }
        self.now_tick = self.now_tick.max(end_tick);
        false
    }

    /// Turns to a tick with nothing before it, and empties every slot that starts there, the coarsest first: its
    /// timers move down, one of them perhaps into the finest slot of this very tick.
    fn turn_to(&mut self, tick: u64) {
        self.now_tick = tick;
        for level in (0..LEVELS).rev() {
            let slot = tick >> (level * SLOT_BITS);
            if slot << (level * SLOT_BITS) == tick {
                self.empty_slot(list_at(level, slot));
            }
        }
    }

    /// Moves every timer of a slot to where it belongs by now: due, or further down.
    fn empty_slot(&mut self, list: u16) {
        let mut index = self.lists[usize::from(list)].first;
        self.lists[usize::from(list)] = List::EMPTY;
        self.mark(list);
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.attach(index);
            index = next;
        }
    }

    /// The start of the first occupied slot.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| self.next_tick_of(level))
            .min()
    }

    /// The start of the first occupied slot of one level. The slot that contains now comes last: it was emptied when
    /// the wheel turned to it, so what it holds is a whole turn away.
    fn next_tick_of(&self, level: u16) -> Option<u64> {
        let occupied = self.occupied[usize::from(level)];
        let after = (self.now_tick >> (level * SLOT_BITS)) + 1;
        let ahead = occupied
            .rotate_right(index_in_level(after).into())
            .trailing_zeros();
        (occupied != 0).then(|| (after + u64::from(ahead)) << (level * SLOT_BITS))
    }

    /// The list for a deadline: due, or the slot of the finest level that reaches it.
    fn list_for(&self, deadline_tick: u64) -> u16 {
        let ahead = deadline_tick.saturating_sub(self.now_tick).min(REACH_TICKS);
        let finest = |&level: &u16| ahead >> ((level + 1) * SLOT_BITS) == 0;
        match (0..LEVELS).find(finest) {
            Some(level) if ahead > 0 => {
                list_at(level, (self.now_tick + ahead) >> (level * SLOT_BITS))
            }
            _ => DUE,
        }
    }

    /// Appends a node to the list it belongs to now.
    fn attach(&mut self, index: u32) {
        let list = self.list_for(self.nodes[index as usize].deadline_tick);
        let last = std::mem::replace(&mut self.lists[usize::from(list)].last, index);
        let node = &mut self.nodes[index as usize];
        (node.list, node.previous, node.next) = (list, last, NONE);
        match last {
            NONE => self.lists[usize::from(list)].first = index,
            _ => self.nodes[last as usize].next = index,
        }
        self.mark(list);
    }

    /// Takes a node out of its list.
    fn detach(&mut self, index: u32) {
        let Node {
            list,
            previous,
            next,
            ..
        } = self.nodes[index as usize];
        match previous {
            NONE => self.lists[usize::from(list)].first = next,
            _ => self.nodes[previous as usize].next = next,
        }
        match next {
            NONE => self.lists[usize::from(list)].last = previous,
            _ => self.nodes[next as usize].previous = previous,
        }
        self.mark(list);
    }

    /// Notes whether a list that changed is occupied.
    fn mark(&mut self, list: u16) {
        if list != DUE {
            let bit = 1 << (list % SLOTS);
            let level = &mut self.occupied[usize::from(list / SLOTS)];
            *level = if self.lists[usize::from(list)].is_empty() {
                *level & !bit
            } else {
                *level | bit
            };
        }
    }

    fn place_node(&mut self, node: Node<K>) -> u32 {
        let index = self.free;
        if index != NONE {
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
            return index;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    /// Gives a detached node back, and the memory of a storm once the last timer is gone.
    fn free_node(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        (node.list, node.next) = (FREE, self.free);
        self.free = index;
        self.len -= 1;
        if self.len == 0 && self.nodes.len() > NODES_KEPT {
            self.nodes = Vec::new();
            self.free = NONE;
        }
    }
}

impl<K> fmt::Debug for Wheel<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len)
            .field("now_tick", &self.now_tick)
            .finish_non_exhaustive()
    }
}

impl<K: Copy + PartialEq> Default for Wheel<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where on the wheel a timer is. Others take the place once it has expired or was cancelled, so its key tells whether it is
/// still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZeroU32);

impl TimerId {
    fn new(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

const _: () = assert!(size_of::<Option<TimerId>>() == 4);

#[derive(Clone, Copy)]
struct Node<K> {
    deadline_tick: u64,
    key: K,
    list: u16,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

impl List {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };

    const fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

/// The list of a slot, counted from the start of time, of a level.
fn list_at(level: u16, slot: u64) -> u16 {
    level * SLOTS + index_in_level(slot)
}

#[expect(clippy::cast_possible_truncation, reason = "below SLOTS")]
const fn index_in_level(slot: u64) -> u16 {
    (slot % SLOTS as u64) as u16
}

/// Six levels of 64 slots of 10 ms reach 21 years; a deadline beyond waits at the far end and is placed anew there.
const LEVELS: u16 = 6;
const SLOT_BITS: u16 = 6;
const SLOTS: u16 = 1 << SLOT_BITS;
const REACH_TICKS: u64 = (1 << (LEVELS * SLOT_BITS)) - 1;

/// The list of timers that are due, after those of the slots.
const DUE: u16 = LEVELS * SLOTS;
/// The list a free node is said to be in.
const FREE: u16 = DUE + 1;
/// No node: the end of a list.
const NONE: u32 = u32::MAX;

/// Nodes an empty wheel keeps.
const NODES_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    fn expired_at<K: Copy + PartialEq>(wheel: &mut Wheel<K>, now_ms: u64) -> Vec<K> {
        let mut expired = Vec::new();
        wheel.expire(now_ms, usize::MAX, &mut expired);
        expired
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_a_resolution_late() {
        for deadline_ms in [1, 9, 10, 11, 639, 640, 641, 40_959, 40_960, 3_600_001] {
            let mut wheel = Wheel::new();
            wheel.schedule(deadline_ms, ());
            assert_eq!(expired_at(&mut wheel, deadline_ms - 1), [], "{deadline_ms}");
            assert_eq!(
                expired_at(&mut wheel, deadline_ms + 9),
                [()],
                "{deadline_ms}"
            );
        }
    }

    #[test]
    fn a_deadline_that_has_passed_expires_at_once() {
        let mut wheel = Wheel::new();
        assert!(expired_at(&mut wheel, 1_000).is_empty());
        wheel.schedule(500, 'a');
        assert_eq!(wheel.next_deadline(), Some(1_000));
        assert_eq!(expired_at(&mut wheel, 1_000), ['a']);
    }

    #[test]
    fn a_cancelled_timer_never_expires_and_its_id_goes_stale() {
        let mut wheel = Wheel::new();
        let id = wheel.schedule(100, 'a');
        assert_eq!(wheel.deadline(id, 'a'), Some(100));
        assert!(wheel.cancel(id, 'a'));
        assert!(!wheel.cancel(id, 'a'));
        let successor = wheel.schedule(103, 'b');
        assert_eq!(successor, id, "it has the place of the first");
        assert!(!wheel.cancel(id, 'a'));
        assert_eq!(wheel.deadline(id, 'a'), None);
        assert_eq!(wheel.deadline(successor, 'b'), Some(110));
        assert_eq!(expired_at(&mut wheel, 1_000), ['b']);
        assert_eq!(wheel.deadline(successor, 'b'), None);
        assert!(!wheel.cancel(successor, 'b'));
    }

    #[test]
    fn a_timer_is_hastened_and_never_put_off() {
        let mut wheel = Wheel::new();
        let mut timer = None;
        for (deadline_ms, expected_ms) in [(500, 500), (900, 500), (300, 300), (300, 300)] {
            let id = wheel.hasten(timer, deadline_ms, 'a');
            assert_eq!(
                (wheel.deadline(id, 'a'), wheel.len()),
                (Some(expected_ms), 1)
            );
            timer = Some(id);
        }
        assert_eq!(expired_at(&mut wheel, 300), ['a']);
        let id = wheel.hasten(timer, 900, 'a');
        assert_eq!(wheel.deadline(id, 'a'), Some(900));
    }

    #[test]
    fn the_budget_leaves_the_rest_for_the_next_call() {
        let mut wheel = Wheel::new();
        for key in 0..5 {
            wheel.schedule(10 + key, key);
        }
        let mut expired = Vec::new();
        wheel.expire(1_000, 3, &mut expired);
        assert_eq!((expired.len(), wheel.len()), (3, 2));
        assert!(wheel.next_deadline() <= Some(1_000));
        wheel.expire(1_000, 3, &mut expired);
        assert_eq!(expired, [0, 1, 2, 3, 4]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_coarse_slot_and_a_fine_one_may_start_at_the_same_tick() {
        let mut wheel = Wheel::new();
        wheel.schedule(640, "coarse");
        assert_eq!(expired_at(&mut wheel, 300), [] as [&str; 0]);
        wheel.schedule(640, "fine");
        let mut expired = Vec::new();
        wheel.expire(640, 1, &mut expired);
        wheel.expire(640, 1, &mut expired);
        assert_eq!(expired, ["coarse", "fine"]);
    }

    #[test]
    fn a_jump_of_years_and_the_farthest_deadline_are_handled() {
        let mut wheel = Wheel::new();
        let year_ms = 365 * 24 * 3_600_000;
        wheel.schedule(30 * year_ms, 'a');
        wheel.schedule(u64::MAX, 'z');
        assert!(expired_at(&mut wheel, 30 * year_ms - 1).is_empty());
        assert_eq!(expired_at(&mut wheel, 100 * year_ms), ['a']);
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn the_memory_of_a_storm_is_given_back_and_old_ids_stay_stale() {
        let mut wheel = Wheel::new();
        let ids: Vec<_> = (0..10_000)
            .map(|key| (wheel.schedule(key, key), key))
            .collect();
        assert!(ids.iter().all(|&(id, key)| wheel.cancel(id, key)));
        assert_eq!(wheel.nodes.capacity(), 0);
        wheel.schedule(5, 10_000);
        assert!(!ids.iter().any(|&(id, key)| wheel.cancel(id, key)));
    }

    #[test]
    fn random_operations_agree_with_a_sorted_map() {
        let mut rng = seed::rng();
        let mut wheel = Wheel::new();
        let mut twin: BTreeMap<(u64, u32), TimerId> = BTreeMap::new();
        let mut now_ms = rng.random_range(0..1 << 40);
        expired_at(&mut wheel, now_ms);
        for key in 0..20_000_u32 {
            match rng.random_range(0..8) {
                0..4 => {
                    let scale = rng.random_range(1..36);
                    let ahead_ms = rng.random_range(0..1_u64 << scale);
                    let deadline_ms = (now_ms + ahead_ms).saturating_sub(50);
                    twin.insert(
                        (deadline_ms, key),
                        wheel.schedule(deadline_ms, (deadline_ms, key)),
                    );
                }
                4 if !twin.is_empty() => {
                    let nth = rng.random_range(0..twin.len());
                    let timer = *twin.keys().nth(nth).unwrap();
                    let id = twin.remove(&timer).unwrap();
                    let deadline_ms = wheel.deadline(id, timer).unwrap();
                    assert!((timer.0..timer.0 + 10).contains(&deadline_ms));
                    assert!(wheel.cancel(id, timer));
                    assert!(!wheel.cancel(id, timer));
                }
                _ => {
                    let scale = rng.random_range(1..30);
                    now_ms += rng.random_range(0..1_u64 << scale);
                    check_expiry(&mut wheel, &mut twin, now_ms, rng.random_range(1..50));
                }
            }
            assert_eq!(wheel.len(), twin.len());
            let earliest = twin
                .keys()
                .next()
                .map(|(deadline_ms, _)| deadline_ms.max(&now_ms) + 9);
            assert!(wheel.next_deadline() <= earliest && wheel.is_empty() == earliest.is_none());
        }
    }

    /// Expires with a budget until nothing comes: exactly what the twin holds up to the resolution must have come.
    fn check_expiry(
        wheel: &mut Wheel<(u64, u32)>,
        twin: &mut BTreeMap<(u64, u32), TimerId>,
        now_ms: u64,
        budget: usize,
    ) {
        let mut expired = Vec::new();
        loop {
            let before = expired.len();
            wheel.expire(now_ms, budget, &mut expired);
            assert!(expired.len() - before <= budget);
            if expired.len() == before {
                break;
            }
        }
        for timer in expired {
            assert!(timer.0 <= now_ms, "{timer:?} is early at {now_ms}");
            assert!(twin.remove(&timer).is_some(), "{timer:?} came twice");
        }
        let earliest = twin.keys().next();
        assert!(
            earliest.is_none_or(|(deadline_ms, _)| deadline_ms + 9 >= now_ms),
            "{earliest:?} is late at {now_ms}"
        );
    }
}
