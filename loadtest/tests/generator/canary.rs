//! The canary, and runs side by side.

use crate::lying_server::{Lie, LyingServer};
use crate::run::{assert_named, output, run, run_against};

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

#[test]
fn what_a_canary_misses_fails_the_run() {
    for (lie, fault) in [
        (Lie::Drop, "messages lost"),
        (Lie::Misdeliver, "messages misdelivered"),
        (Lie::Refuse, "messages refused, 0 unknown"),
    ] {
        let run = run(lie, "idle", &CANARY);
        assert!(run.faults().contains("canary: "), "{}", run.faults());
        assert_named(&run, lie, fault);
    }
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
