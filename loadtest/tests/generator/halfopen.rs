//! Devices that vanish without a word.

use crate::lying_server::Lie;
use crate::run::{assert_named, run, run_real};

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

#[test]
fn what_is_lost_on_lines_that_stay_is_no_fault_of_those_that_vanish() {
    let run = run(
        Lie::Drop,
        "halfopen",
        &[&HALFOPEN[..], &["--notice-max=1s"]].concat(),
    );
    assert_named(&run, Lie::Drop, "messages lost");
}
