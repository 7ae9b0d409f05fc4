//! Back ends' streams: every record is answered once, whatever the other side does.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::canary::Canary;
use crate::deadline::{Deadline, PATIENCE, eventually, pause};
use crate::device::Device;
use crate::http::Http;
use crate::line::{Line, TEXT, connect, frame, request};
use crate::node::{Node, Setup};

const PATH: &str = "/v1/stream";
const PROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "tautline.v1.stream.json");

/// A stream of tungstenite's, which answers pings while it is read.
fn open(node: &Node) -> Device {
    let mut stream = Device::open(node.ready.peer, PATH, &[PROTOCOL]).expect("upgraded");
    stream.await_welcome();
    stream
}

/// A stream by hand, to be read and written by two threads.
fn open_by_hand(node: &Node, window: Option<usize>) -> (Line, TcpStream) {
    let socket = connect(node.ready.peer, window);
    let writer = socket.try_clone().unwrap();
    let mut line = Line::of(socket);
    line.send(request(PATH, ""));
    let head = line.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(next(&mut line)["type"], "welcome");
    (line, writer)
}

fn next(line: &mut Line) -> Value {
    let frame = line.frame().expect("another frame");
    assert_eq!(frame.first_byte, TEXT, "{frame:?}");
    serde_json::from_slice(&frame.payload).expect("a frame is JSON")
}

fn record(id: usize, device: &str) -> Value {
    json!({"id": id, "to": {"device": device}, "data": id})
}

#[test]
fn a_record_reaches_its_device_and_is_answered() {
    let node = Node::start(&["node.id=n-1"]);
    let mut device = Device::connect(&node, "tv-1");
    let mut stream = open(&node);
    let welcome = &stream.welcome;
    assert_eq!(
        (&welcome["window"], &welcome["node_id"]),
        (&json!(1_024), &json!("n-1"))
    );
    assert_eq!(welcome["ping_ms"], 45_000);
    assert_eq!(welcome["idle_ms"], 600_000);
    assert_eq!(welcome["max_message_bytes"], 65_536);
    stream.say(&json!({"id": "a", "to": {"device": "tv-1"}, "data": {"hi": 1}}));
    let message = device.next();
    assert_eq!(message["data"], json!({"hi": 1}));
    assert_eq!(message["from"]["service"], "dev");
    let reply = stream.next();
    assert_eq!(
        (&reply["type"], &reply["id"]),
        (&json!("reply"), &json!("a"))
    );
    assert_eq!(reply["message_id"], message["message_id"]);
    assert_eq!(
        (&reply["result"], &reply["level"]),
        (&json!("written"), &json!("written"))
    );
    assert!(reply["latency_ms"].is_u64(), "{reply}");

    stream.say(&json!({"id": [2], "to": {"device": "tv-1"}, "data_b64": "/wA=", "wait": "acked"}));
    let message = device.next();
    assert_eq!(
        (&message["data_b64"], &message["ack"]),
        (&json!("/wA="), &json!(true))
    );
    device.acknowledge(&message);
    let reply = stream.next();
    assert_eq!(
        (&reply["id"], &reply["result"]),
        (&json!([2]), &json!("acked"))
    );
    assert_eq!(node.metric("tautline_streams", ""), 1.0);
    assert_eq!(node.metric("tautline_stream_records_total", ""), 2.0);
    assert_eq!(
        node.metric("tautline_lines", ""),
        1.0,
        "a stream is no line"
    );
    stream.close();
    assert_eq!(stream.close_code(), 1005, "its own close is echoed");
    node.await_metric("tautline_streams", "", 0.0);
}

#[test]
fn ten_thousand_pipelined_records_are_answered_once_each_and_arrive_in_order() {
    const RECORDS: usize = 10_000;
    const DEVICES: usize = 20;
    let node = Node::start(&["reactor.threads=4"]);
    let readers: Vec<_> = (0..DEVICES)
        .map(|d| {
            let mut device = Device::connect(&node, &format!("tv-{d}"));
            thread::spawn(move || {
                for n in (d..RECORDS).step_by(DEVICES) {
                    assert_eq!(device.next()["data"], n, "out of order, lost or twice");
                }
            })
        })
        .collect();
    let (mut line, mut writer) = open_by_hand(&node, None);
    let sender = thread::spawn(move || {
        use std::io::Write as _;
        let records = (0..RECORDS)
            .map(|n| frame(TEXT, record(n, &format!("tv-{}", n % DEVICES)).to_string()));
        let records: Vec<_> = records.collect();
        for some in records.chunks(100) {
            writer.write_all(&some.concat()).unwrap();
        }
    });
    let mut answered = BTreeSet::new();
    for _ in 0..RECORDS {
        let reply = next(&mut line);
        assert_eq!(reply["result"], "written", "{reply}");
        assert!(answered.insert(reply["id"].as_u64().unwrap()), "{reply}");
    }
    sender.join().unwrap();
    readers
        .into_iter()
        .for_each(|reader| reader.join().unwrap());
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    node.await_metric("tautline_stream_records_total", "", RECORDS as f64);
}

#[test]
fn beyond_the_window_the_node_reads_no_further_and_loses_nothing() {
    const WINDOW: usize = 4;
    const RECORDS: usize = 200;
    let window = format!("api.stream_window={WINDOW}");
    let node = Node::start(&[
        &window,
        "heartbeat.ping_after=1s",
        "heartbeat.pong_timeout=500ms",
        "limits.frames_per_second=10000",
    ]);
    let mut device = Device::connect(&node, "tv-1");
    let mut stream = open(&node);
    assert_eq!(stream.welcome["window"], WINDOW);
    for n in 0..RECORDS {
        let mut record = record(n, "tv-1");
        record["wait"] = json!("acked");
        stream.say(&record);
    }
    let first: Vec<_> = (0..WINDOW).map(|_| device.next()).collect();
    // Longer than a heartbeat: what the node does not read is not held against the stream.
    let silence = Deadline::after(Duration::from_secs(3));
    device.set_patience(Duration::from_millis(200));
    while !silence.has_passed() {
        let came = device.poll();
        assert!(matches!(came, Some(Message::Ping(_)) | None), "{came:?}");
    }
    assert_eq!(
        node.metric("tautline_stream_records_total", ""),
        WINDOW as f64
    );
    device.set_patience(PATIENCE);
    first.iter().for_each(|message| device.acknowledge(message));
    for n in WINDOW..RECORDS {
        let message = device.next();
        assert_eq!(message["data"], n);
        device.acknowledge(&message);
    }
    let ids: BTreeSet<_> = (0..RECORDS)
        .map(|_| {
            let reply = stream.next();
            assert_eq!(reply["result"], "acked", "{reply}");
            reply["id"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(ids.len(), RECORDS);
}

#[test]
fn what_cannot_be_carried_out_is_answered_and_the_stream_stays() {
    let node = Node::start(&["api.body_bytes_max=128KiB"]);
    let raw = Device::connect_raw(&node, "raw-1");
    let mut stream = open(&node);
    let long = "x".repeat(65_536);
    let gone = raw.welcome["connection_id"]
        .as_str()
        .unwrap_or("nonsense")
        .to_owned();
    let table = [
        (
            r#"{"id":1,"to":{"device":"nobody"},"data":1}"#.to_owned(),
            json!(1),
            "device_offline",
        ),
        (
            r#"{"id":2,"to":{"device":"a b"},"data":1}"#.into(),
            json!(2),
            "invalid_id",
        ),
        (
            r#"{"id":3,"to":{"device":"a"}}"#.into(),
            json!(3),
            "invalid_body",
        ),
        (
            r#"{"id":4,"to":{"device":"a"},"data":1,"dat":2}"#.into(),
            json!(4),
            "unknown_field",
        ),
        (
            format!(r#"{{"id":5,"to":{{"device":"a"}},"data":"{long}"}}"#),
            json!(5),
            "payload_too_large",
        ),
        (
            r#"{"id":6,"to":{"device":"raw-1"},"data":1,"wait":"acked"}"#.into(),
            json!(6),
            "ack_unsupported",
        ),
        (
            format!(r#"{{"id":7,"to":{{"device":"raw-1"}},"data":1,"connection_id":"{gone}"}}"#),
            json!(7),
            "bad_request",
        ),
        ("nonsense".into(), Value::Null, "invalid_body"),
        ("[]".into(), Value::Null, "invalid_body"),
        (
            r#"{"to":{"device":"a"},"data":1}"#.into(),
            Value::Null,
            "invalid_body",
        ),
    ];
    for (text, id, code) in table {
        stream.send(Message::text(text.clone()));
        let answer = stream.next();
        let kind = if id.is_null() { "error" } else { "reply" };
        let shown = &text[..text.len().min(100)];
        assert_eq!(
            (&answer["type"], &answer["id"]),
            (&json!(kind), &id),
            "{shown}"
        );
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
        assert!(answer["error"]["retryable"].is_boolean());
    }
    let mut device = Device::connect(&node, "tv-1");
    stream.say(
        &json!({"id": 8, "to": {"device": "tv-1"}, "data": 1, "wait": "acked", "timeout_ms": 50}),
    );
    device.next();
    let late = stream.next();
    assert_eq!(
        (&late["level"], &late["error"]["code"]),
        (&json!("written"), &json!("ack_timeout"))
    );
    assert!(late["message_id"].is_string(), "{late}");
    stream.send(Message::binary(vec![1]));
    assert_eq!(stream.close_code(), 1003);
    let mut stream = open(&node);
    stream.send(Message::text("x".repeat(200_000)));
    assert_eq!(stream.close_code(), 1009);
}

#[test]
fn only_a_key_that_may_send_opens_a_stream() {
    let node = Setup::new(&[])
        .key("sender", "sender-key-0123456789", &["send"])
        .key("reader", "reader-key-0123456789", &["read"])
        .start();
    let open = |headers: &[(&str, &str)]| Device::open(node.ready.peer, PATH, headers);
    let bearer = |key: &'static str| ("Authorization", key);
    assert_eq!(open(&[PROTOCOL]).unwrap_err(), 401);
    assert_eq!(
        open(&[PROTOCOL, bearer("Bearer nonsense-0123456789")]).unwrap_err(),
        401
    );
    assert_eq!(
        open(&[PROTOCOL, bearer("Bearer reader-key-0123456789")]).unwrap_err(),
        403
    );
    let sender = bearer("Bearer sender-key-0123456789");
    let mqtt = ("Sec-WebSocket-Protocol", "mqtt");
    assert_eq!(open(&[mqtt, sender]).unwrap_err(), 400);
    let elsewhere = Device::open(node.ready.peer, "/ws?device_id=tv-1", &[PROTOCOL, sender]);
    assert_eq!(elsewhere.unwrap_err(), 404);
    let mut device = Device::connect(&node, "tv-1");
    let mut stream = open(&[PROTOCOL, sender]).unwrap();
    stream.await_welcome();
    stream.say(&record(1, "tv-1"));
    assert_eq!(device.next()["from"]["service"], "sender");
    node.await_metric(
        "tautline_connections_refused_total",
        r#"cause="unauthorized""#,
        3.0,
    );
    assert_eq!(node.metric("tautline_auth_failures_total", ""), 0.0);
    assert_eq!(
        Device::open(node.ready.devices, PATH, &[PROTOCOL]).unwrap_err(),
        404
    );
}

#[test]
fn a_stream_that_does_not_read_its_replies_is_left_waiting_and_then_closed() {
    let node = Node::start(&[
        "limits.outbox_bytes_max=64KiB",
        "limits.outbox_stall_timeout=1s",
    ]);
    let mut canary = Canary::on(&node);
    let (_line, mut writer) = open_by_hand(&node, Some(4_096));
    writer
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let before = node.memory();
    let records: Vec<_> = (0..1_000)
        .map(|n| frame(TEXT, record(n, "nobody").to_string()))
        .collect();
    let records = records.concat();
    // Until its own writes block, which they do because it reads nothing.
    let is_blocked = (0..1_000).any(|_| std::io::Write::write_all(&mut writer, &records).is_err());
    assert!(
        is_blocked,
        "a million records were taken from somebody who reads nothing"
    );
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="slow_consumer""#,
        1.0,
    );
    node.await_metric("tautline_streams", "", 0.0);
    canary.survives();
}

#[test]
fn a_stream_that_answers_no_ping_is_closed() {
    let node = Node::start(&["heartbeat.ping_after=1s", "heartbeat.pong_timeout=500ms"]);
    let (mut deaf, _writer) = open_by_hand(&node, None);
    assert_eq!(
        deaf.ending(),
        crate::line::Ending::Closed(4003, "pong_timeout".into())
    );
}

#[test]
fn an_idle_stream_is_asked_to_leave_and_records_put_that_off() {
    let node = Node::start(&["api.stream_idle_timeout=3s", "lifetime.goaway_grace=1s"]);
    let mut device = Device::connect(&node, "tv-1");
    let mut stream = open(&node);
    for n in 0..4 {
        pause(Duration::from_secs(1));
        stream.say(&record(n, "tv-1"));
        assert_eq!(stream.next()["type"], "reply");
        assert_eq!(device.next()["data"], n);
    }
    let goaway = stream.next();
    assert_eq!(
        (&goaway["type"], &goaway["reason"]),
        (&json!("goaway"), &json!("idle"))
    );
    stream.say(&record(9, "tv-1"));
    assert_eq!(
        stream.next()["id"],
        9,
        "records in flight are still carried out"
    );
    let (_, code, reason) = stream.ending();
    assert_eq!((code, reason.as_str()), (4004, "idle"));
}

#[test]
fn more_streams_than_allowed_are_refused_and_so_is_everybody_while_draining() {
    let mut node = Node::start(&[
        "api.streams_max=1",
        "reactor.threads=1",
        "drain.deadline=3s",
        "drain.interval=500ms",
        "lifetime.goaway_grace=2s",
    ]);
    let mut device = Device::connect(&node, "tv-1");
    let mut stream = open(&node);
    let refused = |code: &str| {
        let mut http = Http::connect(node.ready.peer);
        http.send(request(PATH, ""));
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["error"]["code"], code);
        assert!(answer.header("retry-after").is_some());
    };
    refused("overloaded");
    stream.say(&json!({"id": 1, "to": {"device": "tv-1"}, "data": 1, "wait": "acked"}));
    let message = device.next();
    node.signal(Signal::SIGTERM);
    let goaway = stream.next();
    assert_eq!(
        (&goaway["type"], &goaway["reason"]),
        (&json!("goaway"), &json!("drain"))
    );
    refused("draining");
    // What was under way is still answered.
    device.acknowledge(&message);
    assert_eq!(stream.next()["result"], "acked");
    stream.close();
    stream.ending();
    drop(device);
    assert_eq!(node.exit_status().code(), Some(0));
}

#[test]
fn a_stream_deaf_to_a_drain_is_closed_by_the_deadline() {
    let mut node = Node::start(&[
        "drain.deadline=3s",
        "drain.interval=500ms",
        "lifetime.goaway_grace=1s",
    ]);
    let mut stream = open(&node);
    node.signal(Signal::SIGINT);
    assert_eq!(stream.next()["type"], "goaway");
    let (_, code, reason) = stream.ending();
    assert_eq!((code, reason.as_str()), (4000, "drain"));
    assert_eq!(node.exit_status().code(), Some(0));
}

#[test]
fn streams_that_end_in_the_middle_harm_nobody() {
    let node = Node::start(&["reactor.threads=2"]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    for n in 0..20 {
        let (line, mut writer) = open_by_hand(&node, None);
        let records: Vec<_> = (0..50)
            .map(|i| {
                let mut record = record(i, "tv-1");
                record["wait"] = json!("acked");
                frame(TEXT, record.to_string())
            })
            .collect();
        std::io::Write::write_all(&mut writer, &records.concat()[..3_000 + n]).unwrap();
        line.reset();
        drop(writer);
    }
    eventually("all gone", || {
        (node.metric("tautline_streams", "") == 0.0).then_some(())
    });
    device.set_patience(Duration::from_millis(300));
    while device.poll().is_some() {}
    drop(device);
    canary.survives();
}
