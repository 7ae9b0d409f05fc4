//! What stands in the log, and what never does.

use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::deadline::{Deadline, PATIENCE};
use crate::device::Device;
use crate::http::Http;
use crate::line::request;
use crate::node::{Node, Setup};
use crate::token::{API_KEY, Issuer, SECRET, jwt_setup};

#[test]
fn tokens_keys_and_payloads_are_never_logged() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let mut node = jwt_setup(&["log.level=trace"], &hs256, &es256, "").start();
    let (good, bad) = (hs256.token("tv-1", 600), hs256.token("tv-1", -600));
    let mut device = Device::open(node.ready.devices, &format!("/ws?token={good}"), &[]).unwrap();
    device.await_welcome();
    let bearer = format!("Bearer {bad}");
    let refused = Device::open(node.ready.devices, "/ws", &[("Authorization", &bearer)]);
    assert_eq!(refused.err(), Some(401));
    let refused = Device::open(node.ready.devices, &format!("/ws?token={bad}"), &[]);
    assert_eq!(refused.err(), Some(401));
    assert_eq!(node.push("tv-1", "", b"a-secret-payload").status, 200);
    device.next();
    device.say(&json!({"type": "refresh", "token": bad, "note": "another-secret-payload"}));
    device.say(&json!({"type": "another-secret-type"}));
    drop(device);
    node.await_metric("tautline_lines", "", 0.0);
    node.signal(Signal::SIGTERM);
    node.exit_status();
    let log = node.log();
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in [
        &signature(&good),
        &signature(&bad),
        API_KEY,
        SECRET,
        "secret-payload",
        "another-secret-type",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}

#[test]
fn the_level_changes_without_a_restart() {
    let node = Setup::new(&[]).config("[log]\nlevel = \"error\"\n").start();
    drop(Device::connect(&node, "tv-1"));
    node.await_metric("tautline_lines", "", 0.0);
    assert!(!node.log().contains("tv-1"), "{}", node.log());
    let file = node.dir().join("tautline.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    crate::deadline::eventually("the reload", || {
        node.log().contains("reloaded").then_some(())
    });
    drop(Device::connect(&node, "tv-2"));
    crate::deadline::eventually("a line for the close", || {
        node.log().contains("tv-2").then_some(())
    });
}

#[test]
fn control_characters_never_reach_the_log() {
    let mut node = Node::start(&["log.level=trace"]);
    for (name, value) in [
        ("User-Agent", &b"\x1b[31mred\x07"[..]),
        ("User-Agent", b"caf\xe9\x9b31m"),
        ("Origin", b"http://evil\x1b[2J"),
        ("Origin", b"http://evil.example/%1b%0aINFO forged"),
        ("Cookie", b"tt=\x1b"),
        ("X-Request-Id", b"\x1b[31m"),
        ("Sec-WebSocket-Protocol", b"\x1b[31m"),
    ] {
        let line = [name.as_bytes(), b": ", value, b"\r\n"].concat();
        let head = request("/ws?device_id=tv-1&x=%1b%0aINFO%20forged", "");
        let head = head.strip_suffix("\r\n").unwrap().as_bytes();
        for addr in [node.ready.devices, node.ready.api] {
            let mut http = Http::connect(addr);
            http.send([head, &line, b"\r\n"].concat());
            http.answer_to_upgrade();
        }
    }
    let mut http = Http::connect(node.ready.api);
    http.send("GET /\x1b[31m HTTP/1.1\r\nHost: t\r\n\r\n");
    http.answer();
    node.signal(Signal::SIGTERM);
    node.exit_status();
    let log = node.log();
    let control = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{log:?}");
    assert!(
        !log.lines().any(|line| line.starts_with("INFO forged")),
        "{log}"
    );
}

#[test]
fn a_line_is_logged_once_when_it_ends() {
    let mut node = Node::start(&["log.format=json"]);
    let mut device = Device::connect_of(&node, "tv-1", "ann");
    node.push("tv-1", "", b"1");
    let connection_id = device.connection_id();
    device.next();
    device.close();
    device.close_code();
    node.await_metric("tautline_lines", "", 0.0);
    node.signal(Signal::SIGTERM);
    node.exit_status();
    let log = node.log();
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a log line is JSON"));
    let closes: Vec<_> = events
        .filter(|event| event.to_string().contains(&connection_id))
        .collect();
    assert_eq!(closes.len(), 1, "{log}");
    let close = closes[0].to_string();
    for word in ["tv-1", "ann", "peer_closed"] {
        assert!(close.contains(word), "{word} is not in {close}");
    }
}

#[test]
fn a_storm_of_closes_does_not_flood_the_log() {
    const LINES: u32 = 1_200;
    let mut node = Node::start(&["reactor.threads=1"]);
    let mut canary = Canary::on(&node);
    for d in 0..LINES {
        Device::connect(&node, &format!("tv-{d}"));
    }
    node.await_metric("tautline_lines", "", 1.0);
    let dropped = node.metric("tautline_log_lines_dropped_total", "");
    assert!(dropped > 0.0, "none was dropped");
    canary.survives();
    drop(canary);
    node.signal(Signal::SIGTERM);
    node.exit_status();
    let log = node.log();
    let written = log.matches("line closed").count();
    // The canary's own is one more, unless it was dropped after that was read.
    let others = f64::from(LINES) - dropped;
    assert!(
        [others, others + 1.0].contains(&(written as f64)),
        "{written} written, {dropped} dropped"
    );
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_what_it_loses_is_counted() {
    let setup = Setup::new(&["reactor.threads=1", "log.level=trace"]);
    let mut node = setup.stuck_log().start();
    let mut canary = Canary::on(&node);
    let dropped = |node: &Node| node.metric("tautline_log_lines_dropped_total", r#"cause="queue""#);
    let deadline = Deadline::after(PATIENCE);
    let mut opened = 0;
    while dropped(&node) == 0.0 {
        assert!(
            !deadline.has_passed(),
            "none was dropped in {opened} connections"
        );
        for _ in 0..100 {
            drop(TcpStream::connect(node.ready.devices).unwrap());
            opened += 1;
        }
    }
    canary.survives();
    drop(canary);
    node.signal(Signal::SIGTERM);
    assert_eq!(node.exit_status().code(), Some(0));
}
