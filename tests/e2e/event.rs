//! Lines coming and going, as server-sent events: order, causes, gaps, and what becomes of readers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::deadline::Deadline;
use crate::device::Device;
use crate::http::{Answer, Http, encode};
use crate::line::connect;
use crate::node::{BINARY, Node};
use crate::token::{Issuer, SECRET, jwt_setup};

/// A reader of events.
struct Follower {
    http: Http,
    text: String,
}

/// An event as it came.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Follower {
    fn of(node: &Node, query: &str) -> Self {
        let opened = Self::open(Http::connect(node.ready.api), node, query, &[]);
        opened.unwrap_or_else(|answer| panic!("{}", answer.text()))
    }

    fn open(
        mut http: Http,
        node: &Node,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        let path = format!("/v1/connections/events{query}");
        let authorization = node.authorization();
        let key = authorization.as_deref().map(|key| ("Authorization", key));
        let headers: Vec<_> = headers.iter().copied().chain(key).collect();
        http.send(encode("GET", &path, &headers, b""));
        let head = http.answer_to_upgrade().expect("an answer");
        if head.status != 200 {
            return Err(head);
        }
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Ok(Self {
            http,
            text: String::new(),
        })
    }

    /// The next event or comment; `None` at the end.
    fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = self.http.chunk()?;
            self.text.push_str(&String::from_utf8(chunk).unwrap());
        }
    }

    /// The next event, comments left out; `None` at the end.
    fn try_next(&mut self) -> Option<Event> {
        loop {
            let block = self.block()?;
            let field = |name: &str| {
                let found = block.lines().find_map(|line| line.strip_prefix(name));
                found.unwrap_or_default().trim_start().to_owned()
            };
            if block.contains("data:") {
                return Some(Event {
                    id: field("id:"),
                    name: field("event:"),
                    data: serde_json::from_str(&field("data:")).expect("data is JSON"),
                });
            }
        }
    }

    fn next(&mut self) -> Event {
        self.try_next().expect("another event")
    }

    /// The next event, which is of this kind.
    fn expect(&mut self, name: &str, device: &Device) -> Value {
        let event = self.next();
        assert_eq!(event.name, name, "{event:?}");
        assert_eq!(event.data["connection_id"], device.connection_id());
        assert_eq!(event.data["device_id"], device.welcome["device_id"]);
        event.data
    }
}

#[test]
fn lines_are_told_as_they_come_and_go_with_cause_and_generation() {
    let node = Node::start(&["reactor.threads=1", "node.id=n-1"]);
    let mut follower = Follower::of(&node, "");
    let first = Device::connect_of(&node, "tv-1", "ann");
    let opened = follower.expect("opened", &first);
    assert_eq!(
        (&opened["user_id"], &opened["node_id"]),
        (&json!("ann"), &json!("n-1"))
    );
    assert!(opened["at_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(opened.get("cause").is_none(), "{opened}");

    let mut second = Device::connect(&node, "tv-1");
    let newer = follower.expect("opened", &second);
    assert!(newer.get("user_id").is_none(), "{newer}");
    assert!(newer["generation"].as_str() > opened["generation"].as_str());
    let closed = follower.expect("closed", &first);
    assert_eq!(
        (&closed["cause"], &closed["code"]),
        (&json!("replaced"), &json!(4502))
    );
    assert_eq!(closed["generation"], opened["generation"]);

    second.close();
    assert_eq!(follower.expect("closed", &second)["cause"], "peer_closed");
    let third = Device::connect(&node, "tv-2");
    follower.expect("opened", &third);
    let path = format!("/v1/connections/{}", third.connection_id());
    assert_eq!(node.request("DELETE", &path, &[], b"").status, 204);
    assert_eq!(follower.expect("closed", &third)["cause"], "kicked");
    assert_eq!(node.metric("tautline_connection_events_total", ""), 6.0);
}

#[test]
fn a_line_under_a_new_token_is_renewed() {
    let (issuer, other) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&[], &issuer, &other, "").start();
    let mut follower = Follower::of(&node, "");
    let path = format!("/ws?token={}", issuer.token("tv-1", 600));
    let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
    device.await_welcome();
    let opened = follower.expect("opened", &device);
    let claims = json!({"sub": "tv-1", "exp": crate::token::now_s() + 900, "user_id": "ann"});
    device.say(&json!({"type": "refresh", "token": issuer.sign(&claims)}));
    let renewed = follower.expect("renewed", &device);
    assert_eq!(renewed["user_id"], "ann");
    assert_eq!(renewed["generation"], opened["generation"]);
    device.say(&json!({"type": "refresh", "token": "no token"}));
    assert_eq!(device.next()["type"], "error");
    device.close();
    follower.expect("closed", &device);
}

#[test]
fn each_device_s_lines_are_in_order_over_all_shards() {
    const DEVICES: usize = 8;
    const ROUNDS: usize = 30;
    let node = Node::start(&["reactor.threads=4"]);
    let mut follower = Follower::of(&node, "");
    std::thread::scope(|scope| {
        for d in 0..DEVICES {
            let node = &node;
            scope.spawn(move || {
                // Each line replaces the one before, on whichever shard it lands.
                let mut lines = Vec::new();
                for _ in 0..ROUNDS {
                    lines.push(Device::connect(node, &format!("tv-{d}")));
                }
            });
        }
    });
    let mut open = std::collections::BTreeMap::new();
    let mut closed = 0;
    while closed < DEVICES * ROUNDS {
        let event = follower.next();
        let id = event.data["connection_id"].as_str().unwrap().to_owned();
        match event.name.as_str() {
            "opened" => {
                let again = open.insert(id, event.data["generation"].clone());
                assert!(again.is_none(), "opened twice: {event:?}");
            }
            "closed" => {
                let generation = open.remove(&id).expect("opened before it was closed");
                assert_eq!(generation, event.data["generation"]);
                closed += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn a_reader_gets_what_it_asked_for() {
    let node = Node::start(&[]);
    let mut of_ann = Follower::of(&node, "?user_id=ann");
    let mut of_tv_2 = Follower::of(&node, "?device_id=tv-2");
    for (device_id, account) in [("tv-1", "ann"), ("tv-2", "bob")] {
        drop(Device::connect_of(&node, device_id, account));
    }
    for name in ["opened", "closed"] {
        let (ann, tv_2) = (of_ann.next(), of_tv_2.next());
        assert_eq!((ann.name.as_str(), tv_2.name.as_str()), (name, name));
        assert_eq!(ann.data["device_id"], "tv-1");
        assert_eq!(tv_2.data["device_id"], "tv-2");
    }
    for (query, code) in [
        ("?user_id=a%20b", "invalid_id"),
        ("?device_id=", "invalid_id"),
        ("?user=ann", "bad_request"),
    ] {
        let path = format!("/v1/connections/events{query}");
        node.request("GET", &path, &[], b"").assert_error(400, code);
    }
    node.request("POST", "/v1/connections/events", &[], b"")
        .assert_error(405, "method_not_allowed");
}

#[test]
fn a_reader_lives_on_through_silence_and_makes_room_when_it_leaves() {
    let node = Node::start(&[
        "api.event_heartbeat=200ms",
        "api.idle_timeout=1s",
        "api.event_readers_max=1",
    ]);
    let mut follower = Follower::of(&node, "");
    // Far longer than a connection without a request lives.
    let silence = Deadline::after(Duration::from_secs(3));
    while !silence.has_passed() {
        assert_eq!(follower.block().expect("still there"), ":");
    }
    let path = "/v1/connections/events";
    node.request("GET", path, &[], b"")
        .assert_error(503, "overloaded");
    let device = Device::connect(&node, "tv-1");
    follower.expect("opened", &device);
    node.await_metric("tautline_event_readers", "", 1.0);
    drop(follower);
    node.await_metric("tautline_event_readers", "", 0.0);
    node.await_metric("tautline_api_connections", "", 0.0);
    let events = node.metric("tautline_connection_events_total", "");
    drop(device);
    node.await_metric("tautline_lines", "", 0.0);
    assert_eq!(
        node.metric("tautline_connection_events_total", ""),
        events,
        "built although nobody listens"
    );
    Follower::of(&node, "");
}

#[test]
fn a_reader_too_slow_is_told_how_much_it_missed() {
    let node = Node::start(&[
        "api.event_buffer_max=10",
        "limits.outbox_bytes_max=64KiB",
        "limits.outbox_stall_timeout=60s",
    ]);
    let stream = connect(node.ready.api, Some(4_096));
    let mut slow = Follower::open(Http::of(stream), &node, "", &[]).unwrap_or_else(|_| panic!());
    // It reads nothing while lines come and go, until its buffer has overflowed.
    let mut lines: u64 = 0;
    while node.metric("tautline_event_reader_misses_total", "") == 0.0 {
        for _ in 0..200 {
            Device::connect(&node, "tv-1");
            lines += 1;
        }
        assert!(lines < 20_000, "it is never too slow");
    }
    node.await_metric("tautline_lines", "", 0.0);
    let (mut seen, mut missed, mut last) = (0, 0, 0);
    while seen + missed < 2 * lines {
        let event = slow.next();
        let number: u64 = event.id.rsplit('-').next().unwrap().parse().unwrap();
        if event.name == "missed" {
            missed += event.data["count"].as_u64().unwrap();
        } else {
            seen += 1;
        }
        assert_eq!(number, seen + missed, "the gap is where it says");
        assert!(number > last);
        last = number;
    }
    assert!(missed > 0);
    let metric = node.metric("tautline_event_reader_misses_total", "");
    assert_eq!(metric, missed as f64);
    Canary::on(&node).survives();
}

#[test]
fn a_reader_that_comes_back_is_told_of_the_gap() {
    let node = Node::start(&[]);
    let mut stays = Follower::of(&node, "");
    let mut leaves = Follower::of(&node, "");
    drop(Device::connect(&node, "tv-1"));
    let last = leaves.next().id;
    drop(leaves);
    drop(Device::connect(&node, "tv-2"));
    for _ in 0..4 {
        stays.next();
    }
    let back = |last: &str| {
        let headers = [("Last-Event-ID", last)];
        let http = Http::connect(node.ready.api);
        Follower::open(http, &node, "", &headers).unwrap_or_else(|_| panic!())
    };
    let event = back(&last).next();
    assert_eq!(
        (event.name.as_str(), &event.data),
        ("missed", &json!({"count": 3}))
    );
    let unknown = back("of-another-life").next();
    assert_eq!(unknown.data, json!({"count": null}));
    let mut current = back(&event.id);
    let device = Device::connect(&node, "tv-3");
    current.expect("opened", &device);
}

#[test]
fn a_drain_tells_every_line_s_end_before_the_process_ends() {
    let mut node = Node::start(&[
        "drain.deadline=5s",
        "drain.interval=500ms",
        "lifetime.goaway_grace=1s",
    ]);
    let mut follower = Follower::of(&node, "");
    let deaf: Vec<_> = (0..5)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    node.signal(Signal::SIGTERM);
    let mut causes = Vec::new();
    while let Some(event) = follower.try_next() {
        if event.name == "closed" {
            causes.push(event.data["cause"].clone());
        }
    }
    assert_eq!(causes, vec![json!("drain"); deaf.len()]);
    assert_eq!(node.exit_status().code(), Some(0));
}

#[test]
fn the_role_read_is_needed() {
    let (issuer, other) = (Issuer::hs256(SECRET), Issuer::es256());
    let node = jwt_setup(&[], &issuer, &other, "").start();
    let answer = Http::connect(node.ready.api).request("GET", "/v1/connections/events", &[], b"");
    answer.assert_error(401, "unauthorized");
}

#[test]
fn the_command_line_follows() {
    let node = Node::start(&[]);
    let api = format!("http://{}", node.ready.api);
    let mut follower = Command::new(BINARY)
        .args([
            "connections",
            "--follow",
            "--json",
            "--device",
            "tv-1",
            "--api",
            &api,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)
        .unwrap();
    node.await_metric("tautline_event_readers", "", 1.0);
    let _other = Device::connect(&node, "tv-2");
    drop(Device::connect(&node, "tv-1"));
    let lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    for name in ["opened", "closed"] {
        let event = events.next().unwrap();
        assert_eq!(event["event"], name);
        assert_eq!(event["data"]["device_id"], "tv-1");
    }
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
