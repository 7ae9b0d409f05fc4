//! One message for all lines: who gets it, in which order, at whose cost, and what is told of it.

use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::deadline::{Deadline, PATIENCE, eventually};
use crate::device::Device;
use crate::http::Answer;
use crate::node::{JSON_CONTENT_TYPE, Node};
use crate::token::{Issuer, jwt_setup, now_s};

fn broadcast(node: &Node, envelope: &Value) -> Answer {
    let body = envelope.to_string();
    node.request(
        "POST",
        "/v1/broadcasts",
        &[JSON_CONTENT_TYPE],
        body.as_bytes(),
    )
}

/// Waits until a broadcast has ended, and checks that every line has had one ending.
#[track_caller]
fn await_end(node: &Node, begun: &Answer) -> Value {
    assert_eq!(begun.status, 202, "{}", begun.text());
    let id = begun.json()["broadcast_id"].as_str().unwrap().to_owned();
    let ended = eventually("the broadcast ends", || {
        let path = format!("/v1/broadcasts/{id}");
        let status = node.request("GET", &path, &[], b"").json();
        (!status["ended_ms"].is_null()).then_some(status)
    });
    let count = |name: &str| ended[name].as_u64().unwrap();
    let sum: u64 = ["written", "slow", "gone", "unmatched", "unreached"]
        .map(count)
        .iter()
        .sum();
    assert_eq!(sum, count("lines"), "{ended}");
    assert_eq!(count("waiting"), 0);
    ended
}

#[test]
fn every_line_gets_a_broadcast_once_whatever_it_speaks_and_whichever_thread_holds_it() {
    let node = Node::start(&["reactor.threads=3"]);
    let mut devices: Vec<_> = (0..30)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let mut raw = Device::connect_raw(&node, "raw-1");
    let begun = node.request("POST", "/v1/broadcasts", &[], br#"{"score": "2:1"}"#);
    let ended = await_end(&node, &begun);
    assert_eq!(
        (&ended["state"], &ended["lines"]),
        (&json!("done"), &json!(31))
    );
    assert_eq!(ended["written"], 31);
    for device in &mut devices {
        let message = device.next();
        assert_eq!(message["data"], json!({"score": "2:1"}));
        assert_eq!(message["from"], json!({"service": "dev"}));
        assert_eq!(message["message_id"], ended["broadcast_id"]);
        device.assert_alive();
    }
    assert_eq!(raw.receive(), Message::text(r#"{"score": "2:1"}"#));
    let count = |ending: &str| {
        let label = format!("ending=\"{ending}\"");
        node.metric("tautline_broadcast_lines_ended_total", &label)
    };
    assert_eq!((count("written"), count("gone")), (31.0, 0.0));
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn a_broadcast_with_labels_reaches_those_whose_token_has_them_all() {
    let issuer = Issuer::hs256("a secret of thirty-two characters");
    let node = jwt_setup(&[], &issuer, &Issuer::es256(), "").start();
    let connect = |id: &str, labels: Value| {
        let claims = json!({"sub": id, "exp": now_s() + 600, "labels": labels});
        let token = issuer.sign(&claims);
        let path = format!("/ws?token={token}");
        let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
        device.await_welcome();
        device
    };
    let mut meant = connect("tv-1", json!({"region": "eu", "model": "X1"}));
    let mut others = [
        connect("tv-2", json!({"region": "eu"})),
        connect("tv-3", json!({"region": "us", "model": "X1"})),
        connect("tv-4", json!({})),
    ];
    let audience = json!({"data": 1, "labels": {"region": "eu", "model": "X1"}});
    let ended = await_end(&node, &broadcast(&node, &audience));
    assert_eq!(
        (&ended["written"], &ended["unmatched"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(ended["labels"], json!({"region": "eu", "model": "X1"}));
    assert_eq!(meant.next()["data"], 1);
    others.iter_mut().for_each(Device::assert_alive);
    let raw_only = json!({"data": 1, "protocol": "tautline.v1.raw"});
    let ended = await_end(&node, &broadcast(&node, &raw_only));
    assert_eq!(ended["unmatched"], 4);
}

#[test]
fn broadcasts_come_in_order_and_newcomers_get_those_that_begin_after_them() {
    const COUNT: u64 = 20;
    let node = Node::start(&["reactor.threads=2", "broadcast.running_max=100"]);
    let mut early: Vec<_> = (0..10)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let first = broadcast(&node, &json!({"data": 0}));
    await_end(&node, &first);
    let mut late = Device::connect(&node, "tv-late");
    for n in 1..COUNT {
        assert_eq!(broadcast(&node, &json!({ "data": n })).status, 202);
    }
    for device in &mut early {
        for n in 0..COUNT {
            assert_eq!(device.next()["data"], n);
        }
    }
    for n in 1..COUNT {
        assert_eq!(late.next()["data"], n);
    }
}

#[test]
fn who_does_not_read_is_left_out_and_stays_connected() {
    let node = Node::with_one_reactor(&["limits.outbox_stall_timeout=60s"]);
    let mut device = Device::connect(&node, "tv-1");
    let mut reader = Device::connect(&node, "tv-2");
    let long = "x".repeat(60_000);
    // The kernel's buffers fill first, then half of the outbox.
    let deadline = Deadline::after(PATIENCE);
    let mut sent = 0;
    let left_out = loop {
        assert!(!deadline.has_passed(), "it is never slow");
        let begun = broadcast(&node, &json!({"data": long, "ttl_ms": 60_000}));
        assert_eq!(begun.status, 202);
        let id = begun.json()["broadcast_id"].clone();
        let path = format!("/v1/broadcasts/{}", id.as_str().unwrap());
        let status = eventually("both lines have had their turn", || {
            let status = node.request("GET", &path, &[], b"").json();
            let count = |name: &str| status[name].as_u64().unwrap();
            (count("written") + count("waiting") + count("slow") == 2).then_some(status)
        });
        assert_eq!(reader.next()["data"], json!(long));
        if status["slow"] == 1 {
            break status;
        }
        sent += 1;
        if status["waiting"] == 1 {
            // Those under way are bounded, and this one may not end before the device reads.
            node.request("DELETE", &path, &[], b"");
        }
    };
    assert_eq!(left_out["state"], "done");
    assert!(sent > 0);
    assert_eq!(node.device_status("tv-1"), 200, "still connected");
    // A message that is for it alone has room.
    assert_eq!(node.push("tv-1", "?wait=queued", b"1").status, 202);
    for _ in 0..sent {
        assert_eq!(device.next()["data"], json!(long));
    }
    assert_eq!(device.next()["data"], 1);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_broadcast_waiting", "", 0.0);
}

/// A node whose broadcasts of 60 KB have a line's turn once in a while.
fn slow_node() -> Node {
    Node::with_one_reactor(&[
        "broadcast.bytes_per_second=100KiB",
        "broadcast.running_max=1",
    ])
}

fn long() -> Value {
    json!("x".repeat(60_000))
}

#[test]
fn a_broadcast_keeps_to_its_pace_and_can_be_cancelled() {
    let node = slow_node();
    let mut devices: Vec<_> = (0..50)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let begun = broadcast(&node, &json!({"data": long()}));
    // As many as may run do.
    broadcast(&node, &json!({"data": 1})).assert_error(503, "overloaded");
    let id = begun.json()["broadcast_id"].as_str().unwrap().to_owned();
    devices[0].next();
    // Others are not held up by it.
    assert_eq!(node.push("tv-49", "", b"7").status, 200);
    assert_eq!(devices[49].next()["data"], 7);
    let path = format!("/v1/broadcasts/{id}");
    let cancelled = node.request("DELETE", &path, &[], b"");
    assert_eq!(cancelled.json()["state"], "cancelled");
    let ended = await_end(&node, &begun);
    assert_eq!(ended["state"], "cancelled");
    let written = ended["written"].as_u64().unwrap();
    assert!((1..40).contains(&written), "{written} at 100 KiB/s");
    assert_eq!(ended["unreached"].as_u64(), Some(50 - written));
    devices[49].assert_alive();
    let next = await_end(&node, &broadcast(&node, &json!({"data": 2})));
    assert_eq!(next["written"], 50);
    let list = node.request("GET", "/v1/broadcasts", &[], b"").json();
    let ids = list["broadcasts"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[1]["broadcast_id"]), (2, &json!(id)));
}

#[test]
fn lines_that_end_before_their_turn_are_gone_and_time_ends_a_broadcast() {
    let node = slow_node();
    let devices: Vec<_> = (0..30)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let begun = broadcast(&node, &json!({"data": long(), "ttl_ms": 1500}));
    let ended = await_end(&node, &begun);
    assert_eq!(ended["state"], "expired");
    assert!(ended["unreached"].as_u64() > Some(0), "{ended}");

    let begun = broadcast(&node, &json!({"data": long()}));
    drop(devices);
    let ended = await_end(&node, &begun);
    assert_eq!(ended["state"], "done");
    assert!(ended["gone"].as_u64() > Some(0), "{ended}");
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn a_repeated_request_with_a_key_begins_one_broadcast() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let keyed = |data: u64| {
        let headers = [("Idempotency-Key", "goal-1")];
        let body = data.to_string();
        node.request("POST", "/v1/broadcasts", &headers, body.as_bytes())
    };
    let first = keyed(1);
    await_end(&node, &first);
    let again = keyed(1);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["broadcast_id"], first.json()["broadcast_id"]);
    keyed(2).assert_error(409, "idempotency_conflict");
    assert_eq!(device.next()["data"], 1);
    device.assert_alive();
}

#[test]
fn the_command_line_broadcasts_follows_lists_and_cancels() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let sent = node.tautline(&["broadcast", "hello", "--follow"]);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(device.next()["data"], "hello");
    let told = String::from_utf8(sent.stdout).unwrap();
    let last = told.lines().last().unwrap();
    assert!(
        last.contains("state=done") && last.contains("written=1"),
        "{told}"
    );
    let labelled = node.tautline(&[
        "broadcast",
        "{\"a\":1}",
        "--label",
        "region=eu",
        "--follow",
        "--json",
    ]);
    let told = String::from_utf8(labelled.stdout).unwrap();
    let status: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(status["unmatched"], 1);
    let listed = String::from_utf8(node.tautline(&["broadcast", "--list"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 2);
    let id = status["broadcast_id"].as_str().unwrap();
    assert!(
        node.tautline(&["broadcast", "--status", id])
            .status
            .success()
    );
    assert!(
        node.tautline(&["broadcast", "--cancel", id])
            .status
            .success()
    );
    let unknown = node.tautline(&["broadcast", "--cancel", "00000000000000000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown_broadcast"));
    device.set_patience(Duration::from_millis(50));
    assert!(device.poll().is_none(), "it was not meant");
}
