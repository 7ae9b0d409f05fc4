//! Lines that keep coming, beside those that are there, and lines that came together.

use super::world::World;

#[test]
fn sim_lines_that_came_together_are_first_pinged_apart() {
    let mut world = World::new(1);
    for device in 0..40 {
        world.connect_to(1, device);
    }
    // As long as a line may be silent, in tenths of a second.
    let mut pinged_by = Vec::new();
    for _ in 0..50 {
        world.pass(100);
        world.turn(1);
        while world.shards[1].has_work() {
            world.turn(1);
        }
        pinged_by.push(world.shards[1].cells().pings.value());
    }
    let first = pinged_by.iter().position(|pings| *pings > 0);
    let last = pinged_by.iter().position(|pings| *pings == 40);
    // A tenth of the time would be five of the fifty.
    assert!(last.unwrap() - first.unwrap() > 12, "{pinged_by:?}");
}

#[test]
fn sim_a_table_that_grows_all_the_time_is_looked_over_all_the_same() {
    let mut world = World::new(1);
    // Two lines in each tenth of a second, for twice as long as a line may be silent.
    for device in 0..200 {
        world.connect_to(1, device);
        world.pass(50);
        world.turn(1);
    }
    assert!(world.shards[1].cells().pings.value() > 0);
}
