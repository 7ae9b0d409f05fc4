//! Back ends that stream: simulated connections like a device's, with a small window, to the same faults.

use std::net::Ipv4Addr;
use std::rc::Rc;

use hashbrown::HashSet;
use rand::Rng;
use serde_json::Value;

use super::checker::Sent;
use super::device::Line;
use super::wire::{NodeEnd, Wire};
use super::world::{DEVICES, SHARDS, World};
use crate::protocol::upgrade::Door;
use crate::wire::api::Level;

/// What a back end knows of its records.
#[derive(Debug, Default)]
pub(super) struct BackEnd {
    /// Records without a reply.
    unanswered: HashSet<u64>,
    /// The node takes records.
    pub(super) is_welcomed: bool,
}

impl BackEnd {
    /// Takes a reply: each record gets one, in any order.
    pub(super) fn reply(&mut self, value: &Value) -> u64 {
        let number = value["id"].as_u64().unwrap();
        let is_asked = self.unanswered.remove(&number);
        assert!(is_asked, "record {number} has two replies, or none asked");
        number
    }

    /// The stream has ended: what it was not told it does not know.
    pub(super) fn unknown(&self) -> impl Iterator<Item = u64> {
        self.unanswered.iter().copied()
    }
}

impl World {
    /// A back end opens a stream.
    pub(super) fn connect_back_end(&mut self) {
        let shard = self.random.random_range(0..usize::from(SHARDS));
        let window = self.random.random_range(600..4_000);
        let wire = Wire::new(window, Rc::clone(&self.written));
        let from = Ipv4Addr::LOCALHOST.into();
        let opened = self.knock(shard, NodeEnd(Rc::clone(&wire)), from, Door::Peer);
        assert!(opened.is_some());
        let request = "GET /v1/stream HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        wire.borrow_mut().send(request.as_bytes(), self.now.ms());
        let number = self.next_number();
        let mut line = Line::new(number, DEVICES, shard, wire);
        line.back_end = Some(BackEnd::default());
        self.lines.insert(number, line);
    }

    /// A back end pipelines some records, often more than its window.
    pub(super) fn stream(&mut self) {
        let is_open = |line: &&Line| {
            let back_end = line.back_end.as_ref();
            back_end.is_some_and(|b| b.is_welcomed) && !line.is_vanished && !line.is_over()
        };
        let mut open: Vec<_> = self
            .lines
            .values()
            .filter(is_open)
            .map(|l| l.number)
            .collect();
        open.sort_unstable();
        if open.is_empty() {
            return self.connect_back_end();
        }
        let by = open[self.random.random_range(0..open.len())];
        let late_ms = self.random.random_range(0..300);
        for _ in 0..self.random.random_range(1..12) {
            let number = self.next_number();
            let device = self.random.random_range(0..DEVICES);
            let level = self.random.random_range(0..3);
            let wait = [Level::Queued, Level::Written, Level::Acked][level];
            let is_mortal = self.random.random_ratio(1, 6);
            let ttl_ms = is_mortal.then(|| self.random.random_range(1..1_000));
            let key = self.random.random_ratio(1, 4).then_some(7);
            let terms = ttl_ms.map_or(String::new(), |ttl| format!(r#","ttl_ms":{ttl}"#))
                + &key.map_or(String::new(), |_| format!(r#","collapse_key":"k-{by}""#));
            let text = format!(
                r#"{{"id":{number},"to":{{"device":"d-{device}"}},"data":{number},"wait":"{}","timeout_ms":2000{terms}}}"#,
                wait.word()
            );
            let arrives_ms = self.now.ms() + late_ms;
            let line = self.lines.get_mut(&by).unwrap();
            line.say(&text, arrives_ms);
            line.back_end.as_mut().unwrap().unanswered.insert(number);
            // No device has a number that great, so that order is looked at stream by stream.
            let sender = usize::try_from(by).unwrap() + usize::from(SHARDS);
            let sent = Sent {
                device,
                sender,
                wait,
                at_ms: arrives_ms,
                ttl_ms,
                key,
                bound_to: None,
            };
            self.checker.send(number, sent);
        }
    }

    /// When nothing has happened for a while, whoever has a stream has its replies.
    pub(super) fn check_back_ends(&self) {
        for line in self.lines.values().filter(|line| !line.is_over()) {
            let unanswered = line.back_end.iter().flat_map(|b| &b.unanswered);
            let unanswered: Vec<_> = unanswered.collect();
            assert!(
                unanswered.is_empty(),
                "records without a reply: {unanswered:?}"
            );
        }
    }
}
