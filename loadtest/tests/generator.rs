//! The generator against servers that are honest and servers that lie: the honest pass, every lie is named.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod lying_server;

use std::process::{Command, Output};

use lying_server::{Lie, LyingServer};
use serde_json::Value;

/// A finished run: whether it passed, and its record.
struct Run {
    passed: bool,
    record: Value,
}

impl Run {
    fn figure(&self, key: &str) -> f64 {
        let figures = self.record["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["key"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {}", self.record))["value"]
            .as_f64()
            .unwrap()
    }

    fn faults(&self) -> String {
        self.record["faults"].to_string()
    }
}

/// Runs a scenario against a server with this lie; few lines, so that it takes seconds.
fn run(lie: Lie, scenario: &str, more: &[&str]) -> Run {
    let server = LyingServer::start(lie).unwrap();
    let results = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(scenario).args(more);
    command.args(["--target", &format!("ws://{}", server.devices)]);
    command.arg("--record-dir").arg(results.path());
    if scenario == "push" {
        command.args(["--api", &format!("http://{}", server.api)]);
    }
    let output = command.output().unwrap();
    Run {
        passed: output.status.success(),
        record: read_record(results.path(), &output),
    }
}

fn read_record(results: &std::path::Path, output: &Output) -> Value {
    let mut directories = std::fs::read_dir(results).unwrap();
    let directory = directories
        .next()
        .unwrap_or_else(|| panic!("no record: {output:?}"))
        .unwrap();
    let text = std::fs::read_to_string(directory.path().join("record.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn idle(lie: Lie) -> Run {
    run(
        lie,
        "idle",
        &[
            "--connections",
            "300",
            "--ramp",
            "600/s",
            "--hold",
            "1500ms",
        ],
    )
}

fn push(lie: Lie) -> Run {
    let short = [
        "--connections",
        "40",
        "--senders",
        "4",
        "--duration",
        "700ms",
        "--warmup",
        "100ms",
    ];
    run(lie, "push", &short)
}

#[test]
fn honest_lines_open_and_answer_pings() {
    let run = idle(Lie::None);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("lines.opened"), 300.0);
    assert_eq!(run.figure("lines.failed") + run.figure("lines.lost"), 0.0);
    let last = run.record["points"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (last["open"].as_u64(), last["pings"].as_u64()),
        (Some(300), Some(300))
    );
}

#[test]
fn refused_lines_fail_the_run_with_their_status() {
    let run = idle(Lie::RefuseLine);
    assert!(!run.passed);
    assert_eq!(run.figure("lines.failed"), 30.0);
    assert!(
        run.faults().contains("30 × HTTP status 503"),
        "{}",
        run.faults()
    );
}

#[test]
fn lost_lines_fail_the_run_with_their_close_code() {
    let run = idle(Lie::CloseLine);
    assert!(!run.passed);
    assert_eq!(run.figure("lines.lost"), 30.0);
    assert!(
        run.faults().contains("30 × closed with 4000 drain"),
        "{}",
        run.faults()
    );
}

#[test]
fn failures_can_be_allowed() {
    let run = run(
        Lie::RefuseLine,
        "idle",
        &[
            "--connections",
            "50",
            "--hold",
            "200ms",
            "--failures-max",
            "5",
        ],
    );
    assert!(run.passed, "{}", run.faults());
}

#[test]
fn honest_pushes_all_arrive() {
    let run = push(Lie::None);
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("messages.received"), sent);
    assert_eq!(run.figure("messages.accepted"), sent);
    assert!(run.figure("push.delivery.p99") >= run.figure("push.delivery.p50"));
}

#[test]
fn an_open_loop_never_exceeds_its_rate() {
    let arrivals = [
        "--rate",
        "400/s",
        "--spread",
        "uniform",
        "--duration",
        "1s",
        "--warmup",
        "0s",
    ];
    let lines = [
        "--connections",
        "40",
        "--senders",
        "2",
        "--pipeline",
        "4",
        "--body-bytes",
        "200",
    ];
    let run = run(Lie::None, "push", &[arrivals, lines].concat());
    assert!(run.passed, "{}", run.faults());
    // How many of the 401 fit in depends on when the thread got to run; more would break the schedule.
    assert!((1.0..=401.0).contains(&run.figure("messages.sent")));
}

#[test]
fn every_lie_is_named() {
    for (lie, name) in [
        (Lie::Drop, "lost"),
        (Lie::Duplicate, "duplicate"),
        (Lie::Reorder, "misordered"),
        (Lie::Misdeliver, "misdelivered"),
        (Lie::Refuse, "refused, 0 unknown"),
        (Lie::RefuseAndDeliver, "refused yet delivered"),
        (Lie::Damage, "foreign"),
    ] {
        let run = push(lie);
        assert!(!run.passed, "{lie:?} went unnoticed");
        assert!(
            run.faults().contains(&format!("messages {name}")),
            "{lie:?}: {}",
            run.faults()
        );
    }
}

#[test]
fn a_server_that_is_not_there_fails_every_line() {
    let results = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "idle",
            "--connections",
            "20",
            "--hold",
            "0s",
            "--target",
            &closed.to_string(),
        ])
        .arg("--record-dir")
        .arg(results.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let record = read_record(results.path(), &output);
    assert!(
        record["faults"]
            .to_string()
            .contains("20 × connection refused"),
        "{record}"
    );
}
