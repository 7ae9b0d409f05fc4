//! Running the generator, and reading what it leaves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

use crate::lying_server::{Lie, LyingServer};

/// A finished run: whether it passed, and its record.
pub(crate) struct Run {
    pub(crate) passed: bool,
    pub(crate) record: Value,
}

impl Run {
    /// What a generator has left in `results`.
    pub(crate) fn of(output: &Output, results: &Path) -> Self {
        Self {
            passed: output.status.success(),
            record: read_record(results, output),
        }
    }

    pub(crate) fn figure(&self, key: &str) -> f64 {
        let figures = self.record["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["key"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {}", self.record))["value"]
            .as_f64()
            .unwrap()
    }

    /// A curve: seconds and values.
    pub(crate) fn series(&self, name: &str) -> Vec<(f64, f64)> {
        let points = self.record["series"][name]["points"].clone();
        serde_json::from_value(points).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn faults(&self) -> String {
        self.record["faults"].to_string()
    }
}

/// Runs a scenario against a server with this lie; few lines, so that it takes seconds.
pub(crate) fn run(lie: Lie, scenario: &str, more: &[&str]) -> Run {
    run_against(&LyingServer::start(lie).unwrap(), scenario, more)
}

pub(crate) fn run_against(server: &LyingServer, scenario: &str, more: &[&str]) -> Run {
    let results = tempfile::tempdir().unwrap();
    let output = output(server, results.path(), scenario, more);
    Run::of(&output, results.path())
}

pub(crate) fn output(
    server: &LyingServer,
    results: &Path,
    scenario: &str,
    more: &[&str],
) -> Output {
    let target = format!("ws://{}", server.devices);
    output_at(&target, server, results, scenario, more)
}

/// The same by another way to the server's lines.
pub(crate) fn output_at(
    target: &str,
    server: &LyingServer,
    results: &Path,
    scenario: &str,
    more: &[&str],
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(scenario).args(more);
    command.args(["--target", target]);
    command.args(["--api", &format!("http://{}", server.api)]);
    command.args(["--peer", &format!("ws://{}", server.peer)]);
    command.arg("--record-dir").arg(results);
    command.output().unwrap()
}

/// The directory of the only run in `results`.
pub(crate) fn directory(results: &Path, output: &Output) -> PathBuf {
    let mut directories = std::fs::read_dir(results).unwrap();
    let directory = directories.next();
    let directory = directory.unwrap_or_else(|| panic!("no record: {output:?}"));
    directory.unwrap().path()
}

pub(crate) fn read_record(results: &Path, output: &Output) -> Value {
    let file = directory(results, output).join("record.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

pub(crate) const SHORT: [&str; 6] = [
    "--connections=40",
    "--duration=700ms",
    "--warmup=100ms",
    "--ramp=0",
    "--seed=7",
    "--body-bytes=30",
];

/// The run fails and says why.
pub(crate) fn assert_named(run: &Run, lie: Lie, fault: &str) {
    assert!(!run.passed, "{lie:?} went unnoticed");
    assert!(run.faults().contains(fault), "{lie:?}: {}", run.faults());
}

/// It does not even begin, and says why.
pub(crate) fn assert_refused(output: &Output, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(why), "{told}");
}

/// All lines that left were handed over.
pub(crate) fn assert_all_handed_over(run: &Run, scenario: &str) {
    let figure = |name: &str| run.figure(&format!("{scenario}.{name}"));
    let handed_over = figure("handed_over");
    assert!(handed_over > 0.0);
    for same in ["lines_ended", "lines_left", "lines_back"] {
        assert_eq!(figure(same), handed_over, "{same}");
    }
    for none in [
        "lines_not_back",
        "goodbyes_unanswered",
        "unreached",
        "away.max",
    ] {
        assert_eq!(figure(none), 0.0, "{none}");
    }
}

/// What every way to send must notice, and the count it is in.
pub(crate) const LIES: [(Lie, &str); 9] = [
    (Lie::Drop, "lost"),
    (Lie::Duplicate, "duplicate"),
    (Lie::Reorder, "misordered"),
    (Lie::Misdeliver, "misdelivered"),
    (Lie::Copy, "misdelivered"),
    (Lie::Refuse, "refused"),
    (Lie::RefuseAndDeliver, "refused_yet_delivered"),
    (Lie::Damage, "foreign"),
    (Lie::Silence, "unanswered"),
];

/// It fails the run by a fault, and is no message's.
pub(crate) const ANSWER_TWICE: (Lie, &str) = (Lie::AnswerTwice, "that no sender waits for");

/// Each lie is named; all at once, since such runs mostly wait for what does not come.
pub(crate) fn assert_all_named(scenario: impl Fn(Lie) -> Run + Sync, lies: &[(Lie, &str)]) {
    thread::scope(|scope| {
        for (lie, fault) in lies {
            scope.spawn(|| assert_named(&scenario(*lie), *lie, fault));
        }
    });
}

/// Each lie is named and counted among the messages, and the run against a server that tells none passes.
pub(crate) fn assert_all_counted(scenario: impl Fn(Lie) -> Run + Sync, lies: &[(Lie, &str)]) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let honest = scenario(Lie::None);
            assert!(honest.passed, "{}", honest.faults());
        });
        for (lie, figure) in lies {
            scope.spawn(|| assert_counted(&scenario(*lie), *lie, "messages", figure));
        }
    });
}

/// The run fails for messages of this kind, and has counted them below this word.
pub(crate) fn assert_counted(run: &Run, lie: Lie, account: &str, figure: &str) {
    let fault = format!(" messages {}", figure.replace('_', " "));
    assert_named(run, lie, &fault);
    let count = run.figure(&format!("{account}.{figure}"));
    assert!(count > 0.0, "{lie:?}: {}", run.faults());
}

/// Runs against a server it starts itself: a script that notes how it was started and names the lying server's addresses.
pub(crate) fn run_own(scenario: &str, more: &[&str]) -> (Run, String) {
    let server = LyingServer::start(Lie::None).unwrap();
    let results = tempfile::tempdir().unwrap();
    let (notes, records) = (results.path().join("notes"), results.path().join("records"));
    let ready = serde_json::json!({
        "event": "ready",
        "devices": server.devices.to_string(),
        "api": server.api.to_string(),
        "peer": server.peer.to_string(),
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/own_server.sh");
    let mut command = start(script.as_ref(), &records, scenario, more);
    command.env("NOTES", &notes).env("READY", ready.to_string());
    let run = Run::of(&command.output().unwrap(), &records);
    (run, std::fs::read_to_string(notes).unwrap())
}

/// Runs against the server of this workspace.
pub(crate) fn run_real(scenario: &str, more: &[&str]) -> Run {
    let results = tempfile::tempdir().unwrap();
    let mut command = start(&built("tautline"), results.path(), scenario, more);
    Run::of(&command.output().unwrap(), results.path())
}

/// A program that cargo has built beside the generator.
pub(crate) fn built(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name(name);
    let advice =
        "`cargo build` and `cargo build --examples` make it, as `cargo test --workspace` does";
    assert!(
        program.exists(),
        "{} is missing: {advice}",
        program.display()
    );
    program
}

/// A run that starts this server.
fn start(server: &Path, records: &Path, scenario: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(scenario).args(more);
    command.arg("--server").arg(server);
    command.arg("--record-dir").arg(records);
    command
}
