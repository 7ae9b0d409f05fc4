//! A comparison of few lines with the small server on axum, which needs nothing that is not here.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::run::{Run, assert_refused, built};

fn compare(more: &[&str]) -> (Run, Output) {
    let results = tempfile::tempdir().unwrap();
    // Nothing has been fetched, whatever this machine has.
    let rivals = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command
        .arg("compare")
        .args(more)
        .args(["--connections=40", "--senders=2"]);
    command.arg("--server").arg(built("tautline"));
    command
        .arg("--axum-server")
        .arg(built("examples/axum_server"));
    command.arg("--record-dir").arg(results.path());
    let output = command
        .env("LOADTEST_RIVALS_DIR", rivals.path())
        .output()
        .unwrap();
    (Run::of(&output, results.path()), output)
}

fn rounds(run: &Run, key: &str) -> usize {
    let figures = run.record["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["key"] == key);
    figure.unwrap_or_else(|| panic!("no {key}"))["rounds"]
        .as_array()
        .map_or(0, Vec::len)
}

#[test]
fn every_make_pushes_in_every_round() {
    let (run, output) = compare(&[
        "--rivals=axum",
        "--trials=push,push.queued,push.pipelined",
        "--rounds=2",
        "--duration=300ms",
    ]);
    assert!(run.passed, "{}", run.faults());
    for make in ["tautline", "axum"] {
        for name in [
            "cpu_per_push",
            "cpu_per_push_queued",
            "cpu_per_push_pipelined",
            "pushes",
            "push_p50",
            "push_p99",
        ] {
            assert_eq!(rounds(&run, &format!("compare.{make}.{name}")), 2);
        }
    }
    assert!(run.figure("ratio.axum.cpu_per_push") > 0.0);
    let notes = run.record["notes"].to_string();
    assert!(
        notes.contains("axum: ") && notes.contains("jemalloc"),
        "{notes}"
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("cpu_per_push") && table.contains("× ours"),
        "{table}"
    );
}

#[test]
fn idle_lines_are_compared_by_memory_heartbeats_and_how_they_come() {
    let (run, _) = compare(&[
        "--rivals=axum",
        "--trials=idle",
        "--rounds=1",
        "--hold=3s",
        "--ping-after=1s",
    ]);
    assert!(run.passed, "{}", run.faults());
    for make in ["tautline", "axum"] {
        for name in [
            "bytes_per_line",
            "bytes_per_line_all",
            "new_lines",
            "cpu_per_ping",
            "cpu_per_new_line",
        ] {
            assert!(run.figure(&format!("compare.{make}.{name}")) >= 0.0);
        }
    }
}

#[test]
fn who_cannot_be_measured_is_never_left_out_in_silence() {
    let (run, output) = compare(&[
        "--rivals=bun",
        "--trials=push",
        "--rounds=1",
        "--duration=200ms",
    ]);
    assert!(!run.passed);
    let faults = run.faults();
    for part in [
        "bun could not be measured",
        "loadtest install bun",
        "bun has no cpu_per_push",
    ] {
        assert!(faults.contains(part), "{part} in {faults}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("not measured"), "{table}");
    assert_eq!(
        run.record["figures"].as_array().map(Vec::is_empty),
        Some(false),
        "ours is there"
    );
}

#[test]
fn more_lines_than_others_have_descriptors_for_are_refused() {
    let limited = "ulimit -n 2000; exec \"$0\" compare --no-record --connections=1500";
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-c", limited, env!("CARGO_BIN_EXE_loadtest")])
        .output()
        .unwrap();
    assert_refused(&output, "limit of 2000 open files");
}
