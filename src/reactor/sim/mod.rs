//! A node in a box: the shards of `reactor`, byte for byte, over simulated sockets and a virtual clock.
//!
//! Every seed is another life: devices come, talk, stall, vanish and come back elsewhere, back ends send, mailboxes
//! are too small, bytes are cut and late. The [`checker`] watches from outside: order, no duplicate, no foreign
//! delivery, one holder per device, every waiter answered, nothing left over at the end.
//!
//! `SIM_SEED=n` replays one life, `SIM_SEEDS=n` asks for more of them.

mod back_end;
mod chat;
mod checker;
mod device;
mod wire;
mod world;

use world::World;

#[test]
fn sim_every_seed_keeps_the_promises() {
    for seed in seeds() {
        eprintln!("SIM_SEED={seed}");
        World::new(seed).live();
    }
}

#[test]
fn sim_streams_keep_the_promises() {
    for seed in seeds() {
        eprintln!("SIM_SEED={seed} (streams)");
        World::with_back_ends(seed).live();
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => seed.parse::<u64>().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..std::env::var("SIM_SEEDS").map_or(200, |seeds| seeds.parse().unwrap()),
    }
}

#[test]
fn sim_a_crowd_is_found_while_presence_grows() {
    World::new(1).crowd(15_000);
}

#[test]
fn sim_a_message_to_a_large_account_reaches_each_device_once_and_holds_nobody_up() {
    World::new(1).shout(900);
}

#[test]
fn sim_the_same_seed_is_the_same_life() {
    let trace = |seed| World::new(seed).live();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
