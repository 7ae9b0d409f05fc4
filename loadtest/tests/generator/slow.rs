//! Lines that do not read.

use crate::lying_server::Lie;
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_named, assert_named, run, run_real,
};

const SLOW: [&str; 6] = [
    "--connections=300",
    "--share=0.1",
    "--calm=500ms",
    "--stall=1s",
    "--after=500ms",
    "--seed=7",
];

fn slow(lie: Lie) -> Run {
    let little = ["--flood-rate=50", "--flood-bytes=30"];
    run(lie, "slow", &[&SLOW[..], &little].concat())
}

#[test]
fn what_a_slow_line_was_sent_arrives_once_it_reads_again() {
    let run = slow(Lie::None);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("slow.lines"), 30.0);
    assert_eq!(run.figure("slow.closed_by_server"), 0.0);
    assert!(run.figure("flood.status.200") > 0.0);
    assert!(run.figure("messages.doubtful") > 0.0);
    let accepted = run.figure("messages.accepted") + run.figure("messages.doubtful");
    assert_eq!(run.figure("messages.received"), accepted);
    assert!(run.figure("delivery.stall.max") >= run.figure("delivery.stall.p50"));
}

#[test]
fn every_lie_about_a_push_is_counted_while_some_do_not_read() {
    let lies = [&LIES[..], &[(Lie::DamageRest, "foreign")]].concat();
    assert_all_counted(slow, &lies);
    assert_all_named(slow, &[ANSWER_TWICE]);
}

#[test]
fn what_was_promised_to_a_line_that_stayed_is_lost_even_if_it_did_not_read() {
    // Shadows lie on the slow ones from half a second on, and nothing is lost before or after.
    let long = [
        "--flood-rate=50",
        "--flood-bytes=200",
        "--stall=1500ms",
        "--after=1s",
    ];
    let run = run(Lie::Lapse, "slow", &[&SLOW[..], &long].concat());
    assert_named(&run, Lie::Lapse, "messages lost");
    let lost = run.figure("messages.lost");
    let missing = run.figure("messages.doubtful") - run.figure("messages.doubtful_received");
    assert_eq!((lost, missing > 0.0), (missing, true));
}

#[test]
fn the_real_server_closes_who_does_not_read_and_takes_it_back() {
    let flood = [
        "--flood-rate=400",
        "--stall=4s",
        "--share=0.01",
        "--set=limits.outbox_bytes_max=64KiB",
    ];
    let run = run_real("slow", &[&SLOW[..], &flood].concat());
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("slow.lines"), 3.0);
    // Where the machine is busy, what is left of the flood closes some of them once more.
    let closed = run.figure("slow.closed_by_server");
    assert!(closed >= 3.0, "{closed}");
    assert_eq!(run.figure("slow.lines_back"), closed);
    assert!(run.figure("messages.away") > 0.0);
}
