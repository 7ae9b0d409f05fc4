//! Lines that are cut and come back.

use std::thread;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, assert_all_counted, assert_all_named, assert_named, assert_refused,
    output, run, run_real,
};

const STORM: [&str; 7] = [
    "--connections=300",
    "--calm=600ms",
    "--after=400ms",
    "--comeback=fixed:100ms",
    "--back-timeout=20s",
    "--push-rate=600",
    "--seed=7",
];

fn storm(lie: Lie, more: &[&str]) -> Run {
    run(lie, "storm", &[&STORM[..], more].concat())
}

/// All of so many lines were cut, and came back.
fn assert_back(run: &Run, lines: f64) {
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("storm.lines_ended"), lines);
    assert_eq!(run.figure("storm.lines_back"), lines);
    assert_eq!(run.figure("storm.lines_not_back"), 0.0);
    assert!(run.figure("storm.attempts") >= lines);
    assert!(run.figure("storm.back_100") >= run.figure("storm.back_50"));
    assert!(run.figure("messages.received") > 0.0);
    assert_eq!(run.figure("messages.lost"), 0.0);
}

#[test]
fn lines_come_back_however_they_are_cut() {
    thread::scope(|scope| {
        for cut in ["reset", "fin", "silence"] {
            scope.spawn(move || {
                let run = storm(Lie::None, &["--cut", cut]);
                assert_back(&run, 300.0);
                assert_eq!(run.figure("storm.lines_cut"), 300.0, "{cut}");
                assert_eq!(run.figure("storm.attempts_max"), 1.0, "{cut}");
            });
        }
    });
}

#[test]
fn a_share_of_the_lines_is_cut_and_the_others_notice_nothing() {
    let some = ["--share=0.25", "--canary=5", "--canary-rate=100"];
    let run = storm(Lie::None, &some);
    assert_back(&run, 75.0);
    let sung = run.figure("canary.sent");
    assert!(sung > 0.0);
    assert_eq!(run.figure("canary.received"), sung);
    assert!(run.figure("canary.storm.max") > 0.0);
}

#[test]
fn a_storm_leaves_curves() {
    let run = storm(Lie::None, &["--canary=5", "--canary-rate=100"]);
    for (name, unit) in [
        ("lines.open", ""),
        ("lines.opened", "/s"),
        ("generator.cpu", "cores"),
        ("delivery.p50", "µs"),
        ("canary.max", "µs"),
    ] {
        let series = &run.record["series"][name];
        assert_eq!(series["unit"], unit, "{name}");
        let points = series["points"].as_array().unwrap();
        let at = |n: usize| points[n][0].as_f64().unwrap();
        assert!((1..points.len()).all(|n| at(n - 1) < at(n)), "{name}");
        assert!(points.len() > 5 && points[0][1].is_number(), "{name}");
    }
}

#[test]
fn refused_comebacks_are_told_apart_by_what_they_are_told() {
    let told = storm(Lie::RefuseReturn, &["--comeback=hint"]);
    assert_back(&told, 300.0);
    assert_eq!(told.figure("storm.refused_told"), 30.0);
    assert_eq!(told.figure("storm.refused_untold"), 0.0);
    assert_eq!(told.figure("storm.attempts_max"), 2.0);
    let blunt = storm(
        Lie::RefuseReturnBluntly,
        &["--comeback=backoff:50ms..100ms"],
    );
    let fault = "30 comebacks were refused without a word about when to try again";
    assert_named(&blunt, Lie::RefuseReturnBluntly, fault);
    assert_eq!(blunt.figure("storm.lines_back"), 300.0);
    assert_eq!(blunt.figure("storm.refused_told"), 0.0);
    assert_eq!(blunt.figure("storm.refused_untold"), 30.0);
    assert_eq!(blunt.figure("storm.attempts"), 330.0);
    assert_eq!(blunt.figure("setbacks.HTTP status 503"), 30.0);
}

#[test]
fn lines_that_are_not_taken_back_fail_the_run() {
    let run = storm(Lie::BarReturn, &["--back-timeout=8s"]);
    let fault = "[\"30 lines did not come back in time";
    assert_named(&run, Lie::BarReturn, fault);
    assert_eq!(run.figure("storm.lines_back"), 270.0);
}

#[test]
fn every_lie_about_a_push_is_counted_in_a_storm() {
    let lies = [&LIES[..], &[(Lie::IgnoreReturn, "lost")]].concat();
    for cut in ["--cut=reset", "--cut=silence"] {
        // Long enough after the storm that a lie meets a line that is there.
        let storm = |lie| storm(lie, &["--after=2s", cut]);
        assert_all_counted(storm, &lies);
        assert_all_named(storm, &[ANSWER_TWICE]);
    }
}

#[test]
fn a_node_that_is_killed_and_started_again_gets_its_lines_back() {
    let run = run_real(
        "storm",
        &[&STORM[..], &["--cut=kill", "--down=300ms"]].concat(),
    );
    assert_back(&run, 300.0);
    assert_eq!(run.figure("storm.lines_cut"), 0.0);
    assert!(run.figure("storm.unreached") > 0.0);
    assert!(run.figure("push.mended") > 0.0);
}

#[test]
fn only_a_server_of_ones_own_can_be_killed() {
    let server = LyingServer::start(Lie::None).unwrap();
    let results = tempfile::tempdir().unwrap();
    let output = output(&server, results.path(), "storm", &["--cut=kill"]);
    assert_refused(&output, "started here");
}
