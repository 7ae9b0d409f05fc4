//! Lines that keep coming, beside those that are there.

use super::world::World;

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
