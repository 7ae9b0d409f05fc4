//! More than anybody needs: pings, pongs, frames and bytes from an authenticated device.

use crate::canary::Canary;
use crate::deadline::{Deadline, pause};
use crate::device::Device;
use crate::line::{Ending, Line, PING, PONG, TEXT, frame};
use crate::node::Node;
use serde_json::json;
use std::time::Duration;

/// No limit on what a line sends in a second: what is left are the bounds behind it.
const UNLIMITED: [&str; 3] = [
    "limits.frames_per_second=0",
    "limits.bytes_per_second=0",
    "limits.pings_per_second=0",
];

/// The line ends for its policy, and is counted so.
#[track_caller]
fn ends_by_policy(node: &Node, mut line: Line, flood: &[u8], pieces: usize) {
    let before = closed(node, "policy_violation");
    // It need not take it all.
    let _taken = (0..pieces).take_while(|_| line.send(flood)).count();
    let ending = line.ending();
    let is_ended = matches!(ending, Ending::Closed(1008, _) | Ending::Dropped);
    assert!(is_ended, "{ending:?}");
    let label = r#"reason="policy_violation""#;
    node.await_metric("tautline_connections_closed_total", label, before + 1.0);
}

fn closed(node: &Node, reason: &str) -> f64 {
    node.metric(
        "tautline_connections_closed_total",
        &format!("reason={reason:?}"),
    )
}

#[test]
fn pongs_nobody_asked_for_are_counted_like_any_frame() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    for payload in [&[][..], &[b'x'; 125]] {
        let flood = frame(PONG, payload).repeat(1_000);
        ends_by_policy(&node, Line::open(&node, "tv-1"), &flood, 100);
    }
    canary.survives();
}

#[test]
fn small_sound_messages_in_a_flood_end_the_line() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let never = "0".repeat(26);
    for text in [
        format!(r#"{{"type":"ack","message_id":"{never}"}}"#),
        r#"{"type":"dance"}"#.to_owned(),
        "x".to_owned(),
    ] {
        let flood = frame(TEXT, text).repeat(1_000);
        ends_by_policy(&node, Line::open(&node, "tv-1"), &flood, 50);
    }
    canary.survives();
}

#[test]
fn a_hundred_floods_at_once_hold_nobody_up() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut lines: Vec<_> = (0..100)
        .map(|d| Line::open(&node, &format!("tv-{d}")))
        .collect();
    let flood = frame(TEXT, r#"{"type":"dance"}"#).repeat(500);
    for line in &mut lines {
        line.send(&flood);
    }
    for line in &mut lines {
        let ending = line.ending();
        assert!(
            matches!(ending, Ending::Closed(1008, _) | Ending::Dropped),
            "{ending:?}"
        );
    }
    drop(lines);
    assert_eq!(closed(&node, "policy_violation"), 100.0);
    canary.survives();
}

#[test]
fn where_nothing_limits_a_flood_the_others_still_have_their_turn() {
    let node = Node::with_one_reactor(&UNLIMITED);
    let mut canary = Canary::on(&node);
    let mut line = Line::open(&node, "tv-1");
    let flood = frame(PONG, "").repeat(20_000);
    let deadline = Deadline::after(Duration::from_secs(3));
    let mut frames = 0;
    while !deadline.has_passed() {
        assert!(line.send(&flood), "closed although nothing limits it");
        frames += 20_000;
    }
    canary.sing();
    println!("{frames} pongs");
    assert!(node.metric("tautline_pongs_received_total", "") > 0.0);
    drop(line);
    canary.survives();
}

#[test]
fn pongs_for_a_device_that_does_not_read_are_bounded_by_its_outbox() {
    let node = Node::with_one_reactor(&UNLIMITED);
    let mut canary = Canary::on(&node);
    let before = node.memory();
    let mut line = Line::open_with_small_window(&node, "tv-1");
    let pings = frame(PING, [0; 125]).repeat(10_000);
    // Some megabytes stay in the kernel's buffers.
    let sent = (0..200).take_while(|_| line.send(&pings)).count();
    let grown = node.memory().saturating_sub(before);
    println!("{sent} times 10,000 pings, grown by {} KiB", grown >> 10);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    let label = r#"reason="slow_consumer""#;
    node.await_metric("tautline_connections_closed_total", label, 1.0);
    drop(line);
    canary.survives();
}

#[test]
fn pings_within_the_limit_are_answered_each_and_the_line_stays() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut line = Line::open(&node, "tv-1");
    for round in 0..30_u8 {
        line.send(frame(PING, [round]));
        assert_eq!(line.frame().expect("a pong").payload, [round]);
        pause(Duration::from_millis(60));
    }
    drop(line);
    canary.survives();
}

#[test]
fn devices_that_send_to_others_without_end_are_bounded() {
    const SENDS: usize = 150;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut senders: Vec<_> = (0..10)
        .map(|d| Device::connect_of(&node, &format!("phone-{d}"), "eve"))
        .collect();
    let mut victim = Device::connect_of(&node, "victim", "ann");
    for sender in &mut senders {
        for id in 0..SENDS {
            // Another's device, nobody's, and one that is away: all one.
            let to = ["victim", "nobody", "canary"][id % 3];
            sender.say(&json!({"type": "send", "id": id, "to": {"device": to}, "data": id}));
        }
    }
    let mut refused = 0;
    for sender in &mut senders {
        for _ in 0..SENDS {
            let reply = sender.next();
            let code = reply["error"]["code"]
                .as_str()
                .unwrap_or_else(|| panic!("{reply}"));
            assert!(
                ["target_unavailable", "rate_limited"].contains(&code),
                "{reply}"
            );
            refused += usize::from(code == "rate_limited");
        }
    }
    println!("{refused} of {} were over the rate", SENDS * senders.len());
    assert!(refused > 0);
    victim.assert_alive();
    drop((senders, victim));
    canary.survives();
}
