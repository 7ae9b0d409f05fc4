//! The generator against servers that are honest and servers that lie: the honest pass, every lie is named.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod lying_server;
mod tls_front;

use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use lying_server::{Lie, LyingServer};
use serde_json::Value;
use tls_front::TlsFront;

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
    run_against(&LyingServer::start(lie).unwrap(), scenario, more)
}

fn run_against(server: &LyingServer, scenario: &str, more: &[&str]) -> Run {
    let results = tempfile::tempdir().unwrap();
    let output = output(server, results.path(), scenario, more);
    Run {
        passed: output.status.success(),
        record: read_record(results.path(), &output),
    }
}

fn output(server: &LyingServer, results: &Path, scenario: &str, more: &[&str]) -> Output {
    let target = format!("ws://{}", server.devices);
    output_at(&target, server, results, scenario, more)
}

/// The same by another way to the server's lines.
fn output_at(
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

fn read_record(results: &Path, output: &Output) -> Value {
    let mut directories = std::fs::read_dir(results).unwrap();
    let directory = directories
        .next()
        .unwrap_or_else(|| panic!("no record: {output:?}"))
        .unwrap();
    let text = std::fs::read_to_string(directory.path().join("record.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

const IDLE: [&str; 3] = ["--connections=300", "--ramp=600/s", "--hold=1500ms"];

fn idle(lie: Lie) -> Run {
    run(lie, "idle", &IDLE)
}

const SHORT: [&str; 6] = [
    "--connections=40",
    "--duration=700ms",
    "--warmup=100ms",
    "--ramp=0",
    "--seed=7",
    "--body-bytes=30",
];

fn push(lie: Lie) -> Run {
    run(lie, "push", &[&SHORT[..], &["--senders=4"]].concat())
}

fn d2d(lie: Lie) -> Run {
    run(
        lie,
        "d2d",
        &[&SHORT[..], &["--senders=4", "--rate=400"]].concat(),
    )
}

fn stream(lie: Lie) -> Run {
    run(lie, "stream", &[&SHORT[..], &["--streams=2"]].concat())
}

/// The run fails and says why.
fn assert_named(run: &Run, lie: Lie, fault: &str) {
    assert!(!run.passed, "{lie:?} went unnoticed");
    assert!(run.faults().contains(fault), "{lie:?}: {}", run.faults());
}

#[test]
fn honest_lines_open_and_answer_pings() {
    let server = LyingServer::start(Lie::None).unwrap();
    let run = run_against(&server, "idle", &IDLE);
    assert!(run.passed, "{}", run.faults());
    assert_eq!((run.figure("lines.opened"), server.pongs()), (300.0, 300));
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

/// What every way to send must notice.
const LIES: [(Lie, &str); 7] = [
    (Lie::Drop, "messages lost"),
    (Lie::Duplicate, "messages duplicate"),
    (Lie::Reorder, "messages misordered"),
    (Lie::Misdeliver, "messages misdelivered"),
    (Lie::Refuse, "messages refused, 0 unknown"),
    (Lie::RefuseAndDeliver, "messages refused yet delivered"),
    (Lie::Damage, "messages foreign"),
];

/// What those with ids must notice besides.
const REPLY_LIES: [(Lie, &str); 2] = [
    (Lie::Silence, "messages unanswered"),
    (Lie::AnswerTwice, "that no sender waits for"),
];

/// All at once: such runs mostly wait for what does not come.
fn assert_all_named(scenario: fn(Lie) -> Run, lies: &[(Lie, &str)]) {
    thread::scope(|scope| {
        for (lie, fault) in lies {
            scope.spawn(|| assert_named(&scenario(*lie), *lie, fault));
        }
    });
}

#[test]
fn every_lie_about_a_push_is_named() {
    assert_all_named(push, &LIES);
}

#[test]
fn every_lie_to_a_sending_device_is_named() {
    assert_all_named(d2d, &[&LIES[..], &REPLY_LIES].concat());
}

#[test]
fn every_lie_to_a_stream_is_named() {
    assert_all_named(stream, &[&LIES[..], &REPLY_LIES].concat());
}

#[test]
fn devices_reach_every_line_of_their_accounts() {
    let run = d2d(Lie::None);
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    // At the rate asked for there are 321 arrivals, some of which may not get their turn.
    assert!((1.0..=450.0).contains(&sent), "{sent}");
    assert_eq!(run.figure("messages.received"), sent);
    assert_eq!(run.figure("d2d.status.written"), sent);
    assert_eq!(run.figure("lines.opened"), 36.0);
    assert_eq!(run.figure("d2d.reached_lines"), 36.0);
    assert!(run.figure("d2d.delivery.p99") >= run.figure("d2d.delivery.p50"));
    assert!(run.figure("d2d.round_trip.max") > 0.0);
}

#[test]
fn devices_of_small_accounts_reach_only_these() {
    let few = ["--senders=4", "--rate=400", "--account-lines=4"];
    let run = run(Lie::None, "d2d", &[&SHORT[..], &few].concat());
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("d2d.reached_lines"), 16.0);
}

#[test]
fn streams_keep_to_the_window_and_take_replies_in_any_order() {
    let run = stream(Lie::None);
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    // More than one window of each stream: replies do make room.
    assert!(sent > 16.0, "{sent}");
    assert_eq!(run.figure("messages.received"), sent);
    assert_eq!(run.figure("stream.status.written"), sent);
    assert_eq!(run.figure("stream.reached_lines"), 40.0);
}

#[test]
fn streams_at_a_rate_are_an_open_loop() {
    let rate = ["--streams=2", "--rate=200/s", "--spread=uniform"];
    let run = run(Lie::None, "stream", &[&SHORT[..], &rate].concat());
    assert!(run.passed, "{}", run.faults());
    assert!((1.0..=161.0).contains(&run.figure("messages.sent")));
}

#[test]
fn a_bare_loop_stands_beside_the_streams() {
    let baseline = ["--streams=2", "--baseline"];
    let run = run(Lie::None, "stream", &[&SHORT[..], &baseline].concat());
    assert!(run.passed, "{}", run.faults());
    assert!(run.figure("baseline.cpu_per_message") > 0.0);
    assert!(run.figure("baseline.rate") > 0.0);
    // `{"type":"message","data":…}` around 30 bytes, and a header of two.
    assert_eq!(run.figure("baseline.frame_bytes"), 58.0);
}

#[test]
fn streams_that_are_not_taken_are_an_error_with_its_status() {
    let server = LyingServer::start(Lie::None).unwrap();
    let results = tempfile::tempdir().unwrap();
    let elsewhere = [&SHORT[..], &["--stream-path=/nowhere"]].concat();
    let output = output(&server, results.path(), "stream", &elsewhere);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("sending connections cannot be opened") && text.contains("HTTP status 404"),
        "{text}"
    );
}

const CANARY: [&str; 4] = [
    "--connections=60",
    "--hold=700ms",
    "--canary=10",
    "--canary-rate=200",
];

#[test]
fn a_canary_sings_through_every_phase() {
    let run = run(Lie::None, "idle", &CANARY);
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("canary.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("canary.received"), sent);
    assert_eq!(run.figure("canary.lost"), 0.0);
    assert_eq!(run.figure("lines.opened"), 60.0);
    assert!(run.figure("canary.max") >= run.figure("canary.p99"));
    assert!(run.figure("canary.hold.p99") >= run.figure("canary.hold.p50"));
}

#[test]
fn what_a_canary_misses_fails_the_run() {
    for (lie, fault) in [
        (Lie::Drop, "messages lost"),
        (Lie::Misdeliver, "messages misdelivered"),
        (Lie::Refuse, "messages refused, 0 unknown"),
    ] {
        let run = run(lie, "idle", &CANARY);
        assert!(run.faults().contains("canary: "), "{}", run.faults());
        assert_named(&run, lie, fault);
    }
}

#[test]
fn a_canary_that_is_ill_before_it_begins_is_an_error() {
    let server = LyingServer::start(Lie::RefuseLine).unwrap();
    let results = tempfile::tempdir().unwrap();
    let output = output(&server, results.path(), "idle", &CANARY);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("1 × HTTP status 503"), "{text}");
}

#[test]
fn runs_side_by_side_share_no_line() {
    let server = LyingServer::start(Lie::None).unwrap();
    for first in ["--first-line=0", "--first-line=60"] {
        let run = run_against(&server, "idle", &[&CANARY[..], &[first]].concat());
        assert!(run.passed, "{}", run.faults());
    }
    assert_eq!(server.device_names().len(), 2 * (60 + 10));
}

/// Runs against an honest server behind TLS, whose certificate is the one to believe.
fn run_tls(scenario: &str, more: &[&str]) -> Run {
    let server = LyingServer::start(Lie::None).unwrap();
    let front = TlsFront::start(server.devices).unwrap();
    let results = tempfile::tempdir().unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &front.certificate_pem).unwrap();
    let ca = format!("--tls-ca={}", ca.path().display());
    let target = format!("wss://{}", front.address);
    let all = [more, &[ca.as_str()]].concat();
    let output = output_at(&target, &server, results.path(), scenario, &all);
    Run {
        passed: output.status.success(),
        record: read_record(results.path(), &output),
    }
}

#[test]
fn lines_speak_tls_and_resume_their_share() {
    let lines = ["--connections=60", "--ramp=200/s", "--hold=500ms"];
    let run = run_tls("idle", &[&lines[..], &["--tls-resume=0.5"]].concat());
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("lines.opened"), 60.0);
    let resumed = run.figure("tls.resumed");
    assert!((1.0..=30.0).contains(&resumed), "{resumed}");
    let run = run_tls("idle", &lines);
    assert_eq!(run.figure("tls.resumed"), 0.0);
}

#[test]
fn messages_and_a_canary_pass_through_tls() {
    let some = [
        "--senders=4",
        "--rate=200",
        "--canary=5",
        "--canary-rate=100",
    ];
    let run = run_tls("d2d", &[&SHORT[..], &some].concat());
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("messages.received"), sent);
    assert!(run.figure("canary.received") > 0.0);
}

#[test]
fn a_certificate_of_somebody_else_opens_no_line() {
    let server = LyingServer::start(Lie::None).unwrap();
    let fronts = [(); 2].map(|()| TlsFront::start(server.devices).unwrap());
    let results = tempfile::tempdir().unwrap();
    let ca = results.path().join("ca.pem");
    std::fs::write(&ca, &fronts[1].certificate_pem).unwrap();
    let records = results.path().join("records");
    let target = format!("wss://{}", fronts[0].address);
    let ca = format!("--tls-ca={}", ca.display());
    let few = ["--connections=5", "--hold=0s", ca.as_str()];
    let output = output_at(&target, &server, &records, "idle", &few);
    assert!(!output.status.success());
    let record = read_record(&records, &output);
    let faults = record["faults"].to_string();
    assert!(
        faults.contains("5 lines failed") && faults.contains("certificate"),
        "{faults}"
    );
}

/// Runs against a server it starts itself: a script that notes how it was started and names the lying server's addresses.
fn run_own(scenario: &str, more: &[&str]) -> (Run, String) {
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(scenario).args(more).args(["--server", script]);
    command.arg("--record-dir").arg(&records);
    command.env("NOTES", &notes).env("READY", ready.to_string());
    let output = command.output().unwrap();
    let run = Run {
        passed: output.status.success(),
        record: read_record(&records, &output),
    };
    (run, std::fs::read_to_string(notes).unwrap())
}

#[test]
fn a_started_server_is_asked_for_streams_and_says_where() {
    let (run, notes) = run_own("stream", &[&SHORT[..], &["--streams=2"]].concat());
    assert!(run.passed, "{}", run.faults());
    assert!(notes.contains("listen.peer=127.0.0.1:0"), "{notes}");
    assert!(!notes.contains("devices_tls"), "{notes}");
    assert!(run.figure("server.cpu_per_message") >= 0.0);
}

#[test]
fn a_started_server_is_given_a_certificate() {
    let (run, notes) = run_own("idle", &["--connections=3", "--hold=0s", "--tls"]);
    assert!(notes.contains("devices_tls.certificate_file=/"), "{notes}");
    assert!(notes.contains("devices_tls.private_key_file=/"), "{notes}");
    // This one speaks no TLS, whatever it is given.
    assert!(!run.passed && run.figure("lines.failed") == 3.0);
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
