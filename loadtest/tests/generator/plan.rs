//! Mixtures from a file.

use std::path::Path;
use std::process::{Command, Output};

use crate::lying_server::{Lie, LyingServer};
use crate::run::Run;

fn plan(directory: &Path, text: &str) -> Output {
    let file = directory.join("mix.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("--plan").arg(&file);
    command.arg("--record-dir").arg(directory.join("records"));
    command.output().unwrap()
}

/// Idle lines, then pushes beside a broadcast and streams.
fn mixture(server: &LyingServer) -> String {
    format!(
        r#"
        [server]
        target = "ws://{}"
        api = "http://{}"
        peer = "ws://{}"

        [[phase]]
        name = "calm"
        [[phase.run]]
        scenario = "idle"
        connections = 40
        hold = "300ms"

        [[phase]]
        name = "busy"
        [[phase.run]]
        scenario = "push"
        connections = 20
        senders = 2
        warmup = "100ms"
        duration = "2s"
        [[phase.run]]
        scenario = "broadcast"
        connections = 10
        broadcasts = 1
        timeout = "1s"
        canary = 0
        [[phase.run]]
        scenario = "stream"
        connections = 10
        streams = 2
        warmup = "100ms"
        duration = "500ms"
        "#,
        server.devices, server.api, server.peer
    )
}

fn run(lie: Lie) -> (Run, LyingServer) {
    let server = LyingServer::start(lie).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let output = plan(directory.path(), &mixture(&server));
    let run = Run::of(&output, &directory.path().join("records"));
    (run, server)
}

#[test]
fn all_parts_of_a_plan_are_in_one_record() {
    let (run, server) = run(Lie::None);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("calm.idle.lines.opened"), 40.0);
    for part in ["busy.push", "busy.broadcast", "busy.stream"] {
        let sent = run.figure(&format!("{part}.messages.sent"));
        assert!(sent > 0.0);
        assert_eq!(run.figure(&format!("{part}.messages.received")), sent);
    }
    let phases: Vec<_> = run.record["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].clone())
        .collect();
    assert_eq!(phases, ["calm", "busy"]);
    // Those side by side have lines of their own, those one after another the same ones.
    assert_eq!(server.device_names().len(), 40);
    assert!(!run.series("busy.push.lines.open").is_empty());
}

#[test]
fn a_part_that_fails_fails_the_plan_under_its_name() {
    let (run, _server) = run(Lie::Drop);
    assert!(!run.passed);
    assert!(
        run.faults().contains("busy.push: ") && run.faults().contains("messages lost"),
        "{}",
        run.faults()
    );
}

#[test]
fn a_plan_with_a_mistake_runs_nothing_and_says_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[phase]]\nname = \"x\"\n[[phase.run]]\nscenario = \"idle\"\nconections = 3\n";
    let output = plan(directory.path(), text);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("mix.toml:5:1: `conections` is no argument of `idle`"),
        "{told}"
    );
    assert!(!directory.path().join("records").exists());
}
