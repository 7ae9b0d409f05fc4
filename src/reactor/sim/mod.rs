//! A node in a box: the shards of `reactor`, byte for byte, over simulated sockets and a virtual clock.
//!
//! Every seed is another life: devices come, talk, stall, vanish and come back elsewhere, back ends send, mailboxes
//! are too small, addresses and accounts have their limits, bytes are cut and late. The [`checker`] watches from outside:
//! order, no duplicate, no foreign delivery, one holder per device, every waiter answered, every message with one ending,
//! nobody beyond a limit, nothing left over at the end. [`plant`] sees to it that it is awake.
//!
//! `SIM_SEED=n` replays one life, `SIM_SEEDS=n` asks for more of them.

mod ack;
mod admission;
mod back_end;
mod broadcast;
mod caller;
mod chat;
mod checker;
mod departure;
mod device;
mod drain;
mod end;
mod front;
mod holder;
mod order;
mod plant;
mod steps;
mod sweep;
mod timer;
mod wire;
mod world;

use world::World;

use crate::metrics::Ending;

#[test]
fn sim_every_seed_keeps_the_promises() {
    let seeds = seeds();
    let are_many = seeds.clone().count() >= 50;
    let (mut endings, mut told) = ([0; Ending::ALL.len()], [0; Ending::ALL.len()]);
    let mut turned_away = [0; 2];
    for seed in seeds {
        eprintln!("SIM_SEED={seed}");
        let life = World::with_limits(seed).live();
        endings
            .iter_mut()
            .zip(life.endings)
            .for_each(|(sum, n)| *sum += n);
        told.iter_mut()
            .zip(life.told)
            .for_each(|(sum, n)| *sum += n);
        turned_away
            .iter_mut()
            .zip(life.turned_away)
            .for_each(|(sum, n)| *sum += n);
    }
    eprintln!("endings {endings:?}, told {told:?}, turned away {turned_away:?}");
    assert!(
        turned_away.iter().all(|n| *n > 0) || !are_many,
        "no limit bites"
    );
    // A promise about an ending is worth something only where messages end so.
    for (ending, (counted, told)) in Ending::ALL.into_iter().zip(endings.into_iter().zip(told)) {
        // Back ends have no allowance; and somebody who was told `offline` may have lost a message on the way.
        let is_told = told > 0 || matches!(ending, Ending::Offline | Ending::Lost);
        let is_seen = counted > 0 && is_told || ending == Ending::RateLimited;
        assert!(
            is_seen || !are_many,
            "no message ended as {}",
            ending.word()
        );
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
    let trace = |seed| World::with_limits(seed).live();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
