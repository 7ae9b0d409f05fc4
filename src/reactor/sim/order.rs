//! Messages that race with their device's moves from shard to shard, step by step.

use super::world::World;

/// The first message looks for its device where it was, the second where it is.
#[test]
fn sim_a_message_that_its_device_escaped_is_not_overtaken() {
    let mut world = World::new(1);
    world.open_on(1, 0);
    world.send(0, 0);
    world.cut_on(1, 0);
    world.open_on(2, 0);
    world.send(0, 0);
    world.turns(&[0, 2, 1]);
    world.come_to_rest();
    assert_eq!(world.checker.heard(), 2);
}

/// While the first message is on its way back, its device is at the old shard again.
#[test]
fn sim_a_message_is_not_overtaken_where_it_missed_its_device() {
    let mut world = World::new(1);
    world.open_on(1, 0);
    world.send(0, 0);
    world.cut_on(1, 0);
    world.turn(0);
    world.begin(0);
    world.turn(1);
    world.open_on(1, 0);
    world.send(0, 0);
    world.finish(0);
    world.turn(1);
    world.come_to_rest();
    assert_eq!(world.checker.heard(), 2);
}

/// Two moves, and messages from before, between and after them.
#[test]
fn sim_messages_keep_their_order_over_several_moves() {
    let mut world = World::new(1);
    world.open_on(1, 0);
    world.send(0, 0);
    world.cut_on(1, 0);
    world.open_on(2, 0);
    world.turn(0);
    world.turn(1);
    world.send(0, 0);
    world.cut_on(2, 0);
    world.open_on(1, 0);
    world.turn(0);
    world.send(0, 0);
    world.turns(&[2, 1, 0, 1]);
    world.come_to_rest();
    assert_eq!(world.checker.heard(), 3);
}

/// A device sends to one, which moves, and then to its account: the one hears them in that order.
#[test]
fn sim_a_message_to_an_account_does_not_overtake_one_to_a_device_of_it() {
    let mut world = World::new(1);
    // All of one account.
    let (speaker, hearer) = (0, 3);
    world.open_on(0, speaker);
    world.open_on(1, hearer);
    world.say_to_device(speaker, hearer);
    world.begin(1);
    world.turn(0);
    world.cut(hearer);
    world.finish(1);
    world.look();
    world.begin(0);
    world.turn(1);
    world.open_on(2, hearer);
    world.say_to_account(speaker);
    world.pass(50);
    world.finish(0);
    world.turns(&[2, 1]);
    world.come_to_rest();
    assert_eq!(world.chat.heard(), 2);
}
