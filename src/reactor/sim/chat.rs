//! What simulated devices say to each other and watch of each other, and the judge of it.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use rand::Rng as _;
use serde_json::Value;

use super::checker::check_claim;
use super::device::Line;
use super::world::{DEVICES, World};
use crate::wire::api::Level;

/// What is known of the messages between devices of one life.
#[derive(Debug, Default)]
pub(super) struct Chat {
    said: HashMap<u64, Said>,
    /// Messages that a device has heard.
    heard: HashSet<(u64, usize)>,
    /// The last message of a line that another line heard, by (sender's line, receiver's line).
    latest: HashMap<(u64, u64), u64>,
    /// Whether a message was carried out, once its sender was told.
    replied: HashMap<u64, bool>,
}

/// A message of a device.
#[derive(Debug)]
struct Said {
    by: usize,
    line: u64,
    to: To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Device(usize),
    Account(usize),
}

/// What a line has been shown and told of its account.
#[derive(Debug, Default)]
pub(super) struct Watched {
    devices: BTreeMap<String, String>,
    /// The first page has come: what was told before belongs to an earlier watch.
    is_begun: bool,
    /// Everything has been shown.
    pub(super) is_live: bool,
}

/// The account of a device.
pub(super) fn account(device: usize) -> usize {
    device % 3
}

impl World {
    /// A device lists, watches, or sends some messages at once.
    pub(super) fn chat(&mut self) {
        let id = self.next_number();
        match self.random.random_range(0..10) {
            0 => self.with_device(|line, now, late| {
                if line.watched.is_none() {
                    line.watched = Some(Watched::default());
                    line.say(&format!(r#"{{"type":"watch","id":{id}}}"#), now + late);
                }
            }),
            1 => self.with_device(|line, now, late| {
                line.say(r#"{"type":"list","id":"l"}"#, now + late);
            }),
            2 => self.with_device(|line, now, late| {
                if line.watched.as_ref().is_some_and(|watched| watched.is_live) {
                    line.watched = None;
                    line.say(r#"{"type":"unwatch","id":"u"}"#, now + late);
                }
            }),
            _ => self.send_some(),
        }
    }

    fn send_some(&mut self) {
        let mut sends = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let to = if self.random.random_ratio(1, 3) {
                To::Account(self.random.random_range(0..3))
            } else {
                To::Device(self.random.random_range(0..DEVICES))
            };
            let wait = ["queued", "written", "acked"][self.random.random_range(0..3)];
            sends.push((self.next_number(), to, wait));
        }
        let mut said = Vec::new();
        self.with_device(|line, now, late| {
            let sends = sends.into_iter();
            said.extend(
                sends.map(|(number, to, wait)| (number, line.send(number, to, wait, now + late))),
            );
        });
        self.chat.said.extend(said);
    }

    /// A device sends to another.
    pub(super) fn say_to_device(&mut self, by: usize, device: usize) {
        self.say(by, To::Device(device));
    }

    /// A device sends to all of its account.
    pub(super) fn say_to_account(&mut self, by: usize) {
        self.say(by, To::Account(account(by)));
    }

    fn say(&mut self, by: usize, to: To) {
        let number = self.next_number();
        let line = &self.lines[&self.newest[&by]];
        let said = line.send(number, to, "written", self.now.ms() + 1);
        self.chat.said.insert(number, said);
    }

    /// A device of a large account sends to all of it, and then to one; a third of the crowd are in it.
    pub(super) fn shout(mut self, devices: usize) {
        for device in 0..devices {
            self.connect(device);
        }
        for _ in 0..20 {
            self.step(50);
        }
        let (all, one) = (self.next_number(), self.next_number());
        let line = self.lines.values().find(|line| line.device == 0).unwrap();
        let number = line.number;
        for (id, to) in [(all, r#"{"user":"a-0"}"#), (one, r#"{"device":"d-3"}"#)] {
            let text = format!(r#"{{"type":"send","id":{id},"to":{to},"data":{id}}}"#);
            line.say(&text, self.now.ms() + 1);
        }
        let said = |to| Said {
            by: 0,
            line: number,
            to,
        };
        self.chat.said.insert(all, said(To::Account(0)));
        self.chat.said.insert(one, said(To::Device(3)));
        let mut steps = 0;
        while self.chat.replied.len() < 2 {
            self.step(1);
            steps += 1;
            assert!(steps < 2 * devices, "the message to all is not answered");
        }
        self.step(1);
        let members = devices.div_ceil(3);
        assert_eq!(self.chat.heard(), members - 1, "all but the sender, once");
        let expected = HashMap::from([(all, true), (one, false)]);
        assert_eq!(
            self.chat.replied, expected,
            "a shout takes the whole allowance"
        );
        assert!(steps > members / 2, "all in {steps} iterations");
    }

    /// When nothing has happened for a while, whoever has a line knows all there is to know.
    pub(super) fn check_chat(&self) {
        for (number, said) in &self.chat.said {
            let is_heard_by_node = self
                .lines
                .get(&said.line)
                .is_some_and(|line| !line.is_over());
            assert!(
                !is_heard_by_node || self.chat.replied.contains_key(number),
                "message {number} of d-{} has no reply",
                said.by
            );
        }
        let online = self.online();
        for line in self.lines.values().filter(|line| !line.is_over()) {
            let Some(watched) = &line.watched else {
                continue;
            };
            assert!(
                watched.is_live,
                "d-{} was not shown everything",
                line.device
            );
            self.check_watched(line.device, watched, &online);
        }
    }

    fn check_watched(&self, watcher: usize, watched: &Watched, online: &HashSet<usize>) {
        for device in (0..DEVICES).filter(|device| account(*device) == account(watcher)) {
            let is_known = watched.devices.contains_key(&format!("d-{device}"));
            if online.contains(&device) {
                assert!(
                    is_known,
                    "d-{watcher} does not know that d-{device} is there"
                );
            } else if is_known {
                let left_ms = self.left.get(&device).copied().unwrap_or_default();
                assert!(
                    self.now.ms() - left_ms < OFFLINE_AFTER_MS + 500,
                    "d-{watcher} still takes d-{device} to be there"
                );
            }
        }
    }

    fn online(&self) -> HashSet<usize> {
        self.open_devices().collect()
    }

    /// The device of every line that is open.
    pub(super) fn open_devices(&self) -> impl Iterator<Item = usize> {
        let conns = self.shards.iter().flat_map(|shard| shard.arena.iter());
        let devices = conns.filter_map(|(_, conn)| conn.device());
        devices.map(|device| number_of(device.identity.device()))
    }
}

impl Chat {
    /// A line of a device heard a message of another device.
    pub(super) fn hear(&mut self, number: u64, device: usize, line: u64) {
        let said = &self.said[&number];
        match said.to {
            To::Device(to) => assert_eq!(to, device, "message {number} reached another device"),
            To::Account(to) => {
                assert_eq!(
                    to,
                    account(device),
                    "message {number} reached another account"
                );
                assert_ne!(said.by, device, "message {number} came back");
            }
        }
        assert_eq!(
            account(said.by),
            account(device),
            "message {number} crossed accounts without a right"
        );
        assert!(
            self.heard.insert((number, device)),
            "message {number} was heard twice"
        );
        let latest = self.latest.entry((said.line, line)).or_default();
        assert!(
            *latest < number,
            "message {number} overtook {latest} of the same line"
        );
        *latest = number;
        if said.to == To::Device(device) {
            let was_given_up = self.replied.get(&number) == Some(&false);
            assert!(!was_given_up, "message {number} was given up and yet heard");
        }
    }

    /// A line got a reply; `false` if it is not to a message. Of what else has a number, only a watch that is refused has a
    /// reply.
    pub(super) fn reply(&mut self, reply: &Value, line: u64, written: &HashSet<u64>) -> bool {
        let Some(number) = reply["id"].as_u64() else {
            return true;
        };
        let Some(said) = self.said.get(&number) else {
            let code = reply["error"]["code"].as_str();
            assert!(
                matches!(code, Some("rate_limited" | "overloaded")),
                "{reply}"
            );
            return false;
        };
        assert_eq!(
            said.line, line,
            "the reply to {number} went to another line"
        );
        let level = reply["level"].as_str().and_then(Level::from_word);
        check_claim(number, level >= Some(Level::Written), written);
        let code = reply["error"]["code"].as_str();
        // After a timeout, or when a line ended under a written message, the device may have it.
        let may_be_there = code.is_none() || code == Some("ack_timeout");
        assert!(
            self.replied.insert(number, may_be_there).is_none(),
            "message {number} was replied to twice"
        );
        if let To::Device(device) = said.to {
            let is_heard = self.heard.contains(&(number, device));
            assert!(
                may_be_there || !is_heard,
                "message {number} was heard and yet given up: {reply}"
            );
        }
        true
    }

    /// How many were heard.
    pub(super) fn heard(&self) -> usize {
        self.heard.len()
    }
}

impl Line {
    /// Puts a message to others on its way to the node.
    fn send(&self, number: u64, to: To, wait: &str, arrives_ms: u64) -> Said {
        let to_text = match to {
            To::Device(to) => format!(r#"{{"device":"d-{to}"}}"#),
            To::Account(to) => format!(r#"{{"user":"a-{to}"}}"#),
        };
        let text = format!(
            r#"{{"type":"send","id":{number},"to":{to_text},"data":{number},"wait":"{wait}","timeout_ms":2000}}"#
        );
        self.say(&text, arrives_ms);
        Said {
            by: self.device,
            line: self.number,
            to,
        }
    }
}

impl Watched {
    /// A page of the account.
    pub(super) fn show(&mut self, page: &Value, device: usize) {
        for shown in page["devices"].as_array().unwrap() {
            let (id, state) = (text(&shown["device_id"]), text(&shown["state"]));
            assert_eq!(
                account(number_of(&id)),
                account(device),
                "{id} is another account's"
            );
            assert!(["online", "moving"].contains(&&*state), "{page}");
            assert!(
                self.devices.insert(id, state).is_none(),
                "shown twice: {page}"
            );
        }
        self.is_begun = true;
        self.is_live = page["more"] == false;
    }

    /// A change.
    pub(super) fn tell(&mut self, told: &Value, device: usize) {
        if !self.is_begun {
            return;
        }
        let (id, state) = (text(&told["device_id"]), text(&told["state"]));
        assert_eq!(
            account(number_of(&id)),
            account(device),
            "{id} is another account's"
        );
        let known = self.devices.get(&id).cloned();
        match &*state {
            "online" => assert_ne!(known.as_deref(), Some("online"), "no news: {told}"),
            "moving" => assert_eq!(known.as_deref(), Some("online"), "{told}"),
            _ => assert!(known.is_some(), "nobody knew it: {told}"),
        }
        if state == "offline" {
            self.devices.remove(&id);
        } else {
            self.devices.insert(id, state);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number_of(name: &str) -> usize {
    name.strip_prefix("d-").unwrap().parse().unwrap()
}

/// After how long a device that has left is told of.
pub(super) const OFFLINE_AFTER_MS: u64 = 2_000;
