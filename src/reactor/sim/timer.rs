//! Who has no deadline has no timer.

use super::world::World;

#[test]
fn sim_lines_that_are_open_or_have_left_have_no_timer() {
    let mut world = World::new(1);
    for device in 0..6 {
        world.open_on(1, device);
    }
    assert!(
        world.shards[1].wheel.is_empty(),
        "the deadlines of their handshakes are left"
    );
    (0..6).for_each(|device| world.cut(device));
    while world.shards[1].cells().lines.value() > 0 || world.shards[1].has_work() {
        world.turn(1);
    }
    assert!(world.shards[1].arena.is_empty());
    assert!(
        world.shards[1].wheel.is_empty(),
        "the deadlines of their ends are left"
    );
}
