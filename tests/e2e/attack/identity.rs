//! Attempts to be somebody else, or nobody in particular at great expense.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::canary::Canary;
use crate::device::Device;
use crate::http::Http;
use crate::line::{CLOSE, Ending, Line, PING, PONG, connect, frame, request};
use crate::node::{Node, Setup};
use crate::token::{Issuer, SECRET, jwt_setup, now_s};

/// A node with one reactor that wants tokens, who signs them, and a canary's device on it.
fn jwt_node(settings: &[&str]) -> (Node, Issuer, Issuer) {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let settings: Vec<_> = ["reactor.threads=1"]
        .iter()
        .chain(settings)
        .copied()
        .collect();
    let node = jwt_setup(&settings, &hs256, &es256, "").start();
    (node, hs256, es256)
}

fn device(node: &Node, token: &str) -> Device {
    let path = format!("/ws?token={token}");
    let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
    device.await_welcome();
    device
}

fn canary<'n>(node: &'n Node, issuer: &Issuer) -> Canary<'n> {
    Canary::with(node, device(node, &issuer.token("canary", 600)))
}

#[test]
fn two_that_fight_for_one_device_disturb_nobody_else() {
    const ROUNDS: usize = 300;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let fight = || {
        let mut line = None;
        for _ in 0..ROUNDS {
            line = Some(Device::connect(&node, "tv-1"));
        }
        line
    };
    let rivals = thread::scope(|scope| {
        let rivals = [(); 2].map(|()| scope.spawn(fight));
        rivals.map(|rival| rival.join().unwrap().unwrap())
    });
    node.await_metric("tautline_lines", "", 2.0);
    let replaced = r#"reason="replaced""#;
    let lost = node.metric("tautline_connections_closed_total", replaced);
    let left = node.metric(
        "tautline_connections_closed_total",
        r#"reason="peer_closed""#,
    );
    println!("{lost} replaced, {left} had left");
    drop(rivals);
    canary.survives();
}

#[test]
fn nobody_takes_a_device_by_asking_for_it() {
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    let mut victim = device(&node, &hs256.token("victim", 600));
    let token = hs256.token("tv-1", 600);
    for ask in [
        "device_id=victim",
        "device_id=victim&user_id=ann",
        "sub=victim",
        "token=x&device_id=victim",
    ] {
        let path = format!("/ws?{ask}");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("X-Device-Id", "victim"),
            ("X-Forwarded-User", "victim"),
        ];
        if let Ok(mut device) = Device::open(node.ready.devices, &path, &headers) {
            device.await_welcome();
            assert_eq!(device.welcome["device_id"], "tv-1", "{ask}");
            device.say(&json!({"type": "refresh", "token": hs256.token("victim", 600)}));
            assert_eq!(device.next()["error"]["code"], "unauthorized");
            assert_eq!(node.push("victim", "", b"1").status, 200);
            assert_eq!(victim.next()["data"], 1, "{ask}");
        }
        assert_eq!(
            Device::open(node.ready.devices, &path, &[])
                .map(|_| ())
                .err(),
            refused_without_token(ask)
        );
    }
    victim.assert_alive();
    drop(victim);
    canary.survives();
}

/// A word that is no token is 401; without any the token may come in the first message.
fn refused_without_token(ask: &str) -> Option<u16> {
    ask.contains("token").then_some(401)
}

#[test]
fn forged_tokens_in_a_flood_hold_nobody_up() {
    const FORGED: usize = 400;
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    let forger = Issuer::es256();
    let head = request(&format!("/ws?token={}", forger.token("victim", 600)), "");
    let mut crowd: Vec<_> = (0..FORGED)
        .map(|_| Http::connect(node.ready.devices))
        .collect();
    for http in &crowd {
        http.send(&head);
    }
    for http in &mut crowd {
        assert_eq!(http.answer().expect("an answer").status, 401);
        http.rest();
    }
    drop(crowd);
    node.await_metric("tautline_auth_failures_total", "", FORGED as f64);
    assert_eq!(node.device_status("victim"), 404);
    canary.survives();
}

#[test]
fn frames_before_the_token_are_counted_too() {
    let (node, hs256, _) = jwt_node(&["limits.handshake_timeout=30s"]);
    let mut canary = canary(&node, &hs256);
    for first_byte in [PING, PONG] {
        let mut line = Line::of(connect(node.ready.devices, None));
        line.send(request("/ws", ""));
        assert!(line.head().starts_with("HTTP/1.1 101 "));
        let flood = frame(first_byte, "").repeat(1_000);
        let _taken = (0..50).take_while(|_| line.send(&flood)).count();
        let ending = line.ending();
        assert!(
            matches!(ending, Ending::Closed(1008, _) | Ending::Dropped),
            "{ending:?}"
        );
    }
    let label = r#"reason="policy_violation""#;
    node.await_metric("tautline_connections_closed_total", label, 2.0);
    // Who says little may say it.
    let mut device = Device::open(node.ready.devices, "/ws", &[]).unwrap();
    for _ in 0..20 {
        device.send(Message::Ping("still here".into()));
    }
    device.say(&json!({"type": "hello", "token": hs256.token("tv-1", 600)}));
    device.await_welcome();
    drop(device);
    canary.survives();
}

#[test]
fn a_token_with_numbers_at_their_ends_is_taken_or_refused_and_harms_nobody() {
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    let now = now_s();
    for (claims, is_good) in [
        (json!({"sub": "tv-1", "exp": i64::MAX}), true),
        (json!({"sub": "tv-1", "exp": u64::MAX}), false),
        (json!({"sub": "tv-1", "exp": 1e300}), false),
        (json!({"sub": "tv-1", "exp": 253_402_300_799_u64}), true),
        (json!({"sub": "tv-1", "exp": now + 600, "nbf": 0}), true),
        (
            json!({"sub": "tv-1", "exp": now + 600, "nbf": i64::MIN}),
            false,
        ),
        (
            json!({"sub": "tv-1", "exp": now + 600, "nbf": u64::MAX}),
            false,
        ),
        (json!({"sub": "tv-1", "exp": 0}), false),
        (json!({"sub": "tv-1", "exp": -1}), false),
        (json!({"sub": "tv-1", "exp": i64::MIN}), false),
        (
            json!({"sub": "tv-1", "exp": (now + 600).to_string()}),
            false,
        ),
        (json!({"sub": "tv-1", "exp": [now + 600]}), false),
        (json!({"sub": "tv-1", "exp": true}), false),
        (json!({"sub": "tv-1", "exp": null}), false),
    ] {
        let path = format!("/ws?token={}", hs256.sign(&claims));
        let opened = Device::open(node.ready.devices, &path, &[]);
        assert_eq!(
            opened.as_ref().is_ok(),
            is_good,
            "{claims}: {:?}",
            opened.as_ref().err()
        );
        if let Ok(mut device) = opened {
            device.await_welcome();
            device.assert_alive();
        }
    }
    canary.survives();
}

#[test]
fn a_key_is_refused_alike_however_near_it_comes() {
    const ROUNDS: usize = 100;
    let right = "a-key-of-some-length-that-is-right-0123456789";
    let setup = Setup::new(&["reactor.threads=1"]).key("a", right, &["send", "read"]);
    let node = setup.api_key(right).start();
    let mut canary = Canary::on(&node);
    let near = format!("{}x", &right[..right.len() - 1]);
    let mut http = Http::connect(node.ready.api);
    let mut answers = Vec::new();
    for (name, key) in [
        ("near", near.as_str()),
        ("far", "y"),
        ("longer", &near.repeat(20)),
        ("none", ""),
    ] {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("X-Request-Id", "same")];
        let mut times: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let start = now();
                let answer = http.request("POST", "/v1/devices/canary/messages", &headers, b"1");
                answer.assert_error(401, "unauthorized");
                answers.push(answer.text());
                now() - start
            })
            .collect();
        times.sort_unstable();
        println!(
            "{name}: p50 {:?}, p90 {:?}",
            times[ROUNDS / 2],
            times[ROUNDS * 9 / 10]
        );
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    drop(http);
    canary.survives();
}

#[expect(clippy::disallowed_methods, reason = "a test has its own clock")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_close_before_the_token_is_a_close() {
    let (node, hs256, _) = jwt_node(&["lifetime.close_timeout=500ms"]);
    let mut canary = canary(&node, &hs256);
    let mut lines: Vec<_> = (0..50)
        .map(|_| Line::of(connect(node.ready.devices, None)))
        .collect();
    for line in &mut lines {
        line.send(request("/ws", ""));
        line.head();
        line.send(frame(CLOSE, 1000_u16.to_be_bytes()));
        line.set_patience(Duration::from_secs(10));
        line.ending();
    }
    canary.survives();
    drop(lines);
}
