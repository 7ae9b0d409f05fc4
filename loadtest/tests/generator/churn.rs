//! Lines that leave and come back at a steady rate.

use std::process::Command;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_handed_over, assert_all_named,
    assert_named, assert_refused, run, run_against, run_real,
};

const CHURN: [&str; 7] = [
    "--connections=300",
    "--age=1s",
    "--warmup=200ms",
    "--duration=2s",
    "--comeback=fixed:50ms",
    "--back-timeout=10s",
    "--seed=7",
];

fn churn(lie: Lie, more: &[&str]) -> Run {
    run(lie, "churn", &[&CHURN[..], more].concat())
}

/// Few lines that get many pushes each, with each of which they are asked to leave.
const HAND_OVER: [&str; 8] = [
    "--connections=60",
    "--push-rate=180",
    "--warmup=200ms",
    "--duration=2s",
    "--comeback=fixed:50ms",
    "--seed=7",
    "--by=server",
    "--hand-over",
];

fn hand_over(lie: Lie) -> Run {
    let server = LyingServer::start_asking(lie).unwrap();
    run_against(&server, "churn", &HAND_OVER)
}

/// Lines left by themselves or as they were asked, and nothing was lost on the way.
fn assert_churned(run: &Run) {
    assert!(run.passed, "{}", run.faults());
    assert!(run.figure("churn.lines_left") > 0.0);
    assert_eq!(run.figure("churn.lines_cut"), 0.0);
    assert!(run.figure("churn.lines_back") > 0.0);
    assert!(run.figure("messages.accepted") > 0.0);
    assert_eq!(run.figure("messages.doubtful"), 0.0);
    assert_eq!(
        run.figure("messages.received"),
        run.figure("messages.accepted")
    );
}

#[test]
fn devices_that_change_lines_by_themselves_miss_nothing_they_were_promised() {
    let run = churn(Lie::None, &[]);
    assert_churned(&run);
    assert_eq!(run.figure("churn.goaways"), 0.0);
}

#[test]
fn every_lie_about_a_push_is_counted_while_lines_come_and_go() {
    let is_told = |(lie, _): &(Lie, &str)| *lie != Lie::Refuse;
    let lies = LIES.into_iter().filter(is_told);
    let lies: Vec<_> = lies.chain([(Lie::IgnoreReturn, "lost")]).collect();
    assert_all_counted(|lie| churn(lie, &[]), &lies);
    assert_all_named(|lie| churn(lie, &[]), &[ANSWER_TWICE]);
}

#[test]
fn a_refusal_is_counted_where_lines_rarely_leave() {
    // A line that is about to leave, or has just come, may be refused its messages.
    assert_all_counted(
        |lie| churn(lie, &["--age=20s"]),
        &[(Lie::Refuse, "refused")],
    );
}

#[test]
fn lines_that_are_not_taken_back_fail_the_churn() {
    let run = churn(Lie::BarReturn, &["--back-timeout=1s", "--duration=3s"]);
    assert_named(&run, Lie::BarReturn, "30 lines did not come back in time");
}

#[test]
fn the_real_server_asks_lines_to_leave_at_their_age() {
    let run = run_real(
        "churn",
        &[&CHURN[..], &["--by=server", "--age=2s"]].concat(),
    );
    assert_churned(&run);
    let left = run.figure("churn.lines_left");
    assert!(run.figure("churn.goaways") >= left);
}

#[test]
fn lines_that_are_handed_over_are_never_away() {
    let run = hand_over(Lie::None);
    assert_churned(&run);
    assert_all_handed_over(&run, "churn");
    assert_eq!(run.figure("messages.away"), 0.0);
}

#[test]
fn the_old_line_serves_until_the_new_one_is_taken() {
    let run = hand_over(Lie::RefuseReturn);
    assert_churned(&run);
    assert_all_handed_over(&run, "churn");
    assert!(run.figure("churn.refused_told") > 0.0);
    assert_eq!(run.figure("messages.away"), 0.0);
}

#[test]
fn every_lie_about_a_push_is_named_while_lines_are_handed_over() {
    let lies = [
        (Lie::Drop, "messages lost"),
        (Lie::Reorder, "messages misordered"),
        (Lie::IgnoreReturn, "messages lost"),
        (Lie::RepeatOnReturn, "messages duplicate"),
    ];
    assert_all_named(hand_over, &lies);
}

#[test]
fn the_real_server_loses_nothing_when_lines_are_handed_over() {
    let run = run_real(
        "churn",
        &[&CHURN[..], &["--by=server", "--age=2s", "--hand-over"]].concat(),
    );
    assert_churned(&run);
    assert_all_handed_over(&run, "churn");
    assert_eq!(run.figure("messages.away"), 0.0);
}

#[test]
fn who_takes_too_long_to_hand_over_is_closed_and_away() {
    let late = [
        "--connections=300",
        "--age=1s",
        "--warmup=1s",
        "--duration=2s",
        "--comeback=fixed:3s",
        "--by=server",
        "--hand-over",
    ];
    let run = run_real("churn", &late);
    assert!(run.passed, "{}", run.faults());
    assert!(run.figure("churn.lines_ended") > 0.0);
    assert_eq!(run.figure("churn.handed_over"), 0.0);
    assert!(run.figure("setbacks.closed with 4005 max_age") >= run.figure("churn.lines_ended"));
    let accepted = run.figure("messages.accepted");
    assert_eq!(run.figure("messages.received"), accepted);
    assert!(run.figure("messages.away") > 0.0);
}

#[test]
fn who_leaves_without_being_asked_has_nobody_to_hand_over_to() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["churn", "--by=device", "--hand-over"]);
    assert_refused(&command.output().unwrap(), "--by server");
}
