//! Connections that are not meant to become anything: silent, reset, never closed, too many.

use std::time::Duration;

use crate::canary::Canary;
use crate::deadline::{Deadline, eventually, pause};
use crate::device::Device;
use crate::http::Http;
use crate::line::{Line, TEXT, connect, request, try_connect};
use crate::node::Node;

#[test]
fn a_thousand_silent_connections_end_at_their_deadline() {
    const SILENT: usize = 1_000;
    let node = Node::with_one_reactor(&[
        "limits.handshake_timeout=2s",
        "api.idle_timeout=2s",
        "lifetime.close_timeout=1s",
    ]);
    let mut canary = Canary::on(&node);
    let before = node.memory();
    let mut devices: Vec<_> = (0..SILENT)
        .map(|_| Http::connect(node.ready.devices))
        .collect();
    let mut senders: Vec<_> = (0..SILENT / 5)
        .map(|_| Http::connect(node.ready.api))
        .collect();
    let mut peers: Vec<_> = (0..SILENT / 5)
        .map(|_| Http::connect(node.ready.peer))
        .collect();
    let grown = node.memory().saturating_sub(before);
    println!("{} bytes for each", grown / (SILENT as u64 * 7 / 5));
    assert!(grown < SILENT as u64 * (16 << 10), "grown by {grown} bytes");
    for http in devices.iter_mut().chain(&mut senders).chain(&mut peers) {
        assert!(http.rest().is_empty(), "a word to who said nothing");
    }
    let closed = |reason: &str| {
        let label = format!("reason={reason:?}");
        node.metric("tautline_connections_closed_total", &label)
    };
    assert_eq!(closed("handshake_timeout"), (SILENT + peers.len()) as f64);
    assert_eq!(closed("idle"), senders.len() as f64);
    // The node is rid of them although they hold on.
    canary.survives();
    drop((devices, senders, peers));
}

#[test]
fn connections_that_are_reset_at_once_harm_nobody() {
    const ROUNDS: usize = 3_000;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let upgrade = request("/ws?device_id=tv-1", "");
    let pieces = ["", "G", "GET /ws HTTP/1.1\r\nHost: t\r\n", &upgrade];
    for round in 0..ROUNDS {
        let addr = [node.ready.devices, node.ready.api][round % 2];
        let mut line = Line::of(connect(addr, None));
        line.send(pieces[round / 2 % pieces.len()]);
        line.reset();
        if round % 100 == 0 {
            // A slot freed by a reset is soon somebody else's: nothing of before may reach them.
            let device_id = format!("tv-{round}");
            let mut device = Device::connect(&node, &device_id);
            assert_eq!(device.welcome["device_id"], *device_id);
            assert_eq!(node.push(&device_id, "", device_id.as_bytes()).status, 200);
            assert_eq!(device.next()["data"], *device_id);
        }
    }
    canary.survives();
}

#[test]
fn a_far_end_that_never_closes_is_left_at_the_deadline() {
    let node = Node::with_one_reactor(&["lifetime.close_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let mut lines: Vec<_> = (0..100)
        .map(|d| Line::open(&node, &format!("tv-{d}")))
        .collect();
    for line in &mut lines {
        // Without a mask: closed with 1002, which this far end never answers.
        line.send([TEXT, 2, b'h', b'i']);
    }
    let refused: Vec<_> = (0..100)
        .map(|_| Http::connect(node.ready.devices))
        .collect();
    for http in &refused {
        http.send("GET /nope HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    // Their sockets are still open here, and the node's descriptors are back.
    canary.survives();
    drop((lines, refused));
}

#[test]
fn more_connections_than_places_are_refused_and_those_inside_are_not_disturbed() {
    let node = Node::with_one_reactor(&["limits.connections_max=50", "limits.handshakes_max=20"]);
    let mut canary = Canary::on(&node);
    let mut inside: Vec<_> = (0..20)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let crowd: Vec<_> = (0..2_000)
        .map(|_| try_connect(node.ready.devices, None))
        .collect();
    for (d, device) in inside.iter_mut().enumerate() {
        assert_eq!(node.push(&format!("tv-{d}"), "", b"7").status, 200);
        assert_eq!(device.next()["data"], 7);
    }
    assert!(
        node.metric(
            "tautline_connections_refused_total",
            r#"cause="table_full""#
        ) > 0.0
    );
    drop((crowd, inside));
    canary.survives();
    eventually("room again", || {
        Device::try_open(node.ready.devices, "/ws?device_id=tv-1", &[]).ok()
    });
}

#[test]
fn a_crowd_on_the_ops_port_is_bounded_and_over_when_it_leaves() {
    const PLACES: usize = 256;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut first = Http::connect(node.ready.ops);
    assert_eq!(first.request("GET", "/livez", &[], b"").status, 200);
    let crowd: Vec<_> = (0..PLACES + 100)
        .filter_map(|_| try_connect(node.ready.ops, None).ok())
        .collect();
    let refused = eventually("some are reset", || {
        let page = first.request("GET", "/metrics", &[], b"").text();
        let name = "tautline_ops_connections_refused_total ";
        let refused: f64 = page
            .lines()
            .find_map(|line| line.strip_prefix(name))?
            .parse()
            .unwrap();
        (refused >= 100.0).then_some(refused)
    });
    println!("{refused} refused");
    drop(crowd);
    drop(first);
    eventually("a place", || ops_answers(&node).then_some(()));
    canary.survives();
}

/// Whether the ops port has a place; a full one resets.
fn ops_answers(node: &Node) -> bool {
    let mut http = Http::connect(node.ready.ops);
    http.send("GET /livez HTTP/1.1\r\nHost: t\r\n\r\n") && http.answer().is_some()
}

#[test]
fn an_ops_request_that_never_ends_is_ended() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let slow = Http::connect(node.ready.ops);
    let mut silent = Http::connect(node.ready.ops);
    slow.send("GET /metrics HTTP/1.1\r\nX: ");
    let deadline = Deadline::after(Duration::from_secs(15));
    while slow.send("x") {
        assert!(!deadline.has_passed(), "still open after 15 s");
        pause(Duration::from_millis(100));
    }
    assert!(silent.rest().is_empty());
    canary.survives();
}

#[test]
fn what_a_proxy_would_say_is_not_believed() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let v1 = "PROXY TCP4 10.0.0.1 10.0.0.2 1000 7400\r\n".as_bytes();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x03\xe8\x1c\xe8";
    let upgrade = request("/ws?device_id=tv-1", "");
    for header in [v1, v2] {
        for addr in [
            node.ready.devices,
            node.ready.api,
            node.ready.peer,
            node.ready.ops,
        ] {
            let mut http = Http::connect(addr);
            http.send([header, upgrade.as_bytes()].concat());
            assert_eq!(http.answer().expect("an answer").status, 400);
            http.rest();
        }
    }
    assert_eq!(node.device_status("tv-1"), 404);
    canary.survives();
}
