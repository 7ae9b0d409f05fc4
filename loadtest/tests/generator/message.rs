//! Messages over HTTP, from devices and on streams: what becomes of every one.

use crate::lying_server::{Lie, LyingServer};
use crate::run::{
    ANSWER_TWICE, LIES, Run, SHORT, assert_all_counted, assert_all_named, output, run, run_own,
};

fn push(lie: Lie) -> Run {
    run(lie, "push", &[&SHORT[..], &["--senders=4"]].concat())
}

fn pipelined_push(lie: Lie) -> Run {
    let pipeline = ["--senders=2", "--pipeline=8"];
    run(lie, "push", &[&SHORT[..], &pipeline].concat())
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

/// What is longer than its mark can be damaged behind it.
fn lies_to_the_long() -> Vec<(Lie, &'static str)> {
    [&LIES[..], &[(Lie::DamageRest, "foreign")]].concat()
}

#[test]
fn every_lie_about_a_push_is_counted() {
    assert_all_counted(push, &lies_to_the_long());
}

#[test]
fn every_lie_about_a_pipelined_push_is_counted() {
    assert_all_counted(pipelined_push, &lies_to_the_long());
}

#[test]
fn every_lie_to_a_sending_device_is_counted() {
    assert_all_counted(d2d, &lies_to_the_long());
}

#[test]
fn every_lie_to_a_stream_is_counted() {
    assert_all_counted(stream, &lies_to_the_long());
}

#[test]
fn an_answer_that_comes_twice_is_named_however_a_message_was_sent() {
    for scenario in [push, pipelined_push, d2d, stream] {
        assert_all_named(scenario, &[ANSWER_TWICE]);
    }
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

#[test]
fn a_started_server_is_asked_for_streams_and_says_where() {
    let (run, notes) = run_own("stream", &[&SHORT[..], &["--streams=2"]].concat());
    assert!(run.passed, "{}", run.faults());
    assert!(notes.contains("listen.peer=127.0.0.1:0"), "{notes}");
    assert!(!notes.contains("devices_tls"), "{notes}");
    assert!(run.figure("server.cpu_per_message") >= 0.0);
}
