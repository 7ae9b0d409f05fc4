//! Devices that vanish without a word.

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_named, assert_named, run, run_against,
    run_real,
};

const HALFOPEN: [&str; 7] = [
    "--connections=300",
    "--share=0.1",
    "--calm=500ms",
    "--after=500ms",
    "--probe-rate=300",
    "--comeback=at-once",
    "--seed=7",
];

#[test]
fn the_real_server_notices_who_has_vanished() {
    let run = run_real("halfopen", &[&HALFOPEN[..], &["--ping-after=1s"]].concat());
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("halfopen.vanished"), 30.0);
    assert_eq!(run.figure("halfopen.noticed"), 30.0);
    assert_eq!(run.figure("halfopen.lines_back"), 30.0);
    // It went on promising until then, and nothing of that arrived.
    assert!(run.figure("halfopen.promised_in_vain") > 0.0);
    assert!(run.figure("messages.away") >= 30.0);
    assert_eq!(run.figure("messages.lost"), 0.0);
}

#[test]
fn a_server_that_promises_to_the_vanished_for_good_fails_the_run() {
    let run = run(
        Lie::None,
        "halfopen",
        &[&HALFOPEN[..], &["--notice-max=1s"]].concat(),
    );
    let fault = "of 30 vanished lines, 30 were not noticed within 1s";
    assert_named(&run, Lie::None, fault);
    assert_eq!(run.figure("halfopen.lines_back"), 30.0);
}

/// Against a server that notices who is gone.
fn halfopen(lie: Lie) -> Run {
    let server = LyingServer::start(lie).unwrap().with_heartbeats();
    let some = ["--notice-max=10s", "--back-timeout=3s"];
    run_against(&server, "halfopen", &[&HALFOPEN[..], &some].concat())
}

#[test]
fn every_lie_about_a_push_is_counted_while_some_have_vanished() {
    assert_all_counted(halfopen, &LIES);
    let more = (Lie::BarReturn, "3 lines did not come back in time");
    assert_all_named(halfopen, &[ANSWER_TWICE, more]);
}

#[test]
fn an_honest_server_notices_and_takes_back_who_had_vanished() {
    let run = halfopen(Lie::None);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("halfopen.noticed"), 30.0);
    assert_eq!(run.figure("halfopen.lines_back"), 30.0);
    assert!(run.figure("halfopen.promised_in_vain") > 0.0);
    assert_eq!(run.figure("messages.lost"), 0.0);
}
