//! Servers of other makes: each by a small double that insists on how it is spoken to.

use std::process::{Command, Output};

use crate::foreign_server::{Foreign, ForeignServer};
use crate::run::{Run, assert_refused};

fn output(server: &ForeignServer, scenario: &str, more: &[&str]) -> (Output, tempfile::TempDir) {
    let results = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args([scenario, "--connections=30"]).args(more);
    command.args(["--target", &format!("ws://{}", server.lines)]);
    command.args(["--api", &format!("http://{}", server.api)]);
    command.arg("--record-dir").arg(results.path());
    (command.output().unwrap(), results)
}

fn run(server: &ForeignServer, scenario: &str, more: &[&str]) -> Run {
    let (output, results) = output(server, scenario, more);
    Run::of(&output, results.path())
}

const PUSH: [&str; 4] = [
    "--senders=2",
    "--warmup=100ms",
    "--duration=500ms",
    "--header=X-API-Key: k",
];

fn assert_all_arrive(run: &Run) {
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("messages.received"), sent);
}

#[test]
fn nchan_is_reached_by_its_paths() {
    let server = ForeignServer::start(Foreign::Nchan).unwrap();
    assert_all_arrive(&run(
        &server,
        "push",
        &[&PUSH[..], &["--against=nchan"]].concat(),
    ));
    assert_eq!(server.lines_seen(), 30);
}

#[test]
fn centrifugo_is_greeted_subscribed_to_and_answered_in_json() {
    let server = ForeignServer::start(Foreign::Centrifugo).unwrap();
    assert_all_arrive(&run(
        &server,
        "push",
        &[&PUSH[..], &["--against=centrifugo"]].concat(),
    ));
    let idle = run(&server, "idle", &["--against=centrifugo", "--hold=1s"]);
    assert!(idle.passed, "{}", idle.faults());
    let pings: f64 = idle
        .series("lines.pings")
        .iter()
        .map(|(_, rate)| rate)
        .sum();
    assert!(pings > 0.0, "pings in JSON are pings");
    assert!(server.pongs() >= 60, "{}", server.pongs());
}

#[test]
fn a_line_that_centrifugo_refuses_has_failed() {
    let server = ForeignServer::start(Foreign::CentrifugoRefuses).unwrap();
    let run = run(&server, "idle", &["--against=centrifugo", "--hold=200ms"]);
    assert!(!run.passed);
    assert_eq!(run.figure("lines.failed"), 30.0);
    assert!(
        run.faults().contains("refuses what the line says first"),
        "{}",
        run.faults()
    );
}

#[test]
fn any_server_can_hold_lines_and_is_pushed_to_where_one_says() {
    let server = ForeignServer::start(Foreign::Nchan).unwrap();
    let paths = ["--against=raw", "--line-path=/line/{device}"];
    let idle = run(&server, "idle", &[&paths[..], &["--hold=200ms"]].concat());
    assert!(idle.passed, "{}", idle.faults());
    let told = output(&server, "push", &[&PUSH[..], &paths].concat()).0;
    assert_refused(&told, "--push-path");
    let pushed = [&PUSH[..], &paths, &["--push-path=/push/{device}"]].concat();
    assert_all_arrive(&run(&server, "push", &pushed));
}

#[test]
fn what_only_ours_can_do_is_refused_at_once() {
    let server = ForeignServer::start(Foreign::Nchan).unwrap();
    for (scenario, few) in [
        ("broadcast", "--broadcasts=1"),
        ("d2d", "--senders=2"),
        ("stream", "--streams=2"),
    ] {
        let (output, _results) = output(&server, scenario, &["--against=nchan", few]);
        assert_refused(&output, "only tautline");
    }
    assert_eq!(server.lines_seen(), 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let output = command.args(["idle", "--against=raw"]).output().unwrap();
    assert_refused(&output, "--target says where it runs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let setting = ["idle", "--against=axum", "--set=limits.lines=3"];
    assert_refused(&command.args(setting).output().unwrap(), "`limits.lines`");
}

#[test]
fn lines_take_turns_among_source_and_destination_addresses() {
    let server = ForeignServer::start(Foreign::Nchan).unwrap();
    let lists = [
        "--sources=127.0.7.0/30,127.0.8.1",
        "--destinations=127.0.0.1,127.0.0.1",
    ];
    let usual = ["--against=nchan", "--hold=200ms", "--first-line=11990"];
    let run = run(&server, "idle", &[&usual[..], &lists].concat());
    assert!(run.passed, "{}", run.faults());
    let sources = server.sources();
    // An address serves until its ports would be searched for, the next one from there on.
    assert_eq!(sources.len(), 2, "{sources:?}");
    let given = ["127.0.7.1", "127.0.7.2", "127.0.8.1"];
    assert!(
        sources
            .iter()
            .all(|source| given.contains(&source.as_str())),
        "{sources:?}"
    );
}
