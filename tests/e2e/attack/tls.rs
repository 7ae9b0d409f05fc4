//! Handshakes that never end, cost too much, or are no TLS, on a port that speaks it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::authority::{Authority, TlsStream, shake_hands, welcome};
use crate::canary::Canary;
use crate::deadline::{Deadline, pause};
use crate::http::Http;
use crate::node::Node;

/// The start of a hello that declares 512 bytes.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

fn tls_node(settings: &[&str]) -> (Node, Arc<ClientConfig>) {
    let authority = Authority::new();
    let all: Vec<_> = ["reactor.threads=1"]
        .iter()
        .chain(settings)
        .copied()
        .collect();
    let node = authority.setup(&all).start();
    (node, Arc::new(authority.far()))
}

fn canary<'n>(node: &'n Node, far: &Arc<ClientConfig>) -> Canary<'n, TlsStream> {
    Canary::with(node, welcome(node.ready.devices, far, "canary"))
}

#[test]
fn hundreds_of_handshakes_that_never_end_cost_little_and_end() {
    const EACH: usize = 200;
    let (node, far) = tls_node(&["limits.handshake_timeout=2s", "lifetime.close_timeout=1s"]);
    let mut canary = canary(&node, &far);
    let before = node.memory();
    let mut crowd: Vec<_> = (0..2 * EACH)
        .map(|_| Http::connect(node.ready.devices))
        .collect();
    let (halves, silent) = crowd.split_at(EACH);
    for http in halves {
        http.send(HALF_A_HELLO);
    }
    // A byte now and then changes nothing.
    for _ in 0..10 {
        halves.iter().for_each(|http| assert!(http.send([0])));
        pause(Duration::from_millis(100));
    }
    let grown = node.memory().saturating_sub(before);
    println!(
        "{} bytes for each of {} and {}",
        grown / (2 * EACH as u64),
        halves.len(),
        silent.len()
    );
    assert!(
        grown < 2 * EACH as u64 * (16 << 10),
        "grown by {grown} bytes"
    );
    for http in &mut crowd {
        http.rest();
    }
    let label = r#"reason="handshake_timeout""#;
    node.await_metric(
        "tautline_connections_closed_total",
        label,
        2.0 * EACH as f64,
    );
    canary.survives();
    drop(crowd);
}

#[test]
fn whole_handshakes_in_a_flood_leave_the_lines_their_turn() {
    let (node, far) = tls_node(&[]);
    let mut canary = canary(&node, &far);
    // Each of them a full one.
    let mut fresh = ClientConfig::clone(&far);
    fresh.resumption = Resumption::disabled();
    let fresh = Arc::new(fresh);
    let deadline = Deadline::after(Duration::from_secs(3));
    let flood = || {
        let shaken = |_| shake_hands(node.ready.devices, &fresh).is_ok();
        (0..)
            .take_while(|_| !deadline.has_passed())
            .filter(|n| shaken(*n))
            .count()
    };
    let count: usize = thread::scope(|scope| {
        let floods = [(); 2].map(|()| scope.spawn(flood));
        floods.map(|flood| flood.join().unwrap()).iter().sum()
    });
    println!("{count} handshakes");
    assert!(count > 0);
    canary.survives();
}

#[test]
fn what_is_no_tls_leaves_nothing() {
    // Nothing of this is a matter of deadlines: who has hung up is gone at once.
    let (node, far) = tls_node(&["limits.handshake_timeout=60s"]);
    let mut canary = canary(&node, &far);
    let mut hello = HALF_A_HELLO.to_vec();
    hello.resize(517, 0xff);
    let endless = [&b"\x16\x03\x01\xff\xff"[..], &[0; 70_000]].concat();
    let goodbye = [HALF_A_HELLO, b"\x15\x03\x01\x00\x02\x01\x00"].concat();
    let cases = [
        &hello[..],
        &endless,
        &goodbye,
        b"\x15\x03\x03\x00\x02\x01\x00",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"\x16\x03\x01\x00\x00",
        b"\x80\x2e\x01\x00\x02",
        b"GET /ws HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\0",
    ];
    for bytes in cases {
        for _ in 0..20 {
            let mut http = Http::connect(node.ready.devices);
            http.send(bytes);
            http.shut_down_writing();
            http.rest();
        }
    }
    canary.survives();
}
