//! Lines that speak TLS.

use crate::lying_server::{Lie, LyingServer};
use crate::run::{Run, SHORT, output_at, read_record, run_own};
use crate::tls_front::TlsFront;

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
    Run::of(&output, results.path())
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

#[test]
fn a_started_server_is_given_a_certificate() {
    let (run, notes) = run_own("idle", &["--connections=3", "--hold=0s", "--tls"]);
    assert!(notes.contains("devices_tls.certificate_file=/"), "{notes}");
    assert!(notes.contains("devices_tls.private_key_file=/"), "{notes}");
    // This one speaks no TLS, whatever it is given.
    assert!(!run.passed && run.figure("lines.failed") == 3.0);
}
