//! Races of claims, releases and moves, in every order.

use loom::sync::Arc;
use loom::thread;

use super::*;

const DEVICE: Fingerprint = Fingerprint(7 << 32 | 1);
const HERE: Place = Place {
    shard: ShardId(0),
    slot: 1,
};
const THERE: Place = Place {
    shard: ShardId(1),
    slot: 2,
};

/// Three preemptions find what there is to find, and end.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

#[test]
fn loom_of_two_racing_lines_one_sees_the_other() {
    model(|| {
        let presence = Arc::new(Presence::with_sizes(0, 0, 2));
        let racer = Arc::clone(&presence);
        let there = thread::spawn(move || racer.claim(DEVICE, THERE).unwrap().is_empty());
        let is_first = presence.claim(DEVICE, HERE).unwrap().is_empty();
        assert!(!(there.join().unwrap() && is_first));
    });
}

#[test]
fn loom_a_claim_with_the_old_shape_and_one_with_the_new_see_each_other() {
    model(|| {
        let presence = Arc::new(Presence::with_sizes(0, 1, 2));
        let racer = Arc::clone(&presence);
        let there = thread::spawn(move || racer.claim(DEVICE, THERE).unwrap().is_empty());
        presence.grow_if_crowded(u32::MAX);
        let is_first = presence.claim(DEVICE, HERE).unwrap().is_empty();
        assert!(!(there.join().unwrap() && is_first));
    });
}

#[test]
fn loom_a_device_that_changes_lines_is_never_missed() {
    model(|| {
        let presence = Arc::new(Presence::with_sizes(0, 0, 2));
        // An earlier line in the first cell makes way, so that the claim may come behind or before the look.
        presence.claim(DEVICE, HERE).unwrap();
        let mover = Arc::clone(&presence);
        let moves = thread::spawn(move || {
            mover.claim(DEVICE, THERE).unwrap();
            mover.release(DEVICE, HERE);
            mover.claim(DEVICE, HERE).unwrap();
            mover.release(DEVICE, THERE);
        });
        assert!(!presence.lookup(DEVICE).is_empty());
        moves.join().unwrap();
    });
}

#[test]
fn loom_a_device_that_is_rehomed_is_never_missed() {
    model(|| {
        let presence = Arc::new(Presence::with_sizes(0, 1, 1));
        presence.claim(DEVICE, HERE).unwrap();
        let mover = Arc::clone(&presence);
        let moves = thread::spawn(move || {
            mover.grow_if_crowded(u32::MAX);
            mover.rehome(DEVICE, HERE).unwrap();
            mover.finish_rehome(HERE.shard);
        });
        assert!(!presence.lookup(DEVICE).is_empty());
        moves.join().unwrap();
        assert!(presence.lookup(DEVICE).iter().eq([HERE]));
    });
}
