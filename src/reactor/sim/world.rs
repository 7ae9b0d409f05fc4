//! One life: shards, devices, back ends, and chance.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashSet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::admission::address;
use super::broadcast::Broadcasts;
use super::chat::{Chat, OFFLINE_AFTER_MS};
use super::checker::Checker;
use super::device::{Heard, Line, frame};
use super::wire::{NodeEnd, Wire};
use crate::base::close::CloseReason;
use crate::base::id::{Location, NodeEpoch, ShardId};
use crate::base::time::Now;
use crate::config::Config;
use crate::mailbox::command::{Mailbox, Post};
use crate::mailbox::queue::Wake;
use crate::metrics::{Ending, node_cells, total};
use crate::net::tls::policy::TlsCell;
use crate::protocol::upgrade::Door;
use crate::reactor::api::{ApiContext, parrot};
use crate::reactor::idempotency::Window;
use crate::reactor::node::Node;
use crate::reactor::settings::Settings;
use crate::reactor::shard::{Shard, conn_id};
use crate::reactor::waiter::Waiting;
use crate::route::account::Accounts;
use crate::route::event::Feed;
use crate::route::presence::Presence;

/// A node and everything around it.
pub(super) struct World {
    pub(super) random: SmallRng,
    pub(super) now: Now,
    pub(super) node: Arc<Node>,
    pub(super) shards: Vec<Shard<NodeEnd>>,
    pub(super) posts: Vec<Post>,
    /// Connections by number; a number is never used again.
    pub(super) lines: HashMap<u64, Line>,
    /// Each device's newest connection.
    pub(super) newest: HashMap<usize, u64>,
    /// The connections of each device, and the generations of those that were seen to be lines.
    pub(super) connections: HashMap<usize, Vec<u64>>,
    pub(super) generations: HashMap<u64, u64>,
    /// Where each connection is, or was.
    pub(super) locations: HashMap<u64, Location>,
    pub(super) waiting: HashMap<u64, Waiting>,
    /// Messages that a wire has taken whole.
    pub(super) written: Rc<RefCell<HashSet<u64>>>,
    pub(super) checker: Checker,
    /// What devices say to each other.
    pub(super) chat: Chat,
    /// What back ends say to all.
    pub(super) broadcasts: Broadcasts,
    /// When each device was last seen to lose a connection.
    pub(super) left: HashMap<usize, u64>,
    numbers: u64,
    /// Something happens at any time.
    is_eventful: bool,
    /// Back ends stream.
    has_back_ends: bool,
}

/// Wakes nobody: the world visits every shard at every step.
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::configured(seed, Config::default())
    }

    /// A node with these limits, and with times that fit a short life.
    pub(super) fn configured(seed: u64, mut config: Config) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        config.heartbeat.ping_after = Duration::from_secs(5);
        config.heartbeat.pong_timeout = Duration::from_secs(2);
        config.lifetime.age_max = Duration::from_secs(60);
        config.lifetime.age_jitter = Duration::from_secs(20);
        config.limits.outbox_stall_timeout = Duration::from_secs(4);
        config.presence.offline_after = Duration::from_millis(OFFLINE_AFTER_MS);
        config.limits.sends_per_second = 20;
        config.limits.sends_burst = 20;
        config.limits.handshakes_max = 60_000;
        config.api.stream_window = 4;
        config.limits.outbox_bytes_max = crate::config::size::Size::kib(2);
        let settings = Settings::load(&config).unwrap();
        // Some lives have mailboxes that are nearly always full.
        let commands_max = if random.random_ratio(1, 3) { 2 } else { 256 };
        let mailboxes: Vec<_> = (0..SHARDS)
            .map(|_| Mailbox::new(commands_max, NoWake))
            .collect();
        let posts: Vec<_> = mailboxes.iter().map(Mailbox::post).collect();
        let node = Arc::new(Node {
            id: "sim".into(),
            epoch: NodeEpoch { node: 1, boot: 2 },
            presence: Presence::new(20_000, SHARDS),
            accounts: Accounts::new(),
            settings: ArcSwap::from_pointee(settings),
            tls: TlsCell::load(&config).unwrap(),
            cells: node_cells(usize::from(SHARDS)),
            window: Window::default(),
            sockets: AtomicU32::new(0),
            is_unready: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            events: Feed::default(),
            failed_reloads: AtomicU64::new(0),
            pressure: crate::reactor::pressure::PressureGauge::default(),
            addresses: crate::route::address::Addresses::default(),
        });
        let shards = mailboxes
            .into_iter()
            .zip(0..)
            .map(|(mailbox, i)| shard(ShardId(i), &node, mailbox, &posts));
        Self {
            shards: shards.collect(),
            random,
            now: Now {
                us: 0,
                wall_ms: 1_700_000_000_000,
            },
            node,
            posts,
            lines: HashMap::new(),
            newest: HashMap::new(),
            connections: HashMap::new(),
            generations: HashMap::new(),
            locations: HashMap::new(),
            waiting: HashMap::new(),
            written: Rc::default(),
            checker: Checker::default(),
            chat: Chat::default(),
            broadcasts: Broadcasts::default(),
            left: HashMap::new(),
            numbers: 0,
            is_eventful: false,
            has_back_ends: false,
        }
    }

    /// The same, with back ends that stream.
    pub(super) fn with_back_ends(seed: u64) -> Self {
        Self {
            has_back_ends: true,
            ..Self::with_limits(seed)
        }
    }

    /// Lives through a few hundred mishaps, then through a quiet time, then drains; returns what tells one life from
    /// another.
    pub(super) fn live(mut self) -> Life {
        self.is_eventful = true;
        for _ in 0..STEPS {
            self.mishap();
            let ms = self.random.random_range(0..400);
            self.step(ms);
        }
        self.is_eventful = false;
        self.calm_down();
        self.check_one_holder();
        self.check_chat();
        self.check_broadcasts();
        self.check_back_ends();
        self.call_a_drain_back();
        self.drain();
        let endings = self.endings();
        let submitted = total(&self.node.cells, |cells| &cells.submitted);
        self.checker.finish(submitted, &endings);
        self.check_nothing_left();
        Life {
            numbers: self.numbers,
            heard: self.checker.heard() + self.chat.heard() + self.broadcasts.heard(),
            told: self.checker.told(),
            turned_away: self.turned_away(),
            bytes_out: total(&self.node.cells, |cells| &cells.bytes_out),
            endings,
        }
    }

    /// Many devices come at once, and one shard runs ahead of the others, so that presence grows again before every shard
    /// has noticed that it grew: all are found, before and after.
    pub(super) fn crowd(mut self, devices: usize) {
        for device in 0..devices {
            self.connect(device);
            if device % 250 == 0 {
                self.step(1);
            }
        }
        let lines = |world: &Self| total(&world.node.cells, |cells| &cells.lines);
        for _ in 0..CROWD_ROUNDS_MAX {
            if lines(&self) == devices as u64 {
                break;
            }
            let ahead = self.random.random_range(0..usize::from(SHARDS));
            (0..20).for_each(|_| self.iterate(ahead));
            self.step(20);
        }
        for _ in 0..20 {
            self.step(50);
            self.check_one_holder();
        }
        assert_eq!(lines(&self), devices as u64);
    }

    fn mishap(&mut self) {
        match self.random.random_range(0..100) {
            0..18 => {
                let device = self.random.random_range(0..DEVICES);
                self.connect(device);
            }
            18..26 if self.has_back_ends => self.stream(),
            18..44 => self.submit(),
            44..62 => self.chat(),
            62..65 => self.with_line(|line, _, _| line.wire.borrow_mut().cut()),
            65..69 => self.with_line(|line, now, late| {
                line.wire
                    .borrow_mut()
                    .send(&frame(8, &[3, 232]), now + late)
            }),
            69..72 => self.with_line(|line, _, _| line.wire.borrow_mut().finish()),
            72..76 => self.with_line(|line, _, _| line.is_stalled = true),
            76..84 => self.with_line(|line, _, _| line.is_stalled = false),
            84 => self.race(),
            85..87 => self.with_line(|line, _, _| line.is_vanished = true),
            87..89 => self.with_line(|line, _, _| line.is_deaf = true),
            89 => self.with_line(|line, _, _| line.is_mute = true),
            90..95 => {
                self.with_line(|line, now, late| {
                    line.wire
                        .borrow_mut()
                        .send(&frame(1, br#"{"type":"dance"}"#), now + late)
                });
            }
            95 => self.broadcast(),
            _ => self.with_line(|line, now, late| {
                let ping = frame(9, b"hello");
                let (head, tail) = ping.split_at(4);
                line.wire.borrow_mut().send(head, now);
                line.wire.borrow_mut().send(tail, now + late);
            }),
        }
    }

    fn with_line(&mut self, act: impl FnOnce(&mut Line, u64, u64)) {
        self.with_one(|_| true, act);
    }

    pub(super) fn with_device(&mut self, act: impl FnOnce(&mut Line, u64, u64)) {
        self.with_one(|line| line.back_end.is_none(), act);
    }

    fn with_one(
        &mut self,
        is_meant: impl Fn(&Line) -> bool,
        act: impl FnOnce(&mut Line, u64, u64),
    ) {
        let late_ms = self.random.random_range(0..1_000);
        let meant = self.lines.values().filter(|line| is_meant(line));
        let mut numbers: Vec<_> = meant.map(|line| line.number).collect();
        numbers.sort_unstable();
        if numbers.is_empty() {
            return;
        }
        let at = self.random.random_range(0..numbers.len());
        if let Some(line) = self
            .lines
            .get_mut(&numbers[at])
            .filter(|line| !line.is_vanished)
        {
            act(line, self.now.ms(), late_ms);
        }
    }

    pub(super) fn connect(&mut self, device: usize) {
        let shard = self.random.random_range(0..usize::from(SHARDS));
        self.connect_to(shard, device);
    }

    pub(super) fn connect_to(&mut self, shard: usize, device: usize) {
        let window = self.random.random_range(600..4_000);
        let wire = Wire::new(window, Rc::clone(&self.written));
        let end = NodeEnd(Rc::clone(&wire));
        let location = self.knock(shard, end, address(device), Door::Devices);
        let request = Line::request(device);
        let cut = self.random.random_range(0..request.len());
        wire.borrow_mut().send(&request[..cut], self.now.ms());
        let late_ms = self.random.random_range(0..300);
        wire.borrow_mut()
            .send(&request[cut..], self.now.ms() + late_ms);
        let number = self.next_number();
        self.lines
            .insert(number, Line::new(number, device, shard, wire));
        self.newest.insert(device, number);
        self.locations
            .extend(location.map(|location| (number, location)));
        self.connections.entry(device).or_default().push(number);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets time pass and gives every shard an iteration, in any order; one of them may be in the middle of its own while
    /// the others have theirs.
    pub(super) fn step(&mut self, ms: u64) {
        self.pass(ms);
        let first = self.random.random_range(0..usize::from(SHARDS));
        let slow = self.random.random_ratio(1, 2).then_some(first);
        if slow.is_some() {
            self.begin(first);
        }
        for i in 1..usize::from(SHARDS) {
            self.iterate((first + i) % usize::from(SHARDS));
        }
        match slow {
            Some(slow) => {
                // What it takes up now it has looked up later than what it took up before, and sends together with that.
                if self.is_eventful && self.random.random_ratio(1, 3) {
                    self.submit();
                }
                self.finish(slow);
            }
            None => self.iterate(first),
        }
        self.look();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        let from_ms = self.now.ms();
        self.now = Now {
            us: self.now.us + ms * 1_000,
            wall_ms: self.now.wall_ms + ms,
        };
        for line in self.lines.values() {
            line.wire.borrow_mut().advance(from_ms, self.now.ms());
        }
    }

    /// Has devices and back ends take what came of it, and what the node says judged.
    pub(super) fn look(&mut self) {
        self.check_ledger();
        self.check_limits();
        self.devices_act();
        self.collect_answers();
    }

    pub(super) fn iterate(&mut self, i: usize) {
        self.begin(i);
        self.finish(i);
    }

    /// The first phases of an iteration: what other shards have said.
    pub(super) fn begin(&mut self, i: usize) {
        self.shards[i].begin_iteration(self.now);
    }

    /// The rest of it.
    pub(super) fn finish(&mut self, i: usize) {
        let shard = &mut self.shards[i];
        let mut numbers: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| line.shard == i)
            .map(|(n, _)| *n)
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            report_readiness(shard, &self.lines[&number].wire, self.now);
        }
        shard.finish_iteration(self.now);
        for (number, line) in self.lines.iter().filter(|(_, line)| line.shard == i) {
            let id = line.wire.borrow().token.map(conn_id);
            let device = id.and_then(|id| shard.arena.get(id)?.device());
            if let Some(device) = device {
                self.generations.insert(*number, device.generation);
            }
        }
    }

    /// Devices read what they got and answer as devices do.
    fn devices_act(&mut self) {
        let mut replaced = Vec::new();
        let written = Rc::clone(&self.written);
        let written = written.borrow();
        let mut numbers: Vec<_> = self.lines.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let line = self.lines.get_mut(&number).unwrap();
            let now_ms = self.now.ms();
            for heard in line.hear() {
                let mut wire = line.wire.borrow_mut();
                match heard {
                    Heard::Text(value) => match value["type"].as_str().unwrap() {
                        "message" => {
                            if let Some(broadcast) = value["data"]["b"].as_u64() {
                                self.broadcasts.hear(broadcast, number);
                            } else if value["from"]["device"].is_string() {
                                let message = value["data"].as_u64().unwrap();
                                self.chat.hear(message, line.device, number);
                            } else {
                                let message = value["data"].as_u64().unwrap();
                                self.checker.hear(message, line.device, number);
                            }
                            if value["ack"] == true && !line.is_mute {
                                wire.send(&frame(1, ack_of(&value).as_bytes()), now_ms + 5);
                            }
                        }
                        "goaway" if !line.is_deaf => wire.send(&frame(8, &[3, 233]), now_ms + 50),
                        "reply" => match &mut line.back_end {
                            Some(back_end) => {
                                let record = back_end.reply(&value);
                                self.checker.reply(record, &value, &written, now_ms);
                            }
                            None if self.chat.reply(&value, number, &written) => {}
                            None => line.watched = None,
                        },
                        "welcome" if line.back_end.is_some() => {
                            line.back_end.as_mut().unwrap().is_welcomed = true;
                        }
                        "devices" if value["id"] != "l" => {
                            let watched = line.watched.as_mut();
                            watched.unwrap().show(&value, line.device);
                        }
                        "presence" => {
                            if let Some(watched) = &mut line.watched {
                                watched.tell(&value, line.device);
                            }
                        }
                        "goaway" | "error" | "devices" | "welcome" => {}
                        other => panic!("unexpected {other}"),
                    },
                    Heard::Ping(payload) => wire.send(&frame(10, &payload), now_ms + 20),
                    Heard::Pong => {}
                    Heard::Refused(_) => wire.finish(),
                    Heard::Close(code) => {
                        wire.finish();
                        if code == CloseReason::Replaced.code() {
                            replaced.push((number, line.device));
                        }
                    }
                }
            }
        }
        self.forget_ended();
        for (number, device) in replaced {
            self.check_replaced(number, device);
        }
    }

    /// Connections that either end has given up are no more.
    fn forget_ended(&mut self) {
        for (_, line) in self.lines.extract_if(|_, line| line.is_over()) {
            match &line.back_end {
                Some(back_end) => back_end.unknown().for_each(|n| self.checker.give_up(n)),
                None => drop(self.left.insert(line.device, self.now.ms())),
            }
        }
    }
}

/// What tells one life from another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Life {
    numbers: u64,
    heard: usize,
    bytes_out: u64,
    /// Connections refused for their address, and for their account.
    pub(super) turned_away: [u64; 2],
    /// How its messages ended.
    pub(super) endings: [u64; Ending::ALL.len()],
    /// How many of them senders were told of.
    pub(super) told: [u64; Ending::ALL.len()],
}

/// How a device acknowledges a message: with what it was told.
fn ack_of(message: &Value) -> String {
    format!(
        r#"{{"type":"ack","message_id":{},"data":{}}}"#,
        message["message_id"], message["data"]
    )
}

/// Tells a shard what its poll would say of a socket.
pub(super) fn report_readiness(shard: &mut Shard<NodeEnd>, wire: &RefCell<Wire>, now: Now) {
    let (id, has_edge, is_finished, is_writable) = {
        let mut wire = wire.borrow_mut();
        let Some(token) = wire.token.filter(|_| !wire.is_dropped_by_node) else {
            return;
        };
        (
            conn_id(token),
            std::mem::take(&mut wire.has_edge),
            wire.is_finished || wire.is_cut,
            wire.wants_writes && wire.outbound.len() < wire.window,
        )
    };
    if is_writable {
        shard.mark_dirty(id);
    }
    if has_edge {
        let conn = shard.arena.get_mut(id);
        let conn = conn.expect("a connection lives until its stream is dropped");
        conn.flags.is_read_closed |= is_finished;
        shard.notice_readable(id, now);
    }
}

fn shard(id: ShardId, node: &Arc<Node>, mailbox: Mailbox, posts: &[Post]) -> Shard<NodeEnd> {
    let context = ApiContext::new(id, Arc::clone(node), mailbox.post(), parrot());
    let outgoing = posts.iter().map(Post::batch).collect();
    Shard::new(
        Arc::clone(node),
        (),
        mailbox,
        outgoing,
        context,
        8_192,
        u64::from(id.0),
    )
}

pub(super) const SHARDS: u16 = 3;
pub(super) const DEVICES: usize = 8;
/// More than a crowd needs to get in, however unevenly its shards run.
const CROWD_ROUNDS_MAX: usize = 200;
/// Mishaps in one life.
const STEPS: usize = 300;
