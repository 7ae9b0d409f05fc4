//! Acknowledgements that do not come.

use super::steps::wish;
use super::world::World;
use crate::metrics::{Ending, total};
use crate::wire::api::Level;

/// A line that is closed lives on until its far end has finished; whoever waits for its `ack` does not wait for that.
#[test]
fn sim_an_ack_that_cannot_come_any_more_is_not_waited_for() {
    let mut world = World::new(1);
    world.open_on(1, 0);
    let number = world.newest[&0];
    world.lines.get_mut(&number).unwrap().is_mute = true;
    world.submit_one(0, 0, wish(Level::Acked));
    world.turns(&[0, 1, 0]);
    world.look();
    assert_eq!(world.waiting.len(), 1, "it is written and not acknowledged");
    world.lines.get_mut(&number).unwrap().is_vanished = true;
    world.open_on(2, 0);
    world.turns(&[1, 0]);
    world.look();
    assert!(world.lines.contains_key(&number), "its end is not over");
    assert_eq!(world.waiting.len(), 0, "and yet it is waited for");
    assert_eq!(world.checker.told()[Ending::Written as usize], 1);
}

/// A device that acknowledges nothing pins nothing for longer than somebody waits for it.
#[test]
fn sim_a_silent_line_keeps_nothing_that_nobody_waits_for() {
    let mut world = World::new(1);
    world.open_on(1, 0);
    let number = world.newest[&0];
    world.lines.get_mut(&number).unwrap().is_mute = true;
    world.submit_one(0, 0, wish(Level::Acked));
    world.come_to_rest();
    let unacked = |world: &World| total(&world.node.cells, |cells| &cells.unacked);
    assert_eq!(unacked(&world), 1);
    // Until it is pinged.
    (0..20).for_each(|_| world.come_to_rest());
    assert_eq!(unacked(&world), 0);
    assert!(!world.lines[&number].is_over());
}
