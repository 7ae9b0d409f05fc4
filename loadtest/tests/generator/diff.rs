//! Two records side by side, as scripts use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes a record with these figures.
fn record(directory: &TempDir, name: &str, figures: &[(&str, Value, &str)]) -> PathBuf {
    let figures: Vec<Value> = figures
        .iter()
        .map(|(key, value, unit)| match value.as_array() {
            None => json!({"key": key, "value": value, "unit": unit}),
            Some(rounds) => json!({"key": key, "value": rounds[1], "unit": unit, "rounds": rounds}),
        })
        .collect();
    let record = json!({
        "scenario": "push",
        "date": "2026-01-01T00:00:00Z",
        "source": {"commit": "abc", "dirty": false},
        "machine": {"host": "h", "cpu": "c", "cores": 2, "memory_bytes": 1, "kernel": "k"},
        "command": ["loadtest", "push"],
        "figures": figures,
        "faults": [],
        "warnings": [],
    });
    let path = directory.path().join(name);
    std::fs::write(&path, record.to_string()).unwrap();
    path
}

fn diff(before: &Path, after: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .arg("diff")
        .args([before, after])
        .args(more)
        .output()
        .unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn nothing_worse_ends_with_zero_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let before = record(
        &directory,
        "a",
        &[
            ("push.rate", json!(100.0), "/s"),
            ("server.rss", json!(50.0), "B"),
        ],
    );
    let after = record(
        &directory,
        "b",
        &[
            ("push.rate", json!(110.0), "/s"),
            ("server.rss", json!(20.0), "B"),
        ],
    );
    let (code, text) = diff(&before, &after, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("server.rss") && text.contains("better"),
        "{text}"
    );
    assert!(!text.contains("push.rate"), "within the noise: {text}");
    assert!(diff(&before, &after, &["--all"]).1.contains("push.rate"));
}

#[test]
fn something_worse_ends_with_one_and_says_what() {
    let directory = tempfile::tempdir().unwrap();
    let before = record(
        &directory,
        "a",
        &[("push.rate", json!([90.0, 100.0, 110.0]), "/s")],
    );
    let after = record(
        &directory,
        "b",
        &[("push.rate", json!([70.0, 80.0, 85.0]), "/s")],
    );
    let (code, text) = diff(&before, &after, &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["push.rate", "WORSE", "-20.0 %", "90.00 /s … 110 /s"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn noise_can_be_told() {
    let directory = tempfile::tempdir().unwrap();
    let before = record(&directory, "a", &[("push.rate", json!(100.0), "/s")]);
    let after = record(&directory, "b", &[("push.rate", json!(80.0), "/s")]);
    assert_eq!(diff(&before, &after, &[]).0, Some(0));
    assert_eq!(diff(&before, &after, &["--noise=2%"]).0, Some(1));
}

#[test]
fn what_cannot_be_compared_ends_with_two_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let good = record(&directory, "a", &[("push.rate", json!(100.0), "/s")]);
    let other = record(&directory, "b", &[("other", json!(100.0), "/s")]);
    let (code, text) = diff(&good, &other, &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no figure in common"), "{text}");
    let (code, text) = diff(&good, &directory.path().join("missing"), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("missing"), "{text}");
    assert_eq!(diff(&good, &good, &["--noise=7"]).0, Some(2));
}
