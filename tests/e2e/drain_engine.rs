//! A drain as an operator drives it: by rate or deadline, with a place to go, followed, forecast and called back.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tautline::client::device::{Device as Client, DeviceEvent, DeviceOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::deadline::{Deadline, PATIENCE, eventually, pause};
use crate::device::Device;
use crate::http::{Answer, Http};
use crate::line::request;
use crate::node::{JSON_CONTENT_TYPE, Node};

const SELF: &str = "/v1/nodes/self/drain";
const SETTINGS: [&str; 2] = ["drain.interval=200ms", "lifetime.goaway_grace=2s"];

fn drain(node: &Node, body: &Value) -> Answer {
    node.request(
        "POST",
        SELF,
        &[JSON_CONTENT_TYPE],
        body.to_string().as_bytes(),
    )
}

fn status(node: &Node) -> Value {
    node.request("GET", SELF, &[], b"").json()
}

fn await_state(node: &Node, state: &str) -> Value {
    eventually(&format!("state {state}"), || {
        Some(status(node)).filter(|status| status["state"] == state)
    })
}

/// A frame, if one comes in time.
fn frame_within(device: &mut Device, patience: Duration) -> Option<Value> {
    device.set_patience(patience);
    let message = device.poll()?;
    serde_json::from_str(message.to_text().ok()?).ok()
}

#[test]
fn a_drain_by_rate_is_paced_counted_and_ends_drained() {
    let node = Node::start(&SETTINGS);
    let mut devices: Vec<_> = (0..20)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    let begun = drain(&node, &json!({"lines_per_second": 10}));
    assert_eq!(begun.status, 202);
    let leaving = await_state(&node, "leaving");
    assert_eq!(leaving["lines_at_start"], 20);
    assert_eq!(leaving["lines_per_second"], 10);
    assert!(leaving["eta_ms"].as_u64() > leaving["started_ms"].as_u64());
    // The first half takes a second: nobody of the second half has been asked when it begins.
    let mut asked_at_first = 0;
    for device in &mut devices {
        let goaway = device.next();
        assert_eq!(
            (&goaway["type"], &goaway["reason"]),
            (&json!("goaway"), &json!("drain"))
        );
        assert!(
            goaway["reconnect_after_ms"].as_u64().unwrap() <= 1_000,
            "within half the grace"
        );
        assert!(goaway.get("url").is_none());
        if asked_at_first == 0 {
            asked_at_first = status(&node)["asked"].as_u64().unwrap();
        }
        device.close();
    }
    assert!(
        (1..20).contains(&asked_at_first),
        "{asked_at_first} at once"
    );
    let drained = await_state(&node, "drained");
    assert_eq!(
        (&drained["asked"], &drained["gone"], &drained["forced"]),
        (&json!(20), &json!(20), &json!(0))
    );
    assert_eq!(drained["lines"], 0);
    assert_eq!(node.metric("tautline_drain_asked_total", ""), 20.0);
}

#[test]
fn idle_lines_are_asked_before_busy_ones_and_the_longest_idle_first() {
    let node = Node::with_one_reactor(&SETTINGS);
    let mut devices: Vec<_> = (0..4)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    // Ticks are 100 ms: what lies further apart is told apart.
    for device in [2, 0, 3] {
        pause(Duration::from_millis(250));
        node.push(&format!("tv-{device}"), "", b"1");
        devices[device].next();
    }
    // tv-1 has been idle for longest, but it owes somebody an answer.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| node.push("tv-1", "?wait=acked&timeout_ms=4000", b"2"));
        let message = devices[1].next();
        drain(&node, &json!({"lines_per_second": 2}));
        let mut order = Vec::new();
        let deadline = Deadline::after(PATIENCE);
        while order.len() < 4 {
            assert!(!deadline.has_passed(), "{order:?}");
            for (number, device) in devices.iter_mut().enumerate() {
                if !order.contains(&number)
                    && let Some(frame) = frame_within(device, Duration::from_millis(5))
                {
                    assert_eq!(frame["type"], "goaway");
                    order.push(number);
                }
            }
        }
        assert_eq!(order, [2, 0, 3, 1]);
        devices[1].acknowledge(&message);
        assert_eq!(waiting.join().unwrap().status, 200);
    });
}

#[test]
fn a_drain_that_is_called_back_leaves_lines_as_they_were() {
    let node = Node::start(&SETTINGS);
    let mut devices: Vec<_> = (0..6)
        .map(|d| Device::connect(&node, &format!("tv-{d}")))
        .collect();
    drain(&node, &json!({"lines_per_second": 2}));
    eventually("somebody is asked", || {
        (status(&node)["asked"].as_u64() >= Some(1)).then_some(())
    });
    assert_eq!(node.ops("/readyz").status, 503);
    let cancelled = node.request("DELETE", SELF, &[], b"");
    assert_eq!(cancelled.json()["state"], "serving");
    assert_eq!(node.ops("/readyz").status, 200);
    let asked = node.metric("tautline_drain_asked_total", "");
    assert!(asked < 6.0, "{asked} were asked");
    // New lines are let in again, and those that were not asked live on.
    Device::connect(&node, "tv-new").assert_alive();
    let mut stayed = 0.0;
    for device in &mut devices {
        if frame_within(device, Duration::from_millis(20)).is_none() {
            device.set_patience(PATIENCE);
            device.assert_alive();
            stayed += 1.0;
        }
    }
    assert_eq!(stayed, 6.0 - asked);
}

#[test]
fn the_command_line_forecasts_drains_and_follows() {
    let node = Node::start(&SETTINGS);
    let _device = Device::connect(&node, "tv-1");
    let forecast = node.tautline(&["drain", "--dry-run", "--json", "--deadline", "10s"]);
    assert!(forecast.status.success());
    let told: Value = serde_json::from_slice(&forecast.stdout).unwrap();
    assert_eq!((&told["lines"], &told["fits"]), (&json!(1), &json!(true)));
    let hasty = node.tautline(&["drain", "--dry-run", "--deadline", "1s"]);
    assert_eq!(hasty.status.code(), Some(1), "no time for the grace");
    assert_eq!(status(&node)["state"], "serving");

    let wrong = node.tautline(&["drain", "another-node"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        said.contains("unknown_node") && said.contains(&node.ready.node_id),
        "{said}"
    );

    // Deaf to its go-away, the device is closed by the drain.
    let followed = node.tautline(&["drain", "--rate", "50", "--follow"]);
    assert!(followed.status.success(), "{followed:?}");
    let lines = String::from_utf8(followed.stdout).unwrap();
    let last = lines.lines().last().unwrap();
    assert!(
        last.contains("state=drained") && last.contains("forced=1"),
        "{lines}"
    );
    let back = node.tautline(&["drain", "--cancel"]);
    assert!(back.status.success());
    assert_eq!(status(&node)["state"], "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_points_to_another_node_moves_devices_there_and_loses_nothing() {
    let first = Node::start(&SETTINGS);
    let second = Node::start(&[]);
    let address = format!("ws://{}/ws", first.ready.devices);
    let device = Client::connect(DeviceOptions::new(address).named("tv-1", None))
        .await
        .unwrap();
    let nodes = [first, second];
    let listening = Listening::to(device);
    let sent = tokio::task::spawn_blocking(move || {
        let sent = push_where_it_is(&nodes);
        (sent, nodes)
    });
    let (sent, nodes) = sent.await.unwrap();
    let heard = listening.end().await;
    assert_exactly_once(sent, &heard);
    assert_eq!(heard.node_ids.last(), Some(&nodes[1].ready.node_id));
    assert_eq!(heard.broken, 0, "the old line was left before it was cut");
    assert_eq!(nodes[0].metric("tautline_drain_forced_total", ""), 0.0);
}

/// Pushes numbers until the device has been on the second node for a while: to the first node as long as that has it.
fn push_where_it_is(nodes: &[Node; 2]) -> u64 {
    let url = format!("ws://{}/ws", nodes[1].ready.devices);
    let deadline = Deadline::after(PATIENCE);
    let (mut number, mut at_second) = (0, 0);
    while at_second < 50 {
        assert!(!deadline.has_passed(), "it does not move");
        if number == 20 {
            assert_eq!(
                drain(&nodes[0], &json!({"deadline_ms": 8000, "url": url})).status,
                202
            );
        }
        let body = number.to_string();
        // Whoever was told that it did not arrive sends it again, elsewhere.
        let by = nodes
            .iter()
            .position(|node| node.push("tv-1", "", body.as_bytes()).status == 200);
        if let Some(node) = by {
            number += 1;
            at_second += u32::from(node == 1);
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_renewed_under_a_stream_of_pushes_lose_and_double_nothing() {
    let node = Node::start(&[
        "lifetime.age_max=1500ms",
        "lifetime.age_jitter=0s",
        "lifetime.goaway_grace=1s",
    ]);
    let address = format!("ws://{}/ws", node.ready.devices);
    let device = Client::connect(DeviceOptions::new(address).named("tv-1", None))
        .await
        .unwrap();
    let listening = Listening::to(device);
    let sent = tokio::task::spawn_blocking(move || {
        let mut number = 0_u64;
        let deadline = Deadline::after(PATIENCE);
        while node.metric("tautline_lines_opened_total", "") < 4.0 {
            assert!(!deadline.has_passed(), "lines are not renewed");
            for _ in 0..20 {
                let body = number.to_string();
                number += u64::from(node.push("tv-1", "", body.as_bytes()).status == 200);
            }
        }
        (number, node)
    });
    let (sent, _node) = sent.await.unwrap();
    let heard = listening.end().await;
    assert_exactly_once(sent, &heard);
    assert!(heard.node_ids.len() >= 3);
}

/// A device that listens in the background.
struct Listening {
    stop: watch::Sender<bool>,
    heard: JoinHandle<Heard>,
}

impl Listening {
    fn to(mut device: Client) -> Self {
        let (stop, stopped) = watch::channel(false);
        let heard = tokio::spawn(async move {
            let mut heard = Heard::default();
            while !(*stopped.borrow() && heard.is_quiet) {
                heard.listen(&mut device).await;
            }
            heard
        });
        Self { stop, heard }
    }

    /// Stops once nothing comes any more.
    async fn end(self) -> Heard {
        self.stop.send(true).unwrap();
        self.heard.await.unwrap()
    }
}

/// What a device has heard on all of its lines.
#[derive(Debug, Default)]
struct Heard {
    /// How often each number came.
    numbers: BTreeMap<u64, u32>,
    /// The node of each line.
    node_ids: Vec<String>,
    broken: u32,
    /// Nothing came for a while.
    is_quiet: bool,
}

impl Heard {
    async fn listen(&mut self, device: &mut Client) {
        let quiet = Duration::from_millis(300);
        let event = tokio::time::timeout(quiet, device.receive()).await;
        self.is_quiet = event.is_err();
        match event {
            Ok(Ok(DeviceEvent::Message(message))) => {
                let number = message.frame["data"].as_u64().unwrap();
                *self.numbers.entry(number).or_default() += 1;
            }
            Ok(Ok(DeviceEvent::Connected(welcome))) => {
                self.node_ids
                    .push(welcome["node_id"].as_str().unwrap().into());
            }
            Ok(Ok(DeviceEvent::Disconnected(..))) => self.broken += 1,
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

#[track_caller]
fn assert_exactly_once(sent: u64, heard: &Heard) {
    let twice: Vec<_> = heard
        .numbers
        .iter()
        .filter(|(_, times)| **times > 1)
        .collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
    let lost: Vec<_> = (0..sent)
        .filter(|n| !heard.numbers.contains_key(n))
        .collect();
    assert!(lost.is_empty(), "of {sent}, lost: {lost:?}");
}

#[test]
fn who_waits_in_the_queue_of_a_listener_that_closes_is_told_503() {
    let mut node = Node::start(&["reactor.threads=2"]);
    drain(&node, &json!({}));
    await_state(&node, "drained");
    // The event loops stand still while the queues fill, and find the order to stop beside them.
    node.signal(Signal::SIGSTOP);
    let queued: Vec<_> = (0..200)
        .map(|n| {
            let ready = &node.ready;
            let port = if n % 4 == 0 {
                ready.peer
            } else {
                ready.devices
            };
            let http = Http::connect(port);
            http.send(request(&format!("/ws?device_id=tv-{n}"), ""));
            http
        })
        .collect();
    node.signal(Signal::SIGTERM);
    node.signal(Signal::SIGCONT);
    for (n, mut http) in queued.into_iter().enumerate() {
        let answer = http.answer();
        let answer = answer.unwrap_or_else(|| panic!("connection {n} was reset"));
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["error"]["code"], "draining");
        assert!(answer.header("retry-after").is_some(), "no Retry-After");
    }
    assert_eq!(node.exit_status().code(), Some(0));
}

#[test]
fn a_restart_resets_nobody_who_connects_meanwhile() {
    let mut node = Node::start(&["reactor.threads=2"]);
    let addr = node.ready.devices;
    let is_over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let knocking = || {
            let mut counts = BTreeMap::<&str, u32>::new();
            while !is_over.load(Ordering::Relaxed) {
                *counts.entry(knock(addr)).or_default() += 1;
            }
            counts
        };
        let knockers: Vec<_> = (0..3).map(|_| scope.spawn(knocking)).collect();
        eventually("somebody is let in", || {
            (node.metric("tautline_lines_opened_total", "") >= 20.0).then_some(())
        });
        node.signal(Signal::SIGTERM);
        eventually("readiness off", || {
            (node.ops("/readyz").status == 503).then_some(())
        });
        node.signal(Signal::SIGTERM);
        node.exit_status();
        is_over.store(true, Ordering::Relaxed);
        let mut counts = BTreeMap::<&str, u32>::new();
        for knocker in knockers {
            for (outcome, count) in knocker.join().unwrap() {
                *counts.entry(outcome).or_default() += count;
            }
        }
        counts
    });
    // The one that the kernel completes between the last look at a queue and its end.
    let reset = counts.get("reset").copied().unwrap_or_default();
    assert!(reset <= 1, "{counts:?}");
    assert!(counts["answered"] >= 20, "{counts:?}");
}

/// A device that comes and goes.
fn knock(addr: SocketAddr) -> &'static str {
    let Ok(mut stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) else {
        return "refused";
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stream.write_all(request("/ws?device_id=tv-1", "").as_bytes());
    let mut answer = [0; 9];
    match asked.and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) if answer == *b"HTTP/1.1 " => "answered",
        _ => "reset",
    }
}
