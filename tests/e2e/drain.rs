//! Leaving: politely when there is time, at once when there is none, and coming back.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deadline::{Deadline, eventually};
use crate::device::Device;
use crate::http::Http;
use crate::line::request;
use crate::node::Node;

const QUICK: [&str; 3] = [
    "drain.deadline=5s",
    "drain.interval=500ms",
    "lifetime.goaway_grace=1s",
];

#[test]
fn a_node_that_drains_asks_its_devices_to_leave_and_exits_with_0() {
    let mut node = Node::start(&[
        "drain.deadline=8s",
        "drain.interval=2s",
        "lifetime.goaway_grace=1s",
    ]);
    let mut devices: Vec<_> = (0..5)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    assert_eq!(node.ops("/readyz").status, 200);
    node.signal(Signal::SIGTERM);
    eventually("readiness off", || {
        (node.ops("/readyz").status == 503).then_some(())
    });
    assert_eq!(node.ops("/livez").status, 200);
    Device::connect(&node, "tv-late").assert_alive();
    assert_eq!(node.push("tv-0", "", b"1").status, 200, "it still delivers");
    assert_eq!(devices[0].next()["data"], 1);
    // Each leaves when it is asked, as devices do.
    thread::scope(|scope| {
        for device in &mut devices {
            scope.spawn(|| leave_when_asked(device));
        }
    });
    assert_eq!(node.exit_status().code(), Some(0));
}

fn leave_when_asked(device: &mut Device) {
    let goaway = device.next();
    assert_eq!(goaway["type"], "goaway");
    assert_eq!(goaway["reason"], "drain");
    device.close();
    assert_eq!(device.close_code(), 1005, "its own close is echoed");
}

#[test]
fn a_device_deaf_to_a_drain_is_closed_with_4000_by_the_deadline() {
    let mut node = Node::start(&QUICK);
    let mut deaf = Device::connect(&node, "tv-1");
    let mut raw = Device::connect_raw(&node, "tv-2");
    let deadline = Deadline::after(Duration::from_secs(10));
    node.signal(Signal::SIGINT);
    assert_eq!(deaf.next()["type"], "goaway");
    let (_, code, reason) = deaf.ending();
    assert_eq!((code, reason.as_str()), (4000, "drain"));
    assert_eq!(raw.close_code(), 4000);
    assert_eq!(node.exit_status().code(), Some(0));
    assert!(!deadline.has_passed(), "later than the deadline allows");
}

#[test]
fn a_node_without_lines_exits_at_once() {
    let mut node = Node::start(&[]);
    let deadline = Deadline::after(Duration::from_secs(4));
    node.signal(Signal::SIGTERM);
    assert_eq!(node.exit_status().code(), Some(0));
    assert!(!deadline.has_passed(), "it waited");
}

#[test]
fn a_second_signal_closes_now() {
    let mut node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    node.signal(Signal::SIGTERM);
    eventually("readiness off", || {
        (node.ops("/readyz").status == 503).then_some(())
    });
    let deadline = Deadline::after(Duration::from_secs(4));
    node.signal(Signal::SIGTERM);
    let (_, code, _) = device.ending();
    assert!([1006, 1012, 4000].contains(&code), "{code}");
    node.exit_status();
    assert!(!deadline.has_passed(), "it waited");
}

#[test]
fn a_draining_node_turns_newcomers_away_with_503() {
    let node = Node::start(&[
        "drain.deadline=20s",
        "drain.interval=100ms",
        "lifetime.goaway_grace=15s",
    ]);
    let mut device = Device::connect(&node, "tv-1");
    node.signal(Signal::SIGTERM);
    assert_eq!(device.next()["type"], "goaway");
    let mut http = Http::connect(node.ready.devices);
    http.send(request("/ws?device_id=tv-2", ""));
    let answer = http.answer().expect("an answer");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "draining");
    assert!(answer.header("retry-after").is_some(), "no Retry-After");
    device.assert_alive();
}

#[test]
fn after_a_kill_the_same_ports_serve_again_and_ids_are_new() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    node.push("tv-1", "", b"1");
    let first = device.next();
    let old_line = device.connection_id();
    let again = node.restart();
    assert_eq!(device.close_code(), 1006);
    let mut device = Device::connect(&again, "tv-1");
    assert_ne!(device.connection_id(), old_line);
    again.push("tv-1", "", b"2");
    let second = device.next();
    assert_eq!(second["data"], 2);
    assert!(
        second["message_id"].as_str() > first["message_id"].as_str(),
        "ids sort by time"
    );
    let bound = serde_json::json!({"data": 1, "connection_id": old_line}).to_string();
    again
        .push_envelope("tv-1", &bound)
        .assert_error(410, "connection_gone");
}

#[test]
fn a_signal_in_the_middle_of_traffic_ends_cleanly() {
    let mut node = Node::start(&QUICK);
    let mut device = Device::connect(&node, "tv-1");
    let half = Http::connect(node.ready.devices);
    half.send("GET /ws HTT");
    let kept = Http::connect(node.ready.api);
    kept.send(
        "POST /v1/devices/tv-1/messages HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf",
    );
    node.signal(Signal::SIGTERM);
    device.ending();
    assert_eq!(node.exit_status().code(), Some(0));
}
