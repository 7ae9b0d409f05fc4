//! One life: shards, devices, back ends, and chance.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashSet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::chat::{Chat, OFFLINE_AFTER_MS};
use super::checker::Checker;
use super::device::{Heard, Line, frame};
use super::wire::{NodeEnd, Wire};
use crate::base::close::CloseReason;
use crate::base::id::{NodeEpoch, ShardId};
use crate::base::time::Now;
use crate::config::Config;
use crate::mailbox::command::{Command, Mailbox, Post};
use crate::mailbox::queue::Wake;
use crate::metrics::{Ending, node_cells, total};
use crate::net::tls::policy::TlsCell;
use crate::protocol::upgrade::{Door, Upgrade};
use crate::reactor::api::ApiContext;
use crate::reactor::conn::Phase;
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
    posts: Vec<Post>,
    /// Connections by number; a number is never used again.
    pub(super) lines: HashMap<u64, Line>,
    /// Each device's newest connection.
    pub(super) newest: HashMap<usize, u64>,
    /// The connections of each device, and the generations of those that were seen to be lines.
    pub(super) connections: HashMap<usize, Vec<u64>>,
    pub(super) generations: HashMap<u64, u64>,
    pub(super) waiting: HashMap<u64, Waiting>,
    /// Messages that a wire has taken whole.
    pub(super) written: Rc<RefCell<HashSet<u64>>>,
    pub(super) checker: Checker,
    /// What devices say to each other.
    pub(super) chat: Chat,
    /// When each device was last seen to lose a connection.
    pub(super) left: HashMap<usize, u64>,
    numbers: u64,
    /// Back ends stream, and devices keep to their shards: what a move does to the order of messages is looked at in lives
    /// without them.
    has_back_ends: bool,
}

/// Wakes nobody: the world visits every shard at every step.
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut config = Config::default();
        config.heartbeat.ping_after = Duration::from_secs(5);
        config.heartbeat.pong_timeout = Duration::from_secs(2);
        config.lifetime.age_max = Duration::from_secs(60);
        config.lifetime.age_jitter = Duration::from_secs(20);
        config.limits.outbox_stall_timeout = Duration::from_secs(4);
        config.presence.offline_after = Duration::from_millis(OFFLINE_AFTER_MS);
        config.limits.sends_per_second = 20;
        config.limits.sends_burst = 20;
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
            waiting: HashMap::new(),
            written: Rc::default(),
            checker: Checker::default(),
            chat: Chat::default(),
            left: HashMap::new(),
            numbers: 0,
            has_back_ends: false,
        }
    }

    /// The same, with back ends that stream.
    pub(super) fn with_back_ends(seed: u64) -> Self {
        Self {
            has_back_ends: true,
            ..Self::new(seed)
        }
    }

    /// Lives through a few hundred mishaps, then through a quiet time, then drains; returns what tells one life from
    /// another.
    pub(super) fn live(mut self) -> Life {
        for _ in 0..STEPS {
            self.mishap();
            let ms = self.random.random_range(0..400);
            self.step(ms);
        }
        self.calm_down();
        self.check_one_holder();
        self.check_chat();
        self.check_back_ends();
        self.drain();
        let endings = self.endings();
        let submitted = total(&self.node.cells, |cells| &cells.submitted);
        self.checker.finish(submitted, &endings);
        self.check_nothing_left();
        Life {
            numbers: self.numbers,
            heard: self.checker.heard() + self.chat.heard(),
            told: self.checker.told(),
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
            0..12 => {
                let device = self.random.random_range(0..DEVICES);
                self.connect(device);
            }
            32..40 if self.has_back_ends => self.stream(),
            12..40 => self.submit(),
            40..60 => self.chat(),
            60..66 => self.with_line(|line, _, _| line.wire.borrow_mut().cut()),
            66..72 => self.with_line(|line, now, late| {
                line.wire
                    .borrow_mut()
                    .send(&frame(8, &[3, 232]), now + late)
            }),
            72..76 => self.with_line(|line, _, _| line.wire.borrow_mut().finish()),
            76..80 => self.with_line(|line, _, _| line.is_stalled = true),
            80..86 => self.with_line(|line, _, _| line.is_stalled = false),
            86 => self.race(),
            87..89 => self.with_line(|line, _, _| line.is_vanished = true),
            89..91 => self.with_line(|line, _, _| line.is_deaf = true),
            91..96 => {
                self.with_line(|line, now, late| {
                    line.wire
                        .borrow_mut()
                        .send(&frame(1, br#"{"type":"dance"}"#), now + late)
                });
            }
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
        let shard = if self.has_back_ends {
            device % usize::from(SHARDS)
        } else {
            self.random.random_range(0..usize::from(SHARDS))
        };
        let window = self.random.random_range(600..4_000);
        let wire = Wire::new(window, Rc::clone(&self.written));
        let upgrade = Phase::Upgrade(Box::new(Upgrade::new(
            Door::Devices,
            Ipv4Addr::LOCALHOST.into(),
            None,
            self.now,
        )));
        self.node.sockets.fetch_add(1, Ordering::Relaxed);
        let opened = self.shards[shard].open(NodeEnd(Rc::clone(&wire)), upgrade, self.now);
        assert!(opened.is_some());
        self.shards[shard].cells().handshakes.add(1);
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
        self.connections.entry(device).or_default().push(number);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets time pass and gives every shard an iteration, in any order.
    pub(super) fn step(&mut self, ms: u64) {
        let from_ms = self.now.ms();
        self.now = Now {
            us: self.now.us + ms * 1_000,
            wall_ms: self.now.wall_ms + ms,
        };
        for line in self.lines.values() {
            line.wire.borrow_mut().advance(from_ms, self.now.ms());
        }
        let first = self.random.random_range(0..usize::from(SHARDS));
        for i in 0..usize::from(SHARDS) {
            self.iterate((first + i) % usize::from(SHARDS));
        }
        self.check_ledger();
        self.devices_act();
        self.collect_answers();
    }

    fn iterate(&mut self, i: usize) {
        let shard = &mut self.shards[i];
        shard.begin_iteration(self.now);
        let mut numbers: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| line.shard == i)
            .map(|(n, _)| *n)
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            let (id, is_readable, is_writable) = {
                let mut wire = self.lines[&number].wire.borrow_mut();
                let Some(token) = wire.token.filter(|_| !wire.is_dropped_by_node) else {
                    continue;
                };
                let is_writable = wire.wants_writes && wire.outbound.len() < wire.window;
                (
                    conn_id(token),
                    std::mem::take(&mut wire.has_edge),
                    is_writable,
                )
            };
            if is_writable {
                shard.mark_dirty(id);
            }
            if is_readable {
                let wire = self.lines[&number].wire.borrow();
                let is_finished = wire.is_finished || wire.is_cut;
                drop(wire);
                shard
                    .arena
                    .get_mut(id)
                    .expect("a connection lives until its stream is dropped")
                    .flags
                    .is_read_closed |= is_finished;
                shard.notice_readable(id, self.now);
            }
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
                            let message = value["data"].as_u64().unwrap();
                            if value["from"]["device"].is_string() {
                                self.chat.hear(message, line.device, number);
                            } else {
                                self.checker.hear(message, line.device, number);
                            }
                            if value["ack"] == true {
                                let ack = format!(
                                    r#"{{"type":"ack","message_id":{},"data":{}}}"#,
                                    value["message_id"], value["data"]
                                );
                                wire.send(&frame(1, ack.as_bytes()), now_ms + 5);
                            }
                        }
                        "goaway" if !line.is_deaf => wire.send(&frame(8, &[3, 233]), now_ms + 50),
                        "reply" => match &mut line.back_end {
                            Some(back_end) => {
                                let (record, is_lost) = back_end.reply(&value);
                                self.checker.reply(record, is_lost);
                            }
                            None => self.chat.reply(&value, number),
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
                        "goaway" | "error" | "devices" => {}
                        "welcome" => self.checker.welcome(number, now_ms),
                        other => panic!("unexpected {other}"),
                    },
                    Heard::Ping(payload) => wire.send(&frame(10, &payload), now_ms + 20),
                    Heard::Pong => {}
                    Heard::Close(code) => {
                        wire.finish();
                        if code == CloseReason::Replaced.code() {
                            replaced.push((number, line.device));
                        }
                    }
                }
            }
            if line.is_over() {
                match &line.back_end {
                    Some(back_end) => back_end.unknown().for_each(|n| self.checker.give_up(n)),
                    None => drop(self.left.insert(line.device, now_ms)),
                }
                self.lines.remove(&number);
            }
        }
        for (number, device) in replaced {
            self.check_replaced(number, device);
        }
    }

    /// No more mishaps: whoever stalled reads again; whoever vanished is found out by the heartbeat.
    fn calm_down(&mut self) {
        for line in self.lines.values_mut() {
            line.is_stalled = false;
        }
        for _ in 0..150 {
            self.step(100);
        }
        assert!(
            self.lines.values().all(|line| !line.is_vanished),
            "the heartbeat did not find a vanished device out"
        );
        assert!(
            self.waiting.is_empty(),
            "somebody waits longer than their patience"
        );
    }

    fn drain(&mut self) {
        for post in &self.posts {
            post.post(Command::Drain { spread_ms: 2_000 }).unwrap();
        }
        for _ in 0..90 {
            self.step(100);
        }
        assert_eq!(
            total(&self.node.cells, |cells| &cells.lines),
            0,
            "a line outlived the drain"
        );
        assert_eq!(
            total(&self.node.cells, |cells| &cells.streams),
            0,
            "a stream outlived the drain"
        );
        for post in &self.posts {
            post.post(Command::Stop(CloseReason::Shutdown)).unwrap();
        }
        for _ in 0..60 {
            self.step(100);
        }
    }

    fn check_nothing_left(&self) {
        for shard in &self.shards {
            assert!(shard.is_done(), "a connection is left");
            assert_eq!(shard.api.waiters.len(), 0, "a waiter is left");
            assert_eq!(shard.requests.len(), 0, "a request is left");
            assert_eq!(shard.allowances.len(), 0, "an allowance is left");
            assert!(shard.fanouts.is_empty(), "a message to an account is left");
            assert!(shard.watches.is_empty(), "a watch is left");
        }
        for device in 0..DEVICES {
            let presence = &self.node.presence;
            let found = presence.lookup(presence.fingerprint(format!("d-{device}").as_bytes()));
            assert_eq!(
                found.into_iter().count(),
                0,
                "d-{device} is left in presence"
            );
        }
        assert!(
            self.node.accounts.is_empty(),
            "a line is left in its account"
        );
        assert_eq!(self.node.accounts.watched(), 0, "a watch is left");
        let cells = &self.node.cells;
        let left = |name, number: fn(&crate::metrics::ShardCells) -> &crate::metrics::Cell| {
            assert_eq!(total(cells, number), 0, "{name}");
        };
        left("handshakes", |cells| &cells.handshakes);
        left("watches", |cells| &cells.watches);
        left("undelivered", |cells| &cells.undelivered);
        left("unacknowledged", |cells| &cells.unacked);
        left("outbox bytes", |cells| &cells.outbox_bytes);
        assert_eq!(self.node.sockets.load(Ordering::Relaxed), 0, "sockets");
        for shard in &self.shards {
            assert!(shard.wheel.is_empty(), "a timer is left");
        }
    }
}

/// What tells one life from another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Life {
    numbers: u64,
    heard: usize,
    bytes_out: u64,
    /// How its messages ended.
    pub(super) endings: [u64; Ending::ALL.len()],
    /// How many of them senders were told of.
    pub(super) told: [u64; Ending::ALL.len()],
}

fn shard(id: ShardId, node: &Arc<Node>, mailbox: Mailbox, posts: &[Post]) -> Shard<NodeEnd> {
    let no_control_plane = Arc::new(|_| unreachable!("no API connection lives here"));
    let context = ApiContext::new(id, Arc::clone(node), mailbox.post(), no_control_plane);
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
/// Mishaps in one life.
/// More than a crowd needs to get in, however unevenly its shards run.
const CROWD_ROUNDS_MAX: usize = 200;
const STEPS: usize = 300;
