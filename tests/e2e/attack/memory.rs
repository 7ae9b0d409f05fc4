//! Attempts to pin memory: by declaring, by trickling, by not reading, by not acknowledging.

use crate::canary::Canary;
use crate::device::Device;
use crate::http::{Http, encode};
use crate::line::{Ending, Line, TEXT, TEXT_FIRST, frame, header};
use crate::node::{CURL_CONTENT_TYPE, Node};

#[test]
fn a_declared_length_reserves_nothing() {
    const LINES: u64 = 500;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut lines: Vec<_> = (0..LINES)
        .map(|d| Line::open(&node, &format!("tv-{d}")))
        .collect();
    node.await_metric("tautline_lines", "", LINES as f64 + 1.0);
    let before = node.memory();
    for line in &mut lines {
        // All but the last bytes of the longest message: 32 MB declared.
        line.send([&header(TEXT, 65_536)[..], b"0123456789"].concat());
    }
    canary.sing();
    let grown = node.memory().saturating_sub(before);
    println!("{} bytes for each line", grown / LINES);
    assert!(grown < LINES * 2_048, "grown by {grown} bytes");
    drop(lines);
    canary.survives();
}

#[test]
fn a_message_in_one_byte_segments_costs_its_bytes_and_no_more() {
    const BYTES: usize = 20_000;
    // Each visit counts as 256 bytes, which would end it sooner.
    let node = Node::with_one_reactor(&["limits.bytes_per_second=0", "limits.message_timeout=60s"]);
    let mut canary = Canary::on(&node);
    let mut line = Line::open(&node, "tv-1");
    let ping = r#"{"type":"ping","id":"whole"}"#;
    let text = frame(TEXT, format!("{ping}{}", " ".repeat(BYTES - ping.len())));
    let before = node.memory();
    let (last, all_but_last) = text.split_last().unwrap();
    for byte in all_but_last {
        line.send([*byte]);
    }
    canary.sing();
    let grown = node.memory().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
    line.send([*last]);
    let pong = line.frame().expect("a pong").payload;
    assert_eq!(pong, br#"{"type":"pong","id":"whole"}"#);
    drop(line);
    canary.survives();
}

#[test]
fn a_trickle_of_single_bytes_ends_the_line() {
    let node = Node::with_one_reactor(&["limits.bytes_per_second=64KiB"]);
    let mut canary = Canary::on(&node);
    let mut line = Line::open(&node, "tv-1");
    // Were each byte read by itself it would be over after 256; several may be read at once.
    let text = frame(TEXT, [b' '; 65_536]);
    let sent = text.iter().take_while(|byte| line.send([**byte])).count();
    let ending = line.ending();
    assert!(
        matches!(ending, Ending::Closed(1008, _) | Ending::Dropped),
        "{ending:?}"
    );
    println!("ended after {sent} bytes");
    drop(line);
    canary.survives();
}

#[test]
fn unfinished_messages_are_given_back_at_their_deadline() {
    let node = Node::with_one_reactor(&["limits.message_timeout=1s", "lifetime.close_timeout=1s"]);
    let mut canary = Canary::on(&node);
    let mut lines: Vec<_> = (0..200)
        .map(|d| Line::open(&node, &format!("tv-{d}")))
        .collect();
    for line in &mut lines {
        // 12 MB of messages that never end.
        line.send(frame(TEXT_FIRST, [b' '; 60_000]));
    }
    let label = r#"reason="policy_violation""#;
    node.await_metric("tautline_connections_closed_total", label, 200.0);
    // Nobody closes, nobody reads: the lines are given up without.
    canary.survives();
    drop(lines);
}

#[test]
fn many_devices_that_do_not_read_are_bounded_and_every_message_has_its_ending() {
    const LINES: usize = 20;
    let node = Node::with_one_reactor(&[
        "limits.outbox_bytes_max=128KiB",
        "lifetime.close_timeout=1s",
    ]);
    let mut canary = Canary::on(&node);
    let lines: Vec<_> = (0..LINES)
        .map(|d| Line::open_with_small_window(&node, &format!("tv-{d}")))
        .collect();
    let before = node.memory();
    let payload = vec![b'x'; 60_000];
    let mut http = Http::connect(node.ready.api);
    let mut accepted = 0;
    for d in 0..LINES {
        let path = format!("/v1/devices/tv-{d}/messages?wait=queued");
        let push = || {
            http.request("POST", &path, &[CURL_CONTENT_TYPE], &payload)
                .status
        };
        let statuses: Vec<_> = std::iter::repeat_with(push)
            .take(400)
            .take_while(|&s| s == 202)
            .collect();
        assert!(
            statuses.len() < 400,
            "a device that reads nothing takes no 24 MB"
        );
        accepted += statuses.len();
    }
    let grown = node.memory().saturating_sub(before);
    println!(
        "{accepted} messages of 60 KB taken up, grown by {} KiB",
        grown >> 10
    );
    // The outbox may be twice its limit before it is moved together.
    assert!(grown < LINES as u64 * (300 << 10), "grown by {grown} bytes");
    let label = r#"reason="slow_consumer""#;
    node.await_metric("tautline_connections_closed_total", label, LINES as f64);
    drop((lines, http));
    canary.survives();
    let submitted = node.metric("tautline_messages_submitted_total", "");
    node.await_metric("tautline_messages_ended_total", "", submitted);
}

#[test]
fn a_device_that_never_acknowledges_pins_a_bounded_number_of_messages() {
    const WINDOW: usize = 64;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let path = "/v1/devices/tv-1/messages?wait=acked&timeout_ms=30000";
    let push = encode("POST", path, &[CURL_CONTENT_TYPE], b"1");
    let mut senders: Vec<_> = (0..WINDOW).map(|_| Http::connect(node.ready.api)).collect();
    for http in &senders {
        http.send(&push);
    }
    (0..WINDOW).for_each(|_| assert_eq!(device.next()["data"], 1));
    // The newest take the places of the oldest, however many there are, and those are told at once.
    let mut another = Http::connect(node.ready.api);
    let path = "/v1/devices/tv-1/messages?wait=acked&timeout_ms=1";
    for _ in 0..1_000 {
        let answer = another.request("POST", path, &[CURL_CONTENT_TYPE], b"2");
        answer.assert_error(504, "ack_timeout");
        assert_eq!(device.next()["data"], 2);
    }
    node.await_metric("tautline_unacknowledged", "", WINDOW as f64);
    for http in &mut senders {
        let answer = http.answer().expect("an answer");
        answer.assert_error(504, "ack_timeout");
        assert_eq!(answer.json()["error"]["level"], "written");
    }
    drop((senders, another, device));
    canary.survives();
}

#[test]
fn a_body_that_never_comes_reserves_nothing() {
    const SENDERS: u64 = 200;
    let node = Node::with_one_reactor(&["api.body_timeout=3s"]);
    let mut canary = Canary::on(&node);
    let mut senders: Vec<_> = (0..SENDERS)
        .map(|_| Http::connect(node.ready.api))
        .collect();
    let head =
        "POST /v1/devices/tv-1/messages HTTP/1.1\r\nHost: t\r\nContent-Length: 262144\r\n\r\n";
    let before = node.memory();
    for http in &senders {
        http.send(head);
    }
    canary.sing();
    let grown = node.memory().saturating_sub(before);
    println!("{} bytes for each sender", grown / SENDERS);
    assert!(grown < SENDERS * (64 << 10), "grown by {grown} bytes");
    for http in &mut senders {
        http.rest();
    }
    drop(senders);
    canary.survives();
}
