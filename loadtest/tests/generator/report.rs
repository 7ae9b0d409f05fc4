//! What a run leaves for people.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{SHORT, output};

/// The directory of a run against a server with this lie.
fn pushed(lie: Lie) -> (TempDir, PathBuf) {
    let server = LyingServer::start(lie).unwrap();
    let results = tempfile::tempdir().unwrap();
    let some = [&SHORT[..], &["--senders=2"]].concat();
    output(&server, results.path(), "push", &some);
    let directory = fs::read_dir(results.path()).unwrap().next().unwrap();
    let path = directory.unwrap().path();
    (results, path)
}

#[test]
fn a_run_leaves_a_page_with_its_curves_and_latencies() {
    let (_results, run) = pushed(Lie::None);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "push: ",
        "passed",
        "messages.received",
        "lines.open",
        "lines.messages",
        "push.delivery",
        "99.9",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Latencies; lines, memory, CPU, lines and messages per second, the kernel's memory.
    assert_eq!(page.matches("<svg").count(), 7);
    for foreign in ["<script", "src=", "href=", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let picture = fs::read_to_string(run.join("chart.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("push.delivery"));
}

#[test]
fn faults_stand_on_the_page_and_in_the_summary() {
    let (_results, run) = pushed(Lie::Drop);
    for file in ["report.html", "summary.md"] {
        let text = fs::read_to_string(run.join(file)).unwrap();
        assert!(
            text.contains("messages lost") && text.contains("failed"),
            "{file}"
        );
    }
}

#[test]
fn a_page_can_be_written_again_from_the_record() {
    let (_results, run) = pushed(Lie::None);
    let page = || fs::read_to_string(run.join("report.html")).unwrap();
    let plots = |page: &str| page.matches("<svg").count();
    let first = page();
    fs::write(run.join("report.html"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let status = command.arg("report").arg(&run).output().unwrap().status;
    assert!(status.success());
    let again = page();
    assert!(again.contains("messages.received") && again.contains("passed"));
    assert_eq!(plots(&again), plots(&first));
}
