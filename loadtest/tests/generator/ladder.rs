//! Runs in rungs: more lines a second, and more lines.

use std::process::Command;

use crate::lying_server::{Lie, LyingServer};
use crate::run::{LIES, assert_all_counted, assert_named, run, run_real};

const CONNECT: [&str; 6] = [
    "--connections=100",
    "--from=100",
    "--step=2",
    "--rung=500ms",
    "--rest=100ms",
    "--open-max=20s",
];

#[test]
fn rates_rise_until_the_last_rung_that_holds() {
    // One rung, so that a machine that is late has only one chance to be.
    let run = run(
        Lie::None,
        "connect",
        &[&CONNECT[..], &["--to=100"]].concat(),
    );
    assert_eq!(run.figure("connect.100.lines"), 50.0);
    assert_eq!(run.figure("connect.100.failed"), 0.0);
    assert!(run.figure("connect.100.open.p99") > 0.0);
    let told = run.record["warnings"].to_string() + &run.faults();
    assert!(told.contains("no rung broke") || told.contains("did not hold"));
    let knees = run.record["figures"]
        .to_string()
        .matches("connect.knee")
        .count();
    assert_eq!(knees, usize::from(run.passed), "{told}");
}

#[test]
fn a_rung_with_failed_lines_has_not_held() {
    let run = run(Lie::RefuseLine, "connect", &CONNECT);
    let fault = "100 new lines a second did not hold: 5 lines failed: 5 × HTTP status 503";
    assert_named(&run, Lie::RefuseLine, fault);
    assert_eq!(run.figure("connect.broke_at"), 100.0);
}

#[test]
fn lines_take_turns_among_the_targets_on_every_rung() {
    let servers = [Lie::None; 2].map(|lie| LyingServer::start(lie).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("connect").args(CONNECT).arg("--to=200");
    for server in &servers {
        command.arg(format!("--target=ws://{}", server.devices));
    }
    let output = command.arg("--no-record").output().unwrap();
    let lines = servers.each_ref().map(|server| server.device_names().len());
    // A machine that is late may end it on the first rung.
    let each = if output.status.success() { 50 } else { 25 };
    assert_eq!(lines, [each; 2], "{output:?}");
}

#[test]
fn the_real_server_is_climbed() {
    let run = run_real("connect", &[&CONNECT[..], &["--to=200"]].concat());
    assert_eq!(run.figure("connect.100.failed"), 0.0);
    assert!(run.figure("connect.100.server_cpu_per_new_line") >= 0.0);
}

const LADDER: [&str; 5] = [
    "--connections=90",
    "--rungs=30,60",
    "--hold=500ms",
    "--send=500ms",
    "--rate=400",
];

#[test]
fn costs_are_measured_at_every_rung() {
    let run = run_real(
        "ladder",
        &[&LADDER[..], &["--ping-after=1s", "--hold=3s"]].concat(),
    );
    assert!(run.passed, "{}", run.faults());
    for lines in [30, 60, 90] {
        for cost in ["bytes_per_line", "cpu_per_heartbeat", "cpu_per_message"] {
            assert!(run.figure(&format!("ladder.{lines}.{cost}")) >= 0.0);
        }
    }
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("messages.received"), sent);
    assert!(run.figure("ladder.growth.cpu_per_message") > 0.0);
}

#[test]
fn every_lie_at_any_rung_is_counted() {
    assert_all_counted(|lie| run(lie, "ladder", &LADDER), &LIES);
}

#[test]
fn lines_that_fail_on_any_rung_fail_the_ladder() {
    let run = run(Lie::RefuseLine, "ladder", &LADDER);
    assert_named(&run, Lie::RefuseLine, "9 lines failed, 0 were lost");
}
