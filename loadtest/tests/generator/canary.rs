//! The canary, and runs side by side.

use std::thread;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_named, assert_counted, output, run, run_against,
};

const CANARY: [&str; 4] = [
    "--connections=60",
    "--hold=700ms",
    "--canary=10",
    "--canary-rate=200",
];

#[test]
fn a_canary_sings_through_every_phase() {
    let run = run(Lie::None, "idle", &CANARY);
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("canary.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("canary.received"), sent);
    assert_eq!(run.figure("canary.lost"), 0.0);
    assert_eq!(run.figure("lines.opened"), 60.0);
    assert!(run.figure("canary.max") >= run.figure("canary.p99"));
    assert!(run.figure("canary.hold.p99") >= run.figure("canary.hold.p50"));
}

/// Each lie is counted; what goes astray comes to a measured line, which nothing is sent to.
fn assert_canary_notices(scenario: impl Fn(Lie) -> Run + Sync) {
    thread::scope(|scope| {
        for (lie, figure) in LIES {
            let account = match figure {
                "misdelivered" => "messages",
                _ => "canary",
            };
            let scenario = &scenario;
            scope.spawn(move || assert_counted(&scenario(lie), lie, account, figure));
        }
    });
    assert_all_named(&scenario, &[ANSWER_TWICE]);
    let honest = scenario(Lie::None);
    assert!(honest.passed, "{}", honest.faults());
}

#[test]
fn every_lie_to_a_canary_is_counted() {
    assert_canary_notices(|lie| run(lie, "idle", &CANARY));
}

#[test]
fn every_lie_to_a_canary_is_counted_in_a_storm_without_other_messages() {
    let storm = [
        "--connections=60",
        "--calm=500ms",
        "--after=500ms",
        "--push-rate=0",
        "--comeback=fixed:100ms",
        "--canary=10",
        "--canary-rate=200",
    ];
    assert_canary_notices(|lie| run(lie, "storm", &storm));
}

#[test]
fn what_comes_to_lines_of_a_rung_is_counted() {
    let rung = [
        "--from=60",
        "--to=60",
        "--rung=1s",
        "--open-max=20s",
        "--canary=10",
        "--canary-rate=200",
    ];
    let run = run(Lie::Copy, "connect", &rung);
    assert_counted(&run, Lie::Copy, "messages", "misdelivered");
}

#[test]
fn a_canary_that_is_ill_before_it_begins_is_an_error() {
    let server = LyingServer::start(Lie::RefuseLine).unwrap();
    let results = tempfile::tempdir().unwrap();
    let output = output(&server, results.path(), "idle", &CANARY);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("1 × HTTP status 503"), "{text}");
}

#[test]
fn runs_side_by_side_share_no_line() {
    let server = LyingServer::start(Lie::None).unwrap();
    for first in ["--first-line=0", "--first-line=60"] {
        let run = run_against(&server, "idle", &[&CANARY[..], &[first]].concat());
        assert!(run.passed, "{}", run.faults());
    }
    assert_eq!(server.device_names().len(), 2 * (60 + 10));
}
