//! A node that is asked to leave.

use std::process::Command;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_handed_over, assert_all_named,
    assert_named, assert_refused, output, run_against, run_real,
};

const DRAIN: [&str; 7] = [
    "--connections=300",
    "--calm=300ms",
    "--after=500ms",
    "--deadline=3s",
    "--interval=300ms",
    "--comeback=backoff:100ms..500ms",
    "--seed=7",
];

fn drain(more: &[&str]) -> Run {
    let run = run_real("drain", &[&DRAIN[..], more].concat());
    assert!(run.passed, "{more:?}: {}", run.faults());
    assert_eq!(run.figure("drain.lines_ended"), 300.0, "{more:?}");
    assert_eq!(run.figure("drain.lines_back"), 300.0, "{more:?}");
    assert!(run.figure("drain.goaways") > 0.0);
    run
}

/// Nothing that was promised was lost.
fn assert_polite(run: &Run) {
    let accepted = run.figure("messages.accepted");
    assert!(accepted > 0.0);
    assert_eq!(run.figure("messages.received"), accepted);
    assert_eq!(run.figure("messages.doubtful"), 0.0);
}

#[test]
fn a_node_that_is_restarted_gets_its_lines_back() {
    let run = drain(&["--by=signal"]);
    assert_polite(&run);
    assert!(run.figure("push.mended") > 0.0);
}

#[test]
fn a_node_that_is_drained_by_its_api_is_taken_back_into_service() {
    let run = drain(&["--by=api"]);
    assert_polite(&run);
    assert_eq!(run.figure("drain.refused_untold"), 0.0);
}

#[test]
fn lines_move_to_the_next_node_and_those_that_do_not_listen_are_closed() {
    let run = drain(&["--next", "--ignore-goaway=0.5"]);
    assert_eq!(run.figure("drain.attempts"), 300.0);
    assert!(run.figure("drain.lines_left") <= 150.0);
    assert!(run.figure("setbacks.closed with 4000 drain") >= 150.0);
    assert!(
        run.record["warnings"]
            .to_string()
            .contains("nothing was pushed")
    );
}

#[test]
fn lines_are_handed_over_to_the_next_node() {
    let patient = [
        "--connections=300",
        "--calm=300ms",
        "--after=500ms",
        "--deadline=6s",
        "--interval=300ms",
        "--comeback=hint",
        "--next",
        "--hand-over",
    ];
    let run = run_real("drain", &patient);
    assert!(run.passed, "{}", run.faults());
    assert_all_handed_over(&run, "drain");
    assert_eq!(run.figure("drain.handed_over"), 300.0);
}

#[test]
fn both_nodes_are_restarted_one_after_the_other() {
    let rolling = [&DRAIN[..], &["--next", "--rounds=2"]].concat();
    let run = run_real("drain", &rolling);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("drain.lines_ended"), 600.0);
    assert_eq!(run.figure("drain.lines_back"), 600.0);
    assert_eq!(run.figure("drain.lines_left"), 600.0, "all were asked");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["drain", "--rounds=2"]);
    assert_refused(&command.output().unwrap(), "--next --by signal");
}

#[test]
fn a_server_that_does_not_drain_is_an_error() {
    let server = LyingServer::start(Lie::None).unwrap();
    let results = tempfile::tempdir().unwrap();
    let few = [
        "--connections=5",
        "--calm=0s",
        "--push-rate=0",
        "--drain-path=/nowhere",
    ];
    let output = output(&server, results.path(), "drain", &few);
    assert_refused(&output, "the API does not do as it is asked");
}

/// A lying server drains at the API's word, or by itself; some lines stay until they are closed.
fn drain_liar(lie: Lie, by: &str) -> Run {
    let mut server = LyingServer::start(lie).unwrap();
    if by == "--by=hand" {
        server = server.draining_at(400);
    }
    let more = [
        by,
        "--connections=200",
        "--calm=300ms",
        "--after=1500ms",
        "--push-rate=600",
        "--ignore-goaway=0.5",
        "--comeback=fixed:50ms",
        "--deadline=2s",
        "--back-timeout=3s",
    ];
    run_against(&server, "drain", &more)
}

#[test]
fn every_lie_about_a_push_is_counted_in_a_drain() {
    let own = [(Lie::IgnoreReturn, "lost"), (Lie::ForgetAsked, "lost")];
    let lies = [&LIES[..], &own].concat();
    for by in ["--by=api", "--by=hand"] {
        assert_all_counted(|lie| drain_liar(lie, by), &lies);
        assert_all_named(|lie| drain_liar(lie, by), &[ANSWER_TWICE]);
    }
}

#[test]
fn an_honest_drain_asks_all_lines_and_closes_those_that_stay() {
    let run = drain_liar(Lie::None, "--by=hand");
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("drain.lines_ended"), 200.0);
    assert_eq!(run.figure("drain.lines_back"), 200.0);
    assert!(run.figure("drain.lines_left") <= 100.0);
    assert!(run.figure("setbacks.closed with 4000 drain") >= 100.0);
    assert_polite(&run);
}

#[test]
fn lines_that_a_drain_leaves_where_they_are_or_that_are_not_taken_back_fail_it() {
    let run = drain_liar(Lie::KeepLine, "--by=api");
    assert_named(&run, Lie::KeepLine, "20 of 200 lines did not leave");
    assert_eq!(run.figure("drain.lines_ended"), 180.0);
    let run = drain_liar(Lie::BarReturn, "--by=hand");
    assert_named(&run, Lie::BarReturn, "20 lines did not come back in time");
}

#[test]
fn a_canary_whose_lines_would_be_ended_as_well_is_refused() {
    for (scenario, by) in [("drain", "--by=signal"), ("churn", "--by=server")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args([scenario, by, "--canary=5"]);
        assert_refused(&command.output().unwrap(), "the canary's lines");
    }
}

#[test]
fn who_cannot_be_started_again_or_twice_is_not_drained() {
    for more in ["--by=signal", "--next"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(["drain", "--against=axum", "--push-rate=0", more]);
        assert_refused(&command.output().unwrap(), "only tautline is started again");
    }
}

#[test]
fn a_node_without_another_one_is_not_handed_over_from() {
    for by in ["--by=signal", "--by=api"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(["drain", by, "--hand-over"]);
        assert_refused(&command.output().unwrap(), "--hand-over with --next");
    }
}

#[test]
fn strikes_know_nothing_of_lines_that_are_handed_over() {
    for scenario in ["storm", "soak", "slow", "halfopen"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args([scenario, "--hand-over"]);
        assert_refused(&command.output().unwrap(), "unexpected argument");
    }
}
