//! Silence: a ping, a pong or the end.

use std::time::Duration;

use tungstenite::Message;

use crate::canary::Canary;
use crate::deadline::{Deadline, pause};
use crate::device::Device;
use crate::line::{BETWEEN, Ending, Line, PING, PONG, TEXT, TEXT_FIRST, frame};
use crate::node::Node;

const QUICK: [&str; 2] = ["heartbeat.ping_after=400ms", "heartbeat.pong_timeout=300ms"];

#[test]
fn a_silent_line_is_pinged_and_closed_when_it_does_not_answer() {
    let node = Node::start(&QUICK);
    let mut line = Line::open(&node, "tv-1");
    assert_eq!(line.frame().expect("a ping").first_byte, PING);
    assert_eq!(line.ending(), Ending::Closed(4003, "pong_timeout".into()));
    node.await_metric("tautline_lines", "", 0.0);
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="pong_timeout""#,
        1.0,
    );
}

#[test]
fn a_raw_line_is_pinged_too() {
    let node = Node::start(&QUICK);
    let mut line = Line::open_raw(&node, "tv-1");
    assert_eq!(line.frame().expect("a ping").first_byte, PING);
    assert_eq!(line.ending(), Ending::Closed(4003, "pong_timeout".into()));
}

#[test]
fn a_line_that_answers_lives() {
    let node = Node::start(&QUICK);
    let mut device = Device::connect(&node, "tv-1");
    device.set_patience(Duration::from_millis(100));
    let mut pings = 0;
    let deadline = Deadline::after(Duration::from_secs(20));
    while pings < 4 {
        assert!(!deadline.has_passed(), "only {pings} pings");
        if let Some(Message::Ping(_)) = device.poll() {
            pings += 1;
        }
    }
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
}

#[test]
fn a_pong_nobody_asked_for_is_a_sign_of_life() {
    let node = Node::start(&QUICK);
    let mut line = Line::open(&node, "tv-1");
    let deadline = Deadline::after(Duration::from_secs(3));
    while !deadline.has_passed() {
        assert!(line.send(frame(PONG, "")), "closed although it spoke");
        pause(Duration::from_millis(50));
    }
    assert_eq!(node.device_status("tv-1"), 200);
}

#[test]
fn a_message_that_never_ends_ends_the_line() {
    let node = Node::with_one_reactor(&["limits.message_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let unfinished = [
        ("a fragment", frame(TEXT_FIRST, "{")),
        ("half a frame", frame(TEXT, [b' '; 100])[..50].to_vec()),
        ("half a header", vec![TEXT]),
    ];
    for (name, bytes) in unfinished {
        let mut line = Line::open(&node, "tv-1");
        line.send(bytes);
        let ending = line.ending();
        assert!(
            matches!(ending, Ending::Closed(1008, _)),
            "{name}: {ending:?}"
        );
    }
    canary.survives();
}

#[test]
fn a_message_that_trickles_ends_the_line() {
    let node = Node::with_one_reactor(&["limits.message_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let mut frames = Line::open(&node, "tv-1");
    let mut bytes = Line::open(&node, "tv-2");
    frames.send(frame(TEXT_FIRST, "{"));
    let slow = frame(TEXT, [b' '; 60_000]);
    let mut slow = slow.iter();
    let deadline = Deadline::after(Duration::from_secs(10));
    let (mut frames_open, mut bytes_open) = (true, true);
    while frames_open || bytes_open {
        assert!(
            !deadline.has_passed(),
            "still open: {frames_open} {bytes_open}"
        );
        // A ping between shows that life signs do not excuse it.
        frames_open =
            frames_open && frames.send(frame(PING, "")) && frames.send(frame(BETWEEN, ""));
        bytes_open = bytes_open && bytes.send([*slow.next().unwrap()]);
        pause(Duration::from_millis(150));
    }
    canary.survives();
}
