//! Lines that come, stay, and are lost.

use std::net::Ipv6Addr;
use std::process::Command;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{Run, read_record, run, run_against};

const IDLE: [&str; 3] = ["--connections=300", "--ramp=600/s", "--hold=1500ms"];

fn idle(lie: Lie) -> Run {
    run(lie, "idle", &IDLE)
}

#[test]
fn honest_lines_open_and_answer_pings() {
    let server = LyingServer::start(Lie::None).unwrap();
    let run = run_against(&server, "idle", &IDLE);
    assert!(run.passed, "{}", run.faults());
    assert_eq!((run.figure("lines.opened"), server.pongs()), (300.0, 300));
    assert_eq!(run.figure("lines.failed") + run.figure("lines.lost"), 0.0);
    let open = run.series("lines.open");
    assert_eq!(open.last().map(|(_, lines)| *lines), Some(300.0));
    assert!(open.is_sorted(), "{open:?}");
    assert!(
        run.series("lines.pings")
            .iter()
            .any(|(_, rate)| *rate > 0.0)
    );
}

#[test]
fn lines_to_the_loopback_address_of_ipv6_open_as_well() {
    let address = Ipv6Addr::LOCALHOST.into();
    let server = LyingServer::start_at(Lie::None, address).unwrap();
    let run = run_against(&server, "idle", &["--connections=20", "--hold=200ms"]);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("lines.opened"), 20.0);
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
            .contains("20 × Connection refused"),
        "{record}"
    );
}
