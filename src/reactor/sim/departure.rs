//! Many lines that end in one moment, beside one that stays.

use super::world::World;

#[test]
fn sim_who_stays_is_not_held_up_by_those_who_leave() {
    let mut world = World::new(1);
    let devices = 12;
    for device in 0..devices {
        world.open_on(1, device);
    }
    let lines = |world: &World| world.shards[1].cells().lines.value();
    for device in 1..devices {
        world.cut(device);
    }
    world.turn(1);
    // A few of them were dealt with in that turn, and the others wait.
    let left = lines(&world);
    assert!(left > 2 && left < devices as u64, "{left} lines");
    assert!(world.shards[1].has_work());
    world.send(0, 0);
    world.turns(&[0, 1]);
    assert!(lines(&world) > 1);
    world.look();
    assert_eq!(world.checker.heard(), 1);
    while lines(&world) > 1 {
        let before = lines(&world);
        // As much as an iteration may take without newcomers' having less of it, and two departures.
        world.shards[1].busy_us = 730;
        world.turn(1);
        assert!(lines(&world) < before);
        assert!(world.shards[1].admission.is_full());
    }
    world.come_to_rest();
}
