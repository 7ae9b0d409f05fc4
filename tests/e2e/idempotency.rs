//! The same request twice: carried out once, answered twice.

use std::process::Command;
use std::thread;

use serde_json::json;

use crate::deadline::eventually;
use crate::device::Device;
use crate::http::{Answer, Http, encode};
use crate::node::{CURL_CONTENT_TYPE, Node, Setup};

const SEND: &str = "/v1/devices/tv-1/messages";

fn push(node: &Node, key: &str, query: &str, body: &[u8]) -> Answer {
    let headers = [CURL_CONTENT_TYPE, ("Idempotency-Key", key)];
    node.request("POST", &format!("{SEND}{query}"), &headers, body)
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[test]
fn a_repeated_request_is_answered_again_and_delivered_once() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut device = Device::connect(&node, "tv-1");
    let first = push(&node, "order-7", "", b"1");
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(!is_replayed(&first));
    // On other connections, and so on other reactors; in quotes, as the draft has it; in the body.
    for _ in 0..8 {
        let again = push(&node, "order-7", "?timeout_ms=77", b"1");
        assert_eq!((again.status, again.text()), (200, first.text()));
        assert!(is_replayed(&again));
    }
    assert_eq!(push(&node, "\"order-7\"", "", b"1").text(), first.text());
    let envelope = json!({"data": 1, "idempotency_key": "order-7"}).to_string();
    assert_eq!(node.push_envelope("tv-1", &envelope).text(), first.text());
    assert_eq!(device.next()["message_id"], first.json()["message_id"]);
    device.assert_alive();
    node.await_metric("tautline_idempotency_replays_total", "", 10.0);
    node.await_metric("tautline_messages_submitted_total", "", 1.0);
}

#[test]
fn a_key_used_for_another_request_is_409() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let _other = Device::connect(&node, "tv-2");
    assert_eq!(push(&node, "k", "", b"1").status, 200);
    let headers = [CURL_CONTENT_TYPE, ("Idempotency-Key", "k")];
    for answer in [
        push(&node, "k", "", b"2"),
        push(&node, "k", "?wait=queued", b"1"),
        node.request("POST", "/v1/devices/tv-2/messages", &headers, b"1"),
    ] {
        answer.assert_error(409, "idempotency_conflict");
        assert_eq!(answer.json()["error"]["retryable"], false);
    }
    assert_eq!(device.next()["data"], 1);
    device.assert_alive();
}

#[test]
fn a_key_is_its_senders_own() {
    let mut setup = Setup::new(&[]);
    for name in ["billing", "sports"] {
        let key = format!("{name}-key-of-some-length-0123456789\n");
        setup = setup.key(name, &key, &["send"]);
    }
    let node = setup.start();
    let mut device = Device::connect(&node, "tv-1");
    for (n, name) in ["billing", "sports"].into_iter().enumerate() {
        let bearer = format!("Bearer {name}-key-of-some-length-0123456789");
        let headers = [
            CURL_CONTENT_TYPE,
            ("Idempotency-Key", "k"),
            ("Authorization", &bearer),
        ];
        let answer = node.request("POST", SEND, &headers, n.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(device.next()["data"], n);
    }
}

#[test]
fn a_request_that_is_under_way_is_409_and_may_be_asked_for_later() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let query = "?wait=acked&timeout_ms=20000";
    let mut first = Http::connect(node.ready.api);
    let headers = [CURL_CONTENT_TYPE, ("Idempotency-Key", "k")];
    first.send(encode("POST", &format!("{SEND}{query}"), &headers, b"1"));
    let message = device.next();
    let second = push(&node, "k", query, b"1");
    second.assert_error(409, "idempotency_pending");
    assert_eq!(second.json()["error"]["retryable"], true);
    assert!(second.header("retry-after").is_some());
    device.say(&json!({"type": "ack", "message_id": message["message_id"], "data": 5}));
    let first = first.answer().expect("an answer");
    assert_eq!(first.status, 200);
    let third = push(&node, "k", query, b"1");
    assert_eq!((third.status, third.text()), (200, first.text()));
    assert_eq!(third.json()["data"], 5);
    device.assert_alive();
}

#[test]
fn a_back_end_that_lost_its_connection_learns_what_became_of_its_message() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let query = "?wait=acked&timeout_ms=20000";
    let http = Http::connect(node.ready.api);
    let headers = [CURL_CONTENT_TYPE, ("Idempotency-Key", "k")];
    http.send(encode("POST", &format!("{SEND}{query}"), &headers, b"1"));
    let message = device.next();
    http.reset();
    node.await_metric("tautline_api_connections", "", 0.0);
    push(&node, "k", query, b"1").assert_error(409, "idempotency_pending");
    device.acknowledge(&message);
    let answer = eventually("the answer", || {
        let answer = push(&node, "k", query, b"1");
        (answer.status != 409).then_some(answer)
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["message_id"], message["message_id"]);
    assert_eq!(answer.json()["result"], "acked");
    device.assert_alive();
}

#[test]
fn a_deadline_that_was_missed_stays_missed_and_nothing_is_sent_twice() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let first = push(&node, "k", "?wait=acked&timeout_ms=50", b"1");
    first.assert_error(504, "ack_timeout");
    let again = push(&node, "k", "?wait=acked&timeout_ms=50", b"1");
    again.assert_error(504, "ack_timeout");
    assert!(is_replayed(&again));
    for field in ["message_id", "level"] {
        assert_eq!(again.json()["error"][field], first.json()["error"][field]);
    }
    device.next();
    device.assert_alive();
}

#[test]
fn without_a_key_a_repeated_request_is_another_message() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let http = Http::connect(node.ready.api);
    http.send(encode(
        "POST",
        &format!("{SEND}?wait=acked"),
        &[CURL_CONTENT_TYPE],
        b"1",
    ));
    let first = device.next();
    http.reset();
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    let second = device.next();
    assert_eq!(second["data"], first["data"]);
    assert_ne!(second["message_id"], first["message_id"]);
}

#[test]
fn the_command_line_sends_once_with_all_options() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let send = |ttl: &str| {
        let options = ["--collapse-key", "k", "--idempotency-key", "i", "--json"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
        command
            .args(["send", "tv-1", "1", "--ttl", ttl])
            .args(options);
        command
            .env(
                "TAUTLINE_STREAM",
                format!("ws://{}/v1/stream", node.ready.peer),
            )
            .output()
            .unwrap()
    };
    let first = send("1m");
    assert!(first.status.success(), "{first:?}");
    assert_eq!(send("60s").stdout, first.stdout);
    assert_eq!(send("2m").status.code(), Some(1), "another request");
    device.next();
    device.assert_alive();
}

#[test]
fn a_record_of_a_stream_is_carried_out_once_as_a_call_is() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let first = push(&node, "k", "?wait=acked&timeout_ms=50", b"1");
    first.assert_error(504, "ack_timeout");
    let mut stream = Device::open(node.ready.peer, "/v1/stream", &[]).unwrap();
    stream.await_welcome();
    let mut ask = |id: u32, key: &str, data: u32| {
        let to = json!({"device": "tv-1"});
        stream.say(&json!({"id": id, "to": to, "data": data, "wait": "acked",
            "timeout_ms": 50, "idempotency_key": key}));
        let reply = stream.next();
        assert_eq!(reply["id"], id, "{reply}");
        reply
    };
    let again = ask(1, "k", 1);
    assert_eq!(again["error"]["code"], "ack_timeout");
    assert_eq!(again["message_id"], first.json()["error"]["message_id"]);
    assert_eq!(ask(2, "k", 2)["error"]["code"], "idempotency_conflict");
    let other = ask(3, "k-2", 3);
    assert_eq!(ask(4, "k-2", 3)["message_id"], other["message_id"]);
    assert_eq!(device.next()["data"], 1);
    assert_eq!(device.next()["data"], 3);
    device.assert_alive();
}

#[test]
fn a_request_that_reached_nobody_is_tried_again() {
    let node = Node::start(&[]);
    push(&node, "k", "", b"1").assert_error(404, "device_offline");
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(push(&node, "k", "", b"1").status, 200);
    assert_eq!(device.next()["data"], 1);
}

#[test]
fn a_key_is_forgotten_when_its_window_is_over() {
    let node = Node::start(&["api.idempotency_window=1s"]);
    let mut device = Device::connect(&node, "tv-1");
    let first = push(&node, "k", "", b"1").json()["message_id"].clone();
    let second = eventually("another message", || {
        let id = push(&node, "k", "", b"1").json()["message_id"].clone();
        (id != first).then_some(id)
    });
    assert_eq!(device.next()["message_id"], first);
    assert_eq!(device.next()["message_id"], second);
}

#[test]
fn the_oldest_keys_are_forgotten_and_counted_when_there_are_too_many() {
    let node = Node::start(&["api.idempotency_keys_max=16"]);
    let _device = Device::connect(&node, "tv-1");
    for n in 0..40 {
        assert_eq!(push(&node, &format!("k-{n}"), "", b"1").status, 200);
    }
    let forgotten = node.metric("tautline_idempotency_keys_forgotten_total", "");
    assert!((24.0..40.0).contains(&forgotten), "{forgotten}");
    // The newest is known whatever came before it.
    assert!(is_replayed(&push(&node, "k-39", "", b"1")));
}

#[test]
fn of_many_at_once_one_is_carried_out() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut device = Device::connect(&node, "tv-1");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let answer = push(&node, "k", "", b"1");
                assert!([200, 409].contains(&answer.status), "{}", answer.text());
            });
        }
    });
    assert_eq!(device.next()["data"], 1);
    device.assert_alive();
    node.await_metric("tautline_messages_submitted_total", "", 1.0);
}
