//! From one sending connection to one device in order; from everybody to everybody exactly once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::device::Device;
use crate::http::{Http, encode};
use crate::node::{CURL_CONTENT_TYPE, Node};

#[test]
fn a_thousand_messages_from_one_connection_arrive_in_order() {
    let node = Node::start(&["reactor.threads=4"]);
    let mut device = Device::connect(&node, "tv-1");
    let reader = thread::spawn(move || {
        for n in 0..1_000 {
            assert_eq!(device.next()["data"], n);
        }
    });
    let mut http = Http::connect(node.ready.api);
    for n in 0..1_000 {
        let path = "/v1/devices/tv-1/messages?wait=queued";
        let answer = http.request("POST", path, &[CURL_CONTENT_TYPE], n.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    reader.join().unwrap();
}

#[test]
fn pipelined_messages_arrive_in_order() {
    let node = Node::start(&["reactor.threads=4"]);
    for (d, wait) in ["queued", "written"].into_iter().enumerate() {
        let id = format!("tv-{d}");
        let mut device = Device::connect(&node, &id);
        let path = format!("/v1/devices/{id}/messages?wait={wait}");
        let requests = (0..300).map(|n: u32| {
            encode(
                "POST",
                &path,
                &[CURL_CONTENT_TYPE],
                n.to_string().as_bytes(),
            )
        });
        let requests = requests.collect::<Vec<_>>().concat();
        let mut http = Http::connect(node.ready.api);
        assert!(http.send(requests));
        for n in 0..300 {
            assert_eq!(device.next()["data"], n, "{wait}");
            assert!(http.answer().expect("an answer").status < 300);
        }
    }
}

#[test]
fn pipelined_sends_to_all_reactors_are_answered_in_the_order_they_came() {
    const DEVICES: usize = 16;
    const SENDS: usize = 600;
    let node = Node::start(&["reactor.threads=4"]);
    let mut devices: Vec<_> = (0..DEVICES)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    // One in so many is for a device that is away.
    let requests = (0..SENDS).map(|n| {
        let path = format!("/v1/devices/tv-{}/messages?wait=written", n % (DEVICES + 1));
        let id = format!("r-{n}");
        let headers = [CURL_CONTENT_TYPE, ("X-Request-Id", &id)];
        encode("POST", &path, &headers, n.to_string().as_bytes())
    });
    let requests = requests.collect::<Vec<_>>().concat();
    let mut http = Http::connect(node.ready.api);
    assert!(http.send(requests));
    for n in 0..SENDS {
        let answer = http.answer().expect("an answer");
        let id = format!("r-{n}");
        assert_eq!(answer.header("x-request-id"), Some(&*id));
        let is_away = n % (DEVICES + 1) == DEVICES;
        assert_eq!(answer.status, if is_away { 404 } else { 200 });
    }
    for (d, device) in devices.iter_mut().enumerate() {
        for n in (d..SENDS).step_by(DEVICES + 1) {
            assert_eq!(device.next()["data"], n, "tv-{d}");
        }
    }
}

#[test]
fn everybody_gets_each_message_once_and_nobody_anothers() {
    const DEVICES: usize = 40;
    const SENDERS: usize = 8;
    const ROUNDS: usize = 4;
    let node = Node::start(&["reactor.threads=4"]);
    let mut devices: Vec<_> = (0..DEVICES)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    thread::scope(|scope| {
        for s in 0..SENDERS {
            let node = &node;
            scope.spawn(move || send_rounds(node, s, DEVICES, ROUNDS));
        }
    });
    for (d, device) in devices.iter_mut().enumerate() {
        node.push(&format!("tv-{d}"), "", b"\"end\"");
        let mut next_of = [0; SENDERS];
        loop {
            let message = device.next();
            let Some([to, sender, round]) = numbers(&message["data"]) else {
                break;
            };
            assert_eq!(to, d, "misdelivered");
            assert_eq!(round, next_of[sender], "out of order, lost or twice");
            next_of[sender] += 1;
        }
        assert_eq!(next_of, [ROUNDS; SENDERS], "lost");
    }
    node.await_metric("tautline_messages_imbalance", "", 0.0);
    let sent = (DEVICES * (SENDERS * ROUNDS + 1)) as f64;
    node.await_metric("tautline_messages_ended_total", r#"ending="written""#, sent);
}

fn send_rounds(node: &Node, sender: usize, devices: usize, rounds: usize) {
    let mut http = Http::connect(node.ready.api);
    for round in 0..rounds {
        for to in 0..devices {
            let path = format!("/v1/devices/tv-{to}/messages");
            let body = format!("[{to},{sender},{round}]");
            let answer = http.request("POST", &path, &[CURL_CONTENT_TYPE], body.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

fn numbers(data: &Value) -> Option<[usize; 3]> {
    let numbers = data.as_array()?.iter().map(|n| n.as_u64().unwrap());
    let numbers: Vec<_> = numbers.map(|n| usize::try_from(n).unwrap()).collect();
    numbers.try_into().ok()
}

#[test]
fn messages_keep_their_order_while_their_device_moves_from_reactor_to_reactor() {
    const MOVES: usize = 60;
    let node = Node::start(&["reactor.threads=4"]);
    let mut device = Device::connect(&node, "tv-1");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| stream_numbers(&node, "tv-1", &is_over));
        for _ in 0..MOVES {
            let newer = Device::connect(&node, "tv-1");
            let mut older = std::mem::replace(&mut device, newer);
            let (before, code, _) = older.ending();
            assert_eq!(code, 4502);
            assert_rising(&before);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    node.push("tv-1", "", b"\"end\"");
    let mut last = Vec::new();
    while let message = device.receive()
        && !message.to_text().unwrap().contains(r#""end""#)
    {
        last.push(message);
    }
    assert_rising(&last);
    node.await_metric("tautline_messages_imbalance", "", 0.0);
}

/// Sends rising numbers over one stream, a hundred of them under way at once.
fn stream_numbers(node: &Node, device_id: &str, is_over: &AtomicBool) {
    let protocol = [("Sec-WebSocket-Protocol", "tautline.v1.stream.json")];
    let mut stream = Device::open(node.ready.peer, "/v1/stream", &protocol).unwrap();
    stream.await_welcome();
    let mut next = 0..;
    while !is_over.load(Ordering::Relaxed) {
        for n in next.by_ref().take(100) {
            stream.say(&json!({"id": n, "to": {"device": device_id}, "data": n, "wait": "queued"}));
        }
        for _ in 0..100 {
            assert_eq!(stream.next()["type"], "reply");
        }
    }
}

fn assert_rising(messages: &[Message]) {
    let mut latest = None;
    for message in messages.iter().filter(|message| message.is_text()) {
        let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let n = message["data"].as_u64();
        assert!(n > latest, "{n:?} came after {latest:?}");
        latest = n;
    }
}
