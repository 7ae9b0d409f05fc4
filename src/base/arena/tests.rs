//! The connection table against a dumb one.

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
        for (page, from) in self.pages.iter().zip((0..).step_by(PAGE_SLOTS as usize)) {
            let live = (from..from + PAGE_SLOTS).filter(|&slot| self.id_at(slot).is_some());
            assert_eq!(live.count(), page.live as usize);
        }
        let mut slot = self.free_first;
        let open = self
            .slots
            .min(u32::try_from(self.open).unwrap() * PAGE_SLOTS);
        let taken = (0..open).filter(|&slot| self.id_at(slot).is_some());
        assert_eq!(self.free as usize, open as usize - taken.count());
        for left in (0..self.free).rev() {
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
fn a_new_value_inherits_no_moment() {
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
            _ if rng.random_ratio(1, 50) => {
                arena.trim();
                arena.check_invariants();
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

#[test]
fn a_table_that_was_large_gives_its_pages_back_and_no_id_comes_again() {
    let mut arena = Arena::new(20 * PAGE_SLOTS);
    let few: Vec<_> = (0..10).map(|i| arena.insert(i).unwrap()).collect();
    let storm: Vec<_> = (10..18 * PAGE_SLOTS)
        .map(|i| arena.insert(i).unwrap())
        .collect();
    arena.trim();
    assert_eq!(arena.slots(), 18 * PAGE_SLOTS, "it is full");
    // One of the last page stays for now.
    let (straggler, gone) = storm.split_last().unwrap();
    for id in gone {
        arena.remove(*id);
    }
    arena.trim();
    arena.check_invariants();
    assert_eq!(arena.slots(), 18 * PAGE_SLOTS);
    // Newcomers stay out of what is shut.
    for i in 0..2 * PAGE_SLOTS {
        assert!(arena.insert(i).unwrap().slot < 3 * PAGE_SLOTS);
    }
    assert_eq!(arena.remove(*straggler), Some(18 * PAGE_SLOTS - 1));
    arena.trim();
    arena.check_invariants();
    assert_eq!(arena.pages.len(), 3);
    assert!(few.iter().all(|id| arena.contains(*id)));
    // Grown again, the slots have ids that nobody ever had.
    let again: Vec<_> = (0..14 * PAGE_SLOTS)
        .map(|i| arena.insert(i).unwrap())
        .collect();
    assert!(
        storm
            .iter()
            .all(|id| !again.contains(id) || id.slot < 3 * PAGE_SLOTS)
    );
    assert!(
        gone.iter()
            .filter(|id| id.slot >= 3 * PAGE_SLOTS)
            .all(|id| !arena.contains(*id))
    );
    assert!(!arena.contains(*straggler));
    arena.check_invariants();
}

#[test]
fn what_was_shut_is_opened_before_the_table_grows() {
    let mut arena = Arena::new(10 * PAGE_SLOTS);
    let ids: Vec<_> = (0..10 * PAGE_SLOTS)
        .map(|i| arena.insert(i).unwrap())
        .collect();
    let (last, rest) = ids.split_last().unwrap();
    for id in rest {
        arena.remove(*id);
    }
    arena.trim();
    let refilled = (0..10 * PAGE_SLOTS).take_while(|i| arena.insert(*i).is_ok());
    assert_eq!(
        refilled.count(),
        10 * PAGE_SLOTS as usize - 1,
        "every slot is used"
    );
    assert!(arena.contains(*last));
    arena.check_invariants();
}
