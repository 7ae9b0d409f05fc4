//! How messages end: each in one way, told to whoever waits, and counted.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::deadline::eventually;
use crate::device::Device;
use crate::http::{Http, encode};
use crate::line::Line;
use crate::node::{CURL_CONTENT_TYPE, JSON_CONTENT_TYPE, Node, Setup};

const SEND: &str = "/v1/devices/tv-1/messages";
/// A node whose blocked lines stay.
const PATIENT: [&str; 2] = [
    "limits.outbox_stall_timeout=60s",
    "limits.outbox_bytes_max=1MiB",
];

/// A line of `tv-1` whose socket takes nothing more: what is sent now waits untouched.
fn blocked(node: &Node) -> Line {
    // Of an account, so that its devices may send to it.
    let line = Line::open_with_small_window(node, "tv-1&user_id=ann");
    let filler = "x".repeat(60_000);
    eventually("a blocked socket", || {
        let answer = node.push("tv-1", "?wait=queued", filler.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        (node.metric("tautline_undelivered", "") > 0.0).then_some(())
    });
    // One more stays behind the one that may have begun to leave.
    node.push("tv-1", "?wait=queued", b"0");
    line
}

/// Reads the line to its message `"end"`, and returns the short ones before it.
fn heard(node: &Node, mut line: Line) -> Vec<Value> {
    node.push("tv-1", "?wait=queued", b"\"end\"");
    let mut heard = Vec::new();
    loop {
        let frame = line.frame().expect("a frame");
        let message: Value = serde_json::from_slice(&frame.payload).unwrap();
        let data = &message["data"];
        if data == "end" {
            return heard;
        }
        if message["type"] == "message" && frame.payload.len() < 1_000 {
            heard.push(data.clone());
        }
    }
}

/// Sends a message whose answer is read later.
fn send(node: &Node, envelope: &Value) -> Http {
    let http = Http::connect(node.ready.api);
    let body = envelope.to_string();
    assert!(http.send(encode("POST", SEND, &[JSON_CONTENT_TYPE], body.as_bytes())));
    http
}

fn await_undelivered_above(node: &Node, before: f64) {
    eventually("another message that waits", || {
        (node.metric("tautline_undelivered", "") > before).then_some(())
    });
}

#[test]
fn a_message_whose_time_is_over_is_not_written_and_its_sender_told() {
    let node = Node::start(&PATIENT);
    let line = blocked(&node);
    let envelope = json!({"data": "late", "ttl_ms": 300, "timeout_ms": 20_000});
    let answer = node.push_envelope("tv-1", &envelope.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let result = answer.json();
    assert_eq!(
        (&result["result"], &result["level"]),
        (&json!("expired"), &json!("queued"))
    );
    assert!(
        result["latency_ms"].as_u64().is_some_and(|ms| ms >= 300),
        "{result}"
    );
    node.await_metric("tautline_messages_ended_total", r#"ending="expired""#, 1.0);
    // In seconds, in a header; and one that has time enough.
    let headers = [CURL_CONTENT_TYPE, ("TTL", "0")];
    let answer = node.request("POST", SEND, &headers, b"\"late\"");
    assert_eq!(answer.json()["result"], "expired", "{}", answer.text());
    let patient = [CURL_CONTENT_TYPE, ("TTL", "3600")];
    let path = format!("{SEND}?wait=queued");
    assert_eq!(
        node.request("POST", &path, &patient, b"\"in time\"").status,
        202
    );
    assert_eq!(heard(&node, line), [json!(0), json!("in time")]);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_outbox_bytes", "", 0.0);
}

#[test]
fn a_message_that_is_taken_at_once_does_not_expire() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut device = Device::connect(&node, "tv-1");
    for n in 0..50 {
        let headers = [CURL_CONTENT_TYPE, ("TTL", "1")];
        let answer = node.request("POST", SEND, &headers, n.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(device.next()["data"], n);
    }
}

#[test]
fn the_newest_message_takes_the_oldests_place() {
    let node = Node::start(&PATIENT);
    let line = blocked(&node);
    let before = node.metric("tautline_undelivered", "");
    let score = |data: &str| json!({"data": data, "collapse_key": "score", "timeout_ms": 20_000});
    let mut older = send(&node, &score("1:0"));
    await_undelivered_above(&node, before);
    assert_eq!(
        node.push("tv-1", "?wait=queued", b"\"between\"").status,
        202
    );
    // By header this time.
    let path = format!("{SEND}?wait=queued");
    let headers = [CURL_CONTENT_TYPE, ("Topic", "score")];
    assert_eq!(
        node.request("POST", &path, &headers, b"\"1:1\"").status,
        202
    );
    let answer = older.answer().expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let result = answer.json();
    assert_eq!(
        (&result["result"], &result["level"]),
        (&json!("superseded"), &json!("queued"))
    );
    assert_eq!(
        heard(&node, line),
        [json!(0), json!("1:1"), json!("between")]
    );
    node.await_metric(
        "tautline_messages_ended_total",
        r#"ending="superseded""#,
        1.0,
    );
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_outbox_bytes", "", 0.0);
}

#[test]
fn a_message_of_a_device_waits_on_the_same_terms() {
    let node = Node::start(&PATIENT);
    let line = blocked(&node);
    let mut sender = Device::connect_of(&node, "tv-2", "ann");
    let mut send = |id: u32, terms: Value| {
        let mut frame = json!({"type": "send", "id": id, "to": {"device": "tv-1"}, "data": id});
        let fields = frame.as_object_mut().unwrap();
        fields.extend(terms.as_object().unwrap().clone());
        sender.say(&frame);
    };
    send(1, json!({"ttl_ms": 200}));
    send(2, json!({"collapse_key": "score"}));
    send(3, json!({"collapse_key": "score", "wait": "queued"}));
    send(4, json!({"collapse_key": "a b"}));
    send(5, json!({"ttl_ms": "soon"}));
    let mut replies = [(); 5].map(|()| sender.next());
    replies.sort_by_key(|reply| reply["id"].as_u64());
    let told = replies.map(|reply| {
        let word = reply["result"]
            .as_str()
            .or_else(|| reply["error"]["code"].as_str());
        word.unwrap_or_default().to_owned()
    });
    assert_eq!(
        told,
        [
            "expired",
            "superseded",
            "queued",
            "invalid_body",
            "invalid_body"
        ]
    );
    assert_eq!(heard(&node, line), [json!(0), json!(3)]);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

#[test]
fn a_collapse_key_is_its_senders_own() {
    let mut setup = Setup::new(&PATIENT).api_key("billing-key-of-some-length-0123456789");
    for name in ["billing", "sports"] {
        let key = format!("{name}-key-of-some-length-0123456789\n");
        setup = setup.key(name, &key, &["send", "read"]);
    }
    let node = setup.start();
    let line = blocked(&node);
    for name in ["sports", "billing", "sports"] {
        let bearer = format!("Bearer {name}-key-of-some-length-0123456789");
        let body = json!({"data": name, "collapse_key": "k", "wait": "queued"}).to_string();
        let headers = [JSON_CONTENT_TYPE, ("Authorization", &bearer)];
        let answer = Http::connect(node.ready.api).request("POST", SEND, &headers, body.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(
        heard(&node, line),
        [json!(0), json!("sports"), json!("billing")]
    );
}

#[test]
fn what_a_device_says_with_its_ack_reaches_the_sender() {
    let node = Node::start(&["limits.ack_data_bytes_max=64B"]);
    let mut device = Device::connect(&node, "tv-1");
    let reader = thread::spawn(move || {
        let message = device.next();
        let id = &message["message_id"];
        let long = "x".repeat(64);
        device.say(&json!({"type": "ack", "message_id": id, "data": long}));
        let error = device.next();
        assert_eq!(error["error"]["code"], "payload_too_large", "{error}");
        device.say(&json!({"type": "ack", "message_id": id, "data": {"volume": 7}}));
        let message = device.next();
        device.acknowledge(&message);
        device.assert_alive();
    });
    let answer = node.push("tv-1", "?wait=acked&timeout_ms=20000", b"1");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["data"], json!({"volume": 7}));
    let answer = node.push("tv-1", "?wait=acked&timeout_ms=20000", b"2");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json().get("data").is_none(), "{}", answer.text());
    reader.join().unwrap();
}

#[test]
fn an_ack_that_never_comes_holds_no_later_one_up() {
    // With one reactor a message is written in the iteration that takes it up, before any deadline is looked at.
    let node = Node::with_one_reactor(&[]);
    let mut device = Device::connect(&node, "tv-1");
    // As many as a line is waited on for, and more.
    for n in 0..70 {
        let answer = node.push("tv-1", "?wait=acked&timeout_ms=1", n.to_string().as_bytes());
        answer.assert_error(504, "ack_timeout");
        assert_eq!(answer.json()["error"]["level"], "written");
        assert_eq!(device.next()["data"], n);
    }
    node.await_metric("tautline_unacknowledged", "", 64.0);
    let reader = thread::spawn(move || {
        let message = device.next();
        device.acknowledge(&message);
        device
    });
    let answer = node.push("tv-1", "?wait=acked&timeout_ms=20000", b"1");
    assert_eq!(answer.status, 200, "{}", answer.text());
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    drop(reader.join().unwrap());
    node.await_metric("tautline_unacknowledged", "", 0.0);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_messages_ended_total", r#"ending="acked""#, 1.0);
    node.await_metric("tautline_messages_ended_total", r#"ending="written""#, 70.0);
}

#[test]
fn a_line_kicked_after_the_look_up_takes_no_message_that_is_bound_to_it() {
    let node = Node::start(&[]);
    let mut first = Device::connect(&node, "tv-1");
    let found = node.request("GET", "/v1/devices/tv-1", &[], b"").json();
    let connection = found["connection_id"].as_str().unwrap();
    let kicked = node.request("DELETE", &format!("/v1/connections/{connection}"), &[], b"");
    assert_eq!(kicked.status, 204);
    let bound = json!({"data": 1, "connection_id": connection}).to_string();
    node.push_envelope("tv-1", &bound)
        .assert_error(410, "connection_gone");
    assert_eq!(first.close_code(), 4504);
    // Nor does the device's next line.
    let mut second = Device::connect(&node, "tv-1");
    node.push_envelope("tv-1", &bound)
        .assert_error(410, "connection_gone");
    second.assert_alive();
    node.await_metric("tautline_messages_ended_total", r#"ending="refused""#, 2.0);
}

#[test]
fn a_line_of_another_node_is_gone_here() {
    let (here, there) = (Node::start(&["node.id=a"]), Node::start(&["node.id=b"]));
    let mut device = Device::connect(&here, "tv-1");
    let elsewhere = Device::connect(&there, "tv-1");
    let bound = json!({"data": 1, "connection_id": elsewhere.connection_id()}).to_string();
    here.push_envelope("tv-1", &bound)
        .assert_error(410, "connection_gone");
    let garbage = json!({"data": 1, "connection_id": "garbage"}).to_string();
    here.push_envelope("tv-1", &garbage)
        .assert_error(400, "bad_request");
    device.assert_alive();
}

#[test]
fn a_line_that_was_asked_to_leave_still_gets_messages() {
    let node = Node::start(&["drain.interval=1ms", "lifetime.goaway_grace=20s"]);
    let mut device = Device::connect(&node, "tv-1");
    let path = format!("/v1/nodes/{}/drain", node.ready.node_id);
    let drain = node.request("POST", &path, &[], br#"{"deadline_ms":20000}"#);
    assert_eq!(drain.status, 202, "{}", drain.text());
    device.set_patience(Duration::from_secs(30));
    assert_eq!(device.next()["type"], "goaway");
    let answer = node.push("tv-1", "", b"1");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(device.next()["data"], 1);
}

#[test]
fn a_message_is_not_taken_up_before_its_request_is_whole() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let http = Http::connect(node.ready.api);
    let request = encode("POST", SEND, &[CURL_CONTENT_TYPE], b"\"never whole\"");
    http.send(&request[..request.len() - 1]);
    node.await_metric("tautline_api_connections", "", 1.0);
    drop(http);
    node.await_metric("tautline_api_connections", "", 0.0);
    assert_eq!(node.metric("tautline_messages_submitted_total", ""), 0.0);
    device.assert_alive();
}

#[test]
fn what_waits_when_the_node_dies_is_unknown_to_its_sender() {
    let mut node = Node::start(&PATIENT);
    let _line = blocked(&node);
    let before = node.metric("tautline_undelivered", "");
    let mut http = send(&node, &json!({"data": 1, "timeout_ms": 60_000}));
    await_undelivered_above(&node, before);
    node.kill();
    assert!(http.answer().is_none(), "an answer from the grave");
}

#[test]
fn a_message_that_waits_when_its_line_ends_is_lost_and_its_sender_told() {
    let node = Node::start(&PATIENT);
    let line = blocked(&node);
    let before = node.metric("tautline_undelivered", "");
    let mut http = send(&node, &json!({"data": 1, "timeout_ms": 60_000}));
    await_undelivered_above(&node, before);
    line.reset();
    let answer = http.answer().expect("an answer");
    answer.assert_error(404, "device_offline");
    node.await_metric("tautline_undelivered", "", 0.0);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

/// Ends a message in every way there is, and adds up.
#[test]
fn every_message_ends_once_whatever_the_ending() {
    let node = Setup::new(&["limits.outbox_stall_timeout=60s", "reactor.threads=2"])
        .config("")
        .start();
    let ended =
        |word: &str| node.metric("tautline_messages_ended_total", &format!("ending={word:?}"));
    // Offline, refused, written, acked.
    assert_eq!(node.push("tv-1", "", b"1").status, 404);
    let mut device = Device::connect(&node, "tv-1");
    let gone = json!({"data": 1, "connection_id": "AAAAAAAAAAAAAAAAAAAAAAAA"}).to_string();
    assert_eq!(node.push_envelope("tv-1", &gone).status, 410);
    let raw = Device::connect_raw(&node, "tv-raw");
    assert_eq!(node.push("tv-raw", "?wait=acked", b"1").status, 400);
    drop(raw);
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    device.next();
    let reader = thread::spawn(move || {
        let message = device.next();
        device.acknowledge(&message);
        device
    });
    assert_eq!(
        node.push("tv-1", "?wait=acked&timeout_ms=20000", b"1")
            .status,
        200
    );
    let mut device = reader.join().unwrap();
    device.close();
    device.close_code();
    // Superseded and expired; then too much, which ends the line and loses what waits.
    let line = Line::open_with_small_window(&node, "tv-1");
    let filler = "x".repeat(60_000);
    eventually("a blocked socket", || {
        assert_eq!(
            node.push("tv-1", "?wait=queued", filler.as_bytes()).status,
            202
        );
        (node.metric("tautline_undelivered", "") > 0.0).then_some(())
    });
    assert_eq!(node.push("tv-1", "?wait=queued", b"0").status, 202);
    for n in 0..2 {
        let keyed = json!({"data": n, "collapse_key": "k", "wait": "queued"}).to_string();
        assert_eq!(node.push_envelope("tv-1", &keyed).status, 202);
    }
    let late = json!({"data": 1, "ttl_ms": 1}).to_string();
    assert_eq!(
        node.push_envelope("tv-1", &late).json()["result"],
        "expired"
    );
    eventually("a slow consumer", || {
        let answer = node.push("tv-1", "?wait=queued", filler.as_bytes());
        (answer.status == 503).then_some(())
    });
    drop(line);
    node.await_metric("tautline_undelivered", "", 0.0);
    // Short of memory: messages are refused.
    let memory = "[memory]\nlimit = \"1MiB\"\n";
    std::fs::write(node.dir().join("tautline.toml"), memory).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("no room", || {
        (node.push("tv-1", "", b"1").status == 503).then_some(())
    });

    let words = [
        "written",
        "acked",
        "lost",
        "offline",
        "expired",
        "superseded",
        "slow_consumer",
        "refused",
        "busy",
    ];
    for word in words {
        assert!(ended(word) > 0.0, "no message ended as {word}");
    }
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    assert_eq!(node.metric("tautline_unacknowledged", ""), 0.0);
    let submitted = node.metric("tautline_messages_submitted_total", "");
    let all = node.metric("tautline_messages_ended_total", "");
    assert_eq!(submitted, all, "every ending is in the list");
    assert_eq!(words.map(ended).iter().sum::<f64>(), all);
}
