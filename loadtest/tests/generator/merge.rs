//! Several runs as one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{Run, SHORT, assert_refused, directory, output};

/// A run that has left its record.
struct Kept {
    _results: TempDir,
    path: PathBuf,
    run: Run,
}

fn push(server: &LyingServer, first_line: u32) -> Kept {
    let results = tempfile::tempdir().unwrap();
    let first_line = format!("--first-line={first_line}");
    let some = [&SHORT[..], &["--senders=2", &first_line]].concat();
    let output = output(server, results.path(), "push", &some);
    Kept {
        path: directory(results.path(), &output),
        run: Run::of(&output, results.path()),
        _results: results,
    }
}

fn loadtest(word: &str, paths: &[&Path], results: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(word).args(paths);
    if word == "merge" {
        command.arg("--record-dir").arg(results);
    }
    command.output().unwrap()
}

#[test]
fn runs_side_by_side_have_one_record_with_the_percentiles_of_all() {
    let server = LyingServer::start(Lie::None).unwrap();
    let runs = thread::scope(|scope| {
        let runs = [0, 40].map(|first| {
            scope.spawn({
                let server = &server;
                move || push(server, first)
            })
        });
        runs.map(|run| run.join().unwrap())
    });
    let [one, other] = &runs;
    let results = tempfile::tempdir().unwrap();
    let output = loadtest("merge", &[&one.path, &other.path], results.path());
    let merged = Run::of(&output, results.path());
    assert!(merged.passed, "{output:?}");
    let of_both = |key: &str| [one, other].map(|kept| kept.run.figure(key));
    for sum in [
        "messages.received",
        "push.status.200",
        "lines.opened",
        "push.rate",
    ] {
        assert_eq!(
            merged.figure(sum),
            of_both(sum).iter().sum::<f64>(),
            "{sum}"
        );
    }
    for latency in ["push.delivery", "push.round_trip", "ramp.open"] {
        for quantile in ["p50", "p99", "max"] {
            let key = format!("{latency}.{quantile}");
            let [a, b] = of_both(&key);
            let value = merged.figure(&key);
            assert!((a.min(b)..=a.max(b)).contains(&value), "{key}: {value}");
        }
    }
    let counts = [one, other].map(|kept| &kept.run.record["latencies"]["push.delivery"]["count"]);
    let counts = counts.map(|count| count.as_u64().unwrap());
    assert_eq!(
        merged.record["latencies"]["push.delivery"]["count"],
        counts[0] + counts[1]
    );
    let told = merged.record["notes"].to_string();
    for part in ["1 is ", "2 is ", "left out", "push.sender_cpu", "ramp.time"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!merged.series("2.lines.open").is_empty());
    let path = directory(results.path(), &output);
    for page in ["report.html", "chart.svg", "summary.md"] {
        let text = std::fs::read_to_string(path.join(page)).unwrap();
        assert!(text.contains("push.delivery"), "{page}");
    }
    for (word, paths) in [("report", &[&*path][..]), ("diff", &[&*path, &*path])] {
        let output = loadtest(word, paths, results.path());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn a_merge_with_a_failed_run_has_failed_and_says_whose_fault_it_is() {
    let runs = [Lie::None, Lie::Drop].map(|lie| push(&LyingServer::start(lie).unwrap(), 0));
    let results = tempfile::tempdir().unwrap();
    let output = loadtest("merge", &[&runs[0].path, &runs[1].path], results.path());
    let merged = Run::of(&output, results.path());
    assert_eq!(output.status.code(), Some(1));
    let lost = merged.figure("messages.lost");
    assert_eq!(lost, runs[1].run.figure("messages.lost"));
    let fault = format!("\"2: {lost} messages lost\"");
    assert!(merged.faults().contains(&fault), "{}", merged.faults());
    let warned = merged.record["warnings"].to_string();
    assert!(warned.contains("not at the same time"), "{warned}");
}

/// Writes a record with a percentile, and what it keeps of the latency.
fn record(directory: &TempDir, name: &str, scenario: &str, latencies: &Value) -> PathBuf {
    let record = json!({
        "scenario": scenario,
        "date": "2026-01-01T00:00:00Z",
        "source": {"commit": "abc", "dirty": false},
        "machine": {"host": "h", "cpu": "c", "cores": 2, "memory_bytes": 1, "kernel": "k"},
        "command": ["loadtest", name],
        "figures": [{"key": "push.delivery.p99", "value": 9.0, "unit": "µs"}],
        "faults": [],
        "warnings": [],
        "latencies": latencies,
    });
    let path = directory.path().join(name);
    std::fs::write(&path, record.to_string()).unwrap();
    path
}

#[test]
fn what_cannot_be_merged_ends_with_two_and_says_which_and_why() {
    let results = tempfile::tempdir().unwrap();
    let run = push(&LyingServer::start(Lie::None).unwrap(), 0);
    let good = &run.path;
    let kept = &run.run.record["latencies"];
    let mut old = kept.clone();
    old["push.delivery"]
        .as_object_mut()
        .unwrap()
        .remove("histogram");
    let mut bad = kept.clone();
    bad["push.delivery"]["histogram"] = json!("AAAA");
    let write = |name, scenario, latencies| record(&results, name, scenario, latencies);
    let no_histogram = "no histogram of `push.delivery`";
    for (name, scenario, latencies, why) in [
        ("idle.json", "idle", kept, "merge those of one scenario"),
        ("compare.json", "compare", kept, "is a comparison"),
        ("old.json", "push", &old, no_histogram),
        ("older.json", "push", &json!({}), no_histogram),
        ("bad.json", "push", &bad, "cannot be read"),
    ] {
        let path = write(name, scenario, latencies);
        let output = loadtest("merge", &[good, &path], results.path());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_refused(&output, why);
        assert_refused(&output, name);
    }
    let twice = loadtest("merge", &[good, good], results.path());
    assert_eq!(twice.status.code(), Some(2));
    assert_refused(&twice, "is the same run");
    let alone = loadtest("merge", &[good], results.path());
    assert_eq!(alone.status.code(), Some(2));
}
