//! The table beside a brute-force twin, and under contention.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

use hashbrown::HashMap;
use rand::Rng as _;

use super::*;
use crate::base::seed;

fn place(shard: u16, slot: u32) -> Place {
    Place {
        shard: ShardId(shard),
        slot,
    }
}

#[test]
fn a_claim_is_found_until_it_is_released() {
    let presence = Presence::new(100, 2);
    let tv = presence.fingerprint(b"tv-1");
    assert!(presence.lookup(tv).is_empty());
    assert!(presence.claim(tv, place(1, 7)).unwrap().is_empty());
    assert!(presence.lookup(tv).iter().eq([place(1, 7)]));
    assert!(!presence.release(tv, place(0, 7)), "another line");
    assert!(presence.release(tv, place(1, 7)));
    assert!(!presence.release(tv, place(1, 7)));
    assert!(presence.lookup(tv).is_empty() && presence.is_empty());
}

#[test]
fn a_claim_yields_the_lines_it_replaces() {
    let presence = Presence::new(100, 2);
    let tv = presence.fingerprint(b"tv-1");
    presence.claim(tv, place(0, 1)).unwrap();
    assert!(
        presence
            .claim(tv, place(1, 2))
            .unwrap()
            .iter()
            .eq([place(0, 1)])
    );
    presence.release(tv, place(0, 1));
    assert!(
        presence
            .claim(tv, place(0, 1))
            .unwrap()
            .iter()
            .eq([place(1, 2)])
    );
    assert_eq!(presence.lookup_all(tv).iter().count(), 2);
}

#[test]
fn a_flood_of_lines_of_one_device_ends_in_a_refusal() {
    let presence = Presence::with_sizes(2, 2, 1);
    let device = Fingerprint(0);
    let room = REACH_MAX * 8;
    assert!((0..room).all(|slot| presence.claim(device, place(0, slot)).is_ok()));
    assert_eq!(presence.claim(device, place(0, room)).err(), Some(Full));
    assert!((0..room).all(|slot| presence.release(device, place(0, slot))));
    assert!(presence.lookup(device).is_empty());
}

#[test]
fn ids_chosen_to_crowd_one_table_are_spread_out_in_another() {
    let (known, ours) = (Presence::with_sizes(8, 8, 1), Presence::with_sizes(8, 8, 1));
    let home = |presence: &Presence, id: &String| {
        let fingerprint = presence.fingerprint(id.as_bytes());
        presence.shape().home(fingerprint)
    };
    let ids = (0..65_536).map(|i| format!("tv-{i}"));
    let chosen: Vec<_> = ids.filter(|id| home(&known, id) == 0).collect();
    let homes: std::collections::BTreeSet<_> = chosen.iter().map(|id| home(&ours, id)).collect();
    // At random 256 ids would take some 162 of 256 homes.
    assert!(chosen.len() > 150, "{}", chosen.len());
    assert!(
        homes.len() > chosen.len() / 3,
        "{} of {}",
        homes.len(),
        chosen.len()
    );
}

#[test]
fn generations_grow_even_when_the_clock_stands_still_or_steps_back() {
    let presence = Presence::new(1, 1);
    let minted = [5, 5, 4, 6].map(|wall_ms| presence.mint(wall_ms));
    assert!(minted.is_sorted_by(|a, b| a < b));
    assert_eq!(minted[3], LineGeneration(6 << 16));
}

#[test]
fn places_survive_packing() {
    for place in [place(0, 0), place(1023, (1 << 22) - 1), place(513, 99)] {
        assert_eq!(Place::unpack(place.pack()), place);
    }
}

#[test]
fn random_operations_agree_with_a_set_while_the_table_grows() {
    const SHARDS: u16 = 3;
    let mut rng = seed::rng();
    let presence = Presence::with_sizes(1, 8, SHARDS);
    // Few distinct homes and tags, so that windows overflow and false matches happen.
    let mut twin: HashMap<Fingerprint, Place> = HashMap::new();
    for slot in 0..20_000 {
        let device = Fingerprint(rng.random_range(1..4_u64) << 32 | rng.random_range(0..400));
        let line = place(rng.random_range(0..SHARDS), slot);
        match (rng.random_range(0..10), twin.get(&device).copied()) {
            (0..5, before) => {
                let others = presence.claim(device, line).unwrap();
                assert!(before.is_none_or(|before| is_among(before, others)));
                assert!(before.is_none_or(|before| presence.release(device, before)));
                twin.insert(device, line);
            }
            (5..8, Some(before)) => {
                assert!(presence.release(device, before));
                twin.remove(&device);
            }
            (8, _) => {
                let lines = twin.iter().map(|(device, line)| (*device, *line));
                rehome(&presence, line.shard, lines);
            }
            (_, before) => {
                let found = presence.lookup_all(device);
                assert!(before.is_none_or(|before| is_among(before, found)));
                assert_eq!(presence.lookup(device).is_empty(), found.is_empty());
            }
        }
        assert_eq!(presence.len() as usize, twin.len());
    }
    assert!(presence.shape().k() > 5, "grew to {:?}", presence.shape());
    let mut lines = twin.into_iter();
    assert!(lines.all(|(device, line)| presence.release(device, line)));
    let mut cells = presence.words.iter();
    assert!(cells.all(|cell| cell.load(Relaxed) == 0));
}

/// False matches may crowd a place out of a full list.
fn is_among(place: Place, candidates: Candidates) -> bool {
    candidates.iter().count() == Candidates::MAX || candidates.position(place).is_some()
}

fn rehome(presence: &Presence, shard: ShardId, lines: impl Iterator<Item = (Fingerprint, Place)>) {
    if presence.is_rehoming(shard) {
        let own = lines.filter(|(_, place)| place.shard == shard);
        own.for_each(|(device, place)| presence.rehome(device, place).unwrap());
        presence.finish_rehome(shard);
        assert!(!presence.is_rehoming(shard));
    }
}

#[test]
fn a_device_that_is_always_somewhere_is_never_missed() {
    const SHARDS: u16 = 2;
    const ROUNDS: u32 = 3_000;
    let presence = Presence::with_sizes(2, 12, SHARDS);
    let device = presence.fingerprint(b"wanderer");
    let is_done = AtomicBool::new(false);
    // The shards take turns, so that one has the device while the other claims it anew.
    let turn = AtomicU32::new(1);
    presence.claim(device, place(0, 0)).unwrap();
    thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (presence, turn, is_done) = (&presence, &turn, &is_done);
            scope.spawn(move || {
                wander(presence, device, shard, turn, ROUNDS);
                is_done.store(true, Relaxed);
            });
        }
        while !is_done.load(Relaxed) {
            assert!(!presence.lookup(device).is_empty());
        }
    });
    assert!(presence.shape().k() > 6, "grew to {:?}", presence.shape());
}

/// Lets go of the device and claims it anew whenever it is this shard's turn: the other shard has it meanwhile.
/// Claims others in between, so that the table grows.
fn wander(presence: &Presence, device: Fingerprint, shard: u16, turn: &AtomicU32, rounds: u32) {
    let own = place(shard, 0);
    let mut lines = vec![(device, own)];
    for round in (1..rounds).filter(|round| round % 2 == u32::from(shard)) {
        while turn.load(Acquire) < round {
            thread::yield_now();
        }
        presence.release(device, own);
        presence.claim(device, own).unwrap();
        let filler = (
            presence.fingerprint(&round.to_le_bytes()),
            place(shard, round),
        );
        presence.claim(filler.0, filler.1).unwrap();
        lines.push(filler);
        rehome(presence, ShardId(shard), lines.iter().copied());
        turn.store(round + 1, Release);
    }
}
