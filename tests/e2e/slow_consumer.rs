//! A device that does not read: it loses its line, the sender is told, nobody else notices.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::line::{Ending, Line};
use crate::node::Node;

#[test]
fn a_device_that_never_reads_is_closed_and_its_sender_told() {
    let node = Node::with_one_reactor(&["limits.outbox_bytes_max=128KiB"]);
    let mut canary = Canary::on(&node);
    let _line = Line::open_with_small_window(&node, "tv-1");
    let before = node.memory();
    let payload = "x".repeat(60_000);
    let mut refused = None;
    for _ in 0..400 {
        let answer = node.push("tv-1", "?wait=queued", payload.as_bytes());
        if answer.status != 202 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a device that reads nothing takes no 24 MB");
    refused.assert_error(503, "slow_consumer");
    assert!(
        refused.header("retry-after").is_some(),
        "503 without Retry-After"
    );
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    eventually("offline", || {
        (node.device_status("tv-1") == 404).then_some(())
    });
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="slow_consumer""#,
        1.0,
    );
    canary.survives();
}

#[test]
fn a_line_without_progress_is_closed() {
    let node = Node::with_one_reactor(&[
        "limits.outbox_stall_timeout=1s",
        "limits.outbox_bytes_max=1MiB",
    ]);
    let mut canary = Canary::on(&node);
    let mut line = Line::open_with_small_window(&node, "tv-1");
    let payload = "x".repeat(60_000);
    let mut statuses = BTreeSet::new();
    // Enough for its socket to block, not for the outbox to overflow.
    for _ in 0..100 {
        let answer = node.push("tv-1", "?wait=written&timeout_ms=100", payload.as_bytes());
        statuses.insert(answer.status);
        if answer.status != 200 {
            break;
        }
    }
    assert!(
        statuses.iter().all(|status| [200, 504].contains(status)),
        "{statuses:?}"
    );
    eventually("offline", || {
        (node.device_status("tv-1") == 404).then_some(())
    });
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="slow_consumer""#,
        1.0,
    );
    let ending = line.ending();
    let is_slow = matches!(ending, Ending::Closed(4002, _) | Ending::Dropped);
    assert!(is_slow, "{ending:?}");
    canary.survives();
}

#[test]
fn a_message_that_was_not_written_is_never_reported_as_written() {
    let node = Node::start(&[
        "limits.outbox_stall_timeout=60s",
        "limits.outbox_bytes_max=1MiB",
    ]);
    let mut line = Line::open_with_small_window(&node, "tv-1");
    let payload = "x".repeat(60_000);
    let timed_out = (0..100).map(|_| node.push("tv-1", "?timeout_ms=200", payload.as_bytes()));
    let answer = timed_out.into_iter().find(|answer| answer.status != 200);
    let answer = answer.expect("the socket blocks");
    answer.assert_error(504, "ack_timeout");
    let error = &answer.json()["error"];
    assert_eq!(error["level"], "queued", "{error}");
    assert!(error["message_id"].is_string(), "{error}");
    // Now it reads after all, and everything accepted comes.
    line.set_patience(Duration::from_secs(20));
    let mut frames = 0;
    let submitted = node.metric("tautline_messages_submitted_total", "");
    while f64::from(frames) < submitted {
        let frame = line.frame().expect("a frame");
        frames += u32::from(frame.payload.len() > payload.len());
    }
    node.await_metric("tautline_undelivered", "", 0.0);
    node.await_metric("tautline_outbox_bytes", "", 0.0);
    node.await_metric(
        "tautline_messages_ended_total",
        r#"ending="written""#,
        submitted,
    );
}
