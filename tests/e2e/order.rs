//! From one sending connection to one device in order; from everybody to everybody exactly once.

use std::thread;

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

fn numbers(data: &serde_json::Value) -> Option<[usize; 3]> {
    let numbers = data.as_array()?.iter().map(|n| n.as_u64().unwrap());
    let numbers: Vec<_> = numbers.map(|n| usize::try_from(n).unwrap()).collect();
    numbers.try_into().ok()
}
