//! Whether the checker is awake: bugs are planted, and each must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::world::World;
use crate::reactor::plant::{Bug, plant};

/// The first life in which the checker objects, and to what.
fn found(bug: Bug) -> Option<(u64, String)> {
    // On a thread of its own, with which the bug is gone.
    let search = thread::spawn(move || {
        plant(bug);
        (0..SEEDS_MAX).find_map(|seed| {
            let life = AssertUnwindSafe(|| World::with_limits(seed).live());
            let objection = catch_unwind(life).err()?;
            let text = objection.downcast_ref::<String>().cloned();
            Some((seed, text.unwrap_or_default()))
        })
    });
    search.join().unwrap()
}

fn assert_found(bug: Bug, objections: &[&str]) {
    let (seed, objection) = found(bug).unwrap_or_else(|| panic!("{bug:?} lives on unnoticed"));
    eprintln!("{bug:?} is found in life {seed}: {objection}");
    let is_the_one = objections.iter().any(|part| objection.contains(part));
    assert!(is_the_one, "{bug:?} brought about: {objection}");
}

#[test]
fn sim_finds_a_line_that_takes_the_others_of_its_device_out_of_presence() {
    assert_found(Bug::UnconditionalRelease, &["is open and not found"]);
}

#[test]
fn sim_finds_a_message_that_is_said_to_be_written_before_it_is() {
    assert_found(Bug::EarlyWritten, &["is said to be written, and is not"]);
}

#[test]
fn sim_finds_a_message_that_reaches_another_line_than_the_one_it_names() {
    assert_found(Bug::SkippedGeneration, &["reached another line"]);
}

#[test]
fn sim_finds_a_message_that_overtakes_another() {
    assert_found(Bug::FreeLanes, &["overtook"]);
}

/// Within so many lives each bug is found, most of them in the first few.
const SEEDS_MAX: u64 = 400;
