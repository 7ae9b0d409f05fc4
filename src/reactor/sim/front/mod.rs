//! Requests of back ends over a simulated socket: answered in front of hyper where they are hot, and by hyper alone. Nobody
//! can tell the difference, however the bytes are cut.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::device::{Heard, Line, frame};
use super::wire::{NodeEnd, Wire};
use super::world::{SHARDS, World, report_readiness};
use crate::config::Config;
use crate::config::size::Size;
use crate::reactor::api::conn::ApiConn;
use crate::reactor::conn::Phase;
use crate::reactor::settings::Settings;
use crate::reactor::shard::conn_id;

mod request;
mod tests;

/// A node with a few devices, and one back end at a time.
struct Bench {
    world: World,
    lines: Vec<Line>,
    /// What devices got: which, and what.
    heard: Vec<(usize, String)>,
    back_end: Rc<RefCell<Wire>>,
    answers: Vec<u8>,
}

impl Bench {
    /// Opens a line on each shard for the device of its number.
    fn new(is_hyper_alone: bool) -> Self {
        let mut config = Config::default();
        config.api.body_bytes_max = Size::kib(3);
        config.limits.message_bytes_max = Size::kib(1);
        // A life with mailboxes that take everything: who is refused for them depends on who else is under way.
        let mut world = World::new(ROOMY_SEED);
        // The times and sizes of a short life would have their say in the answers.
        let settings = Arc::new(Settings::load(&config).unwrap());
        world.node.settings.store(Arc::clone(&settings));
        for shard in &mut world.shards {
            shard.settings = Rc::new(Arc::clone(&settings));
            shard.api.is_hyper_alone.set(is_hyper_alone);
        }
        let mut lines = Vec::new();
        for shard in 0..usize::from(SHARDS) {
            world.connect_to(shard, shard);
            let number = world.newest[&shard];
            let line = world.lines.remove(&number).unwrap();
            line.wire.borrow_mut().window = usize::MAX;
            lines.push(line);
        }
        let mut bench = Self {
            world,
            lines,
            heard: Vec::new(),
            back_end: Wire::new(0, Rc::default()),
            answers: Vec::new(),
        };
        (0..400).for_each(|_| bench.step(1));
        bench.connect();
        bench
    }

    /// A back end connects to the first shard.
    fn connect(&mut self) {
        self.back_end = Wire::new(usize::MAX, Rc::default());
        self.answers.clear();
        let shard = &mut self.world.shards[0];
        let phase = Phase::Api(Box::new(ApiConn::new(self.world.now)));
        let opened = shard.open(NodeEnd(Rc::clone(&self.back_end)), phase, self.world.now);
        assert!(opened.is_some());
        shard.cells().api_connections.add(1);
    }

    /// Puts bytes on the way, to be there in the next step.
    fn send(&self, bytes: &[u8]) {
        let at = self.world.now.ms() + 1;
        self.back_end.borrow_mut().send(bytes, at);
    }

    /// Lets time pass and gives every shard an iteration.
    fn step(&mut self, ms: u64) {
        self.pass(ms);
        (0..usize::from(SHARDS)).for_each(|i| self.iterate(i));
        self.look();
    }

    fn pass(&mut self, ms: u64) {
        let from_ms = self.world.now.ms();
        self.world.pass(ms);
        let wires = self.lines.iter().map(|line| &line.wire);
        for wire in wires.chain([&self.back_end]) {
            wire.borrow_mut().advance(from_ms, self.world.now.ms());
        }
    }

    fn iterate(&mut self, i: usize) {
        self.world.begin(i);
        let now = self.world.now;
        let shard = &mut self.world.shards[i];
        let wires = self.lines.iter().map(|line| (line.shard, &line.wire));
        let wires = wires.chain([(0, &self.back_end)]);
        for (_, wire) in wires.filter(|(at, _)| *at == i) {
            report_readiness(shard, wire, now);
        }
        self.world.finish(i);
    }

    /// Devices read and acknowledge; the back end reads its answers.
    fn look(&mut self) {
        let at = self.world.now.ms() + 1;
        for line in &mut self.lines {
            for heard in line.hear() {
                match heard {
                    Heard::Text(value) if value["type"] == "message" => {
                        self.heard.push((line.device, value["data"].to_string()));
                        if value["ack"] == true {
                            let id = &value["message_id"];
                            line.say(&format!(r#"{{"type":"ack","message_id":{id}}}"#), at);
                        }
                    }
                    Heard::Ping(payload) => {
                        let pong = frame(10, &payload);
                        line.wire.borrow_mut().send(&pong, at);
                    }
                    Heard::Text(_) | Heard::Pong => {}
                    other @ (Heard::Close(_) | Heard::Refused(_)) => panic!("{other:?}"),
                }
            }
        }
        self.answers.extend(self.back_end.borrow_mut().read_all());
    }

    fn has_needed_hyper(&mut self) -> bool {
        let token = self.back_end.borrow().token.unwrap();
        let conn = self.world.shards[0].arena.get_mut(conn_id(token));
        let Phase::Api(conn) = &conn.unwrap().phase else {
            panic!("the connection is not a back end's");
        };
        conn.has_needed_hyper()
    }

    /// What the back end is told when it sends these pieces, one after the other, and has finished.
    fn ask(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        self.connect();
        for piece in pieces {
            self.send(piece);
            self.step(1);
        }
        // Who finishes at once may be answered before its last bytes are looked at, and so may not tell what happens.
        (0..QUIET_STEPS).for_each(|_| self.step(1));
        self.back_end.borrow_mut().finish();
        let mut steps = 0;
        while !self.back_end.borrow().is_ended_by_node {
            self.step(1);
            steps += 1;
            assert!(steps < 5_000, "the connection does not end");
        }
        self.look();
        std::mem::take(&mut self.answers)
    }
}

/// Steps after which everything is answered that will be.
const QUIET_STEPS: usize = 12;
/// A seed whose mailboxes are large.
const ROOMY_SEED: u64 = 1;

/// The answers without what tells one run from another: dates, ids, latencies, and so the length of a body with one.
fn masked(answers: &[u8]) -> String {
    let text = String::from_utf8_lossy(answers);
    let mut lines = Vec::new();
    for line in text.split("\r\n") {
        if line.starts_with("date: ") {
            lines.push("date: *".to_owned());
        } else {
            lines.push(mask_ids(&mask_latency(line)));
        }
    }
    lines.join("\r\n")
}

fn mask_latency(line: &str) -> String {
    let Some((before, after)) = line.split_once("\"latency_ms\":") else {
        return line.to_owned();
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}\"latency_ms\":*{}", mask_latency(rest))
}

/// Ids of messages, and of requests that had none: 26 digits and capitals.
fn mask_ids(line: &str) -> String {
    let is_id = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_id) {
        let run = rest[start..].find(|c| !is_id(c));
        let end = run.map_or(rest.len(), |length| start + length);
        out.push_str(&rest[..start]);
        out.push_str(if end - start == 26 {
            "*"
        } else {
            &rest[start..end]
        });
        rest = &rest[end..];
    }
    out + rest
}
