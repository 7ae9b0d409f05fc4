//! The generator against the server it was written for: few lines, counts only.

use crate::run::{SHORT, run_real};

#[test]
fn lines_and_a_canary_stay_on_the_real_server() {
    let some = [
        "--connections=300",
        "--hold=1s",
        "--canary=10",
        "--canary-rate=200",
    ];
    let run = run_real("idle", &some);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("lines.opened"), 300.0);
    let sent = run.figure("canary.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("canary.received"), sent);
}

#[test]
fn pushes_to_the_real_server_all_arrive() {
    let pipelined = ["--senders=4", "--pipeline=4", "--wait=written"];
    let run = run_real("push", &[&SHORT[..], &pipelined].concat());
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("messages.received"), sent);
}

#[test]
fn devices_of_the_real_server_send_more_than_it_usually_lets_them() {
    let few = ["--senders=2", "--rate=600", "--account-lines=20"];
    let run = run_real("d2d", &[&SHORT[..], &few].concat());
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("d2d.status.written"), sent);
    assert_eq!(run.figure("messages.received"), sent);
}

#[test]
fn records_on_streams_to_the_real_server_all_arrive() {
    let few = ["--streams=2", "--window=32", "--baseline"];
    let run = run_real("stream", &[&SHORT[..], &few].concat());
    assert!(run.passed, "{}", run.faults());
    let sent = run.figure("messages.sent");
    assert!(sent > 0.0);
    assert_eq!(run.figure("stream.status.written"), sent);
    assert_eq!(run.figure("messages.received"), sent);
    assert!(run.figure("stream.cpu_over_baseline") > 0.0);
}

#[test]
fn a_broadcast_of_the_real_server_reaches_every_line_once_beside_the_canary() {
    let some = [
        "--connections=300",
        "--broadcasts=2",
        "--canary=10",
        "--canary-rate=200",
    ];
    let run = run_real("broadcast", &some);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("messages.accepted"), 600.0);
    assert_eq!(run.figure("messages.received"), 600.0);
    // The canary's lines get it as well.
    assert_eq!(run.figure("broadcast.server_written"), 620.0);
    let longest = run.figure("broadcast.delivery.max");
    assert!(longest >= run.figure("broadcast.delivery.p50"));
    assert_eq!(run.series("broadcast.delivery.max").len(), 2);
    assert_eq!(run.record["latencies"]["broadcast.delivery"]["count"], 600);
    assert!(run.figure("canary.broadcast.p99") > 0.0);
}

#[test]
fn the_real_server_takes_and_resumes_tls() {
    let secure = [
        "--connections=100",
        "--hold=1s",
        "--ramp=50/s",
        "--tls",
        "--tls-resume=0.5",
    ];
    let run = run_real("idle", &secure);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("lines.opened"), 100.0);
    let resumed = run.figure("tls.resumed");
    assert!((1.0..=50.0).contains(&resumed), "{resumed}");
}
