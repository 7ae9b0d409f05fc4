//! Everything at once.

use std::process::Command;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_named, assert_named, assert_refused,
    output, run, run_real,
};

const SOAK: [&str; 13] = [
    "--connections=240",
    "--duration=4s",
    "--cycle=4s",
    "--age=3s",
    "--storm-share=0.5",
    "--slow-share=0.05",
    "--vanish-share=0.05",
    "--slow-rate=20",
    "--slow-bytes=24",
    "--d2d-senders=2",
    "--d2d-lines=10",
    "--d2d-rate=100",
    "--comeback=fixed:100ms",
];

fn soak(lie: Lie, more: &[&str]) -> Run {
    run(lie, "soak", &[&SOAK[..], more].concat())
}

fn assert_sound(run: &Run) {
    assert!(run.passed, "{}", run.faults());
    assert!(run.figure("soak.lines_left") > 0.0);
    assert!(run.figure("soak.lines_back") > 0.0);
    for part in ["push.status.200", "probe.status.200", "d2d.status.written"] {
        assert!(run.figure(part) > 0.0, "{part}");
    }
    for fault in ["lost", "duplicate", "misordered", "misdelivered"] {
        assert_eq!(run.figure(&format!("messages.{fault}")), 0.0, "{fault}");
    }
    let ends = ["accepted", "doubtful", "away", "refused", "unknown"];
    let sum: f64 = ends
        .map(|end| run.figure(&format!("messages.{end}")))
        .iter()
        .sum();
    assert_eq!(sum, run.figure("messages.sent"), "one end for each");
}

#[test]
fn everything_at_once_is_accounted_for() {
    let run = soak(Lie::None, &["--storms=reset"]);
    assert_sound(&run);
    assert!(run.figure("soak.lines_cut") > 4.0);
}

#[test]
fn every_lie_is_counted_in_a_soak() {
    let lies = [&LIES[..], &[(Lie::IgnoreReturn, "lost")]].concat();
    // Few leave or are cut, since who is away may be refused messages.
    let calm = |lie| soak(lie, &["--storms=fin", "--age=12s", "--storm-share=0.3"]);
    assert_all_counted(calm, &lies);
    assert_all_named(calm, &[ANSWER_TWICE]);
}

#[test]
fn lines_that_are_not_taken_back_fail_the_soak() {
    let run = soak(Lie::BarReturn, &["--storms=reset", "--back-timeout=1s"]);
    assert_named(&run, Lie::BarReturn, "lines did not come back in time");
}

#[test]
fn who_cannot_be_started_again_is_not_killed() {
    let results = tempfile::tempdir().unwrap();
    let server = LyingServer::start(Lie::None).unwrap();
    let told = output(&server, results.path(), "soak", &["--storms=fin,kill"]);
    assert_refused(&told, "must have been started here");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["soak", "--against=axum", "--d2d-rate=0", "--storms=kill"]);
    assert_refused(&command.output().unwrap(), "only tautline is started again");
}

#[test]
fn the_real_server_stands_it_all_and_a_killed_node() {
    let long = ["--duration=8s", "--storms=silence,kill"];
    let run = run_real("soak", &[&SOAK[..], &long].concat());
    assert_sound(&run);
    assert_eq!(run.figure("soak.cycles"), 2.0);
    assert!(run.figure("soak.unreached") > 0.0);
}
