//! Load balancers that announce for whom they connect.

use std::sync::Arc;

use crate::authority::{Authority, secure};
use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::http::Http;
use crate::line::{Line, connect, request};
use crate::node::Node;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 7400\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\x0a\x00\x00\x01\x9c\x40\x1c\xe8";
const FROM_LOOPBACK: &str = "listen.proxy_networks=127.0.0.0/8";

fn logs_source(node: &Node, source: &str) {
    eventually("the source in the log", || {
        node.log().contains(&format!("from={source}")).then_some(())
    });
}

#[test]
fn a_line_comes_from_where_the_load_balancer_says() {
    let node = Node::start(&[FROM_LOOPBACK, "log.level=debug"]);
    for (d, header) in [V1, V2].into_iter().enumerate() {
        let path = format!("/ws?device_id=tv-{d}");
        let mut line = Line::of(connect(node.ready.devices, None));
        line.send([header, request(&path, "").as_bytes()].concat());
        assert!(line.head().starts_with("HTTP/1.1 101 "));
        assert!(line.frame().is_some());
    }
    logs_source(&node, "203.0.113.7");
    assert!(!node.log().contains("from=127.0.0.1"));
}

#[test]
fn a_header_may_come_byte_by_byte_and_before_tls() {
    let authority = Authority::new();
    let node = authority.setup(&[FROM_LOOPBACK, "log.level=debug"]).start();
    let far = Arc::new(authority.far());
    for header in [V1, V2] {
        let socket = connect(node.ready.devices, None);
        let mut line = Line::of(socket.try_clone().unwrap());
        for byte in header {
            assert!(line.send([*byte]));
        }
        let mut device = Device::over(secure(socket, &far), "/ws?device_id=tv-1", &[]).unwrap();
        device.await_welcome();
        device.assert_alive();
    }
    logs_source(&node, "203.0.113.7");
}

#[test]
fn a_load_balancer_without_a_good_header_is_refused() {
    let node = Node::start(&[FROM_LOOPBACK]);
    let good = request("/ws?device_id=tv-1", "");
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let bad: [&[u8]; 5] = [
        good.as_bytes(),
        b"PROXY TCP4 203.0.113.256 10.0.0.1 1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &endless,
        b"\x16\x03\x01",
    ];
    for (count, bytes) in (1..).zip(bad) {
        let mut http = Http::connect(node.ready.devices);
        http.send(bytes);
        assert!(http.rest().is_empty(), "nothing to say to {bytes:?}");
        let label = "cause=\"proxy_header\"";
        node.await_metric(
            "tautline_connections_refused_total",
            label,
            f64::from(count),
        );
    }
    assert_eq!(node.device_status("tv-1"), 404);
    node.await_metric("tautline_handshakes", "", 0.0);
}

#[test]
fn from_anywhere_else_a_header_is_a_bad_request() {
    for networks in [
        "listen.proxy_networks=",
        "listen.proxy_networks=10.0.0.0/8,fd00::/8",
    ] {
        let node = Node::start(&[networks]);
        let mut canary = Canary::on(&node);
        let mut http = Http::connect(node.ready.devices);
        http.send([V1, request("/ws?device_id=tv-1", "").as_bytes()].concat());
        assert_eq!(http.answer().unwrap().status, 400);
        http.rest();
        canary.survives();
    }
}

#[test]
fn a_header_that_does_not_come_ends_at_the_deadline() {
    let node = Node::start(&[FROM_LOOPBACK, "limits.handshake_timeout=500ms"]);
    let mut http = Http::connect(node.ready.devices);
    http.send(&V2[..20]);
    http.rest();
    let label = "reason=\"handshake_timeout\"";
    node.await_metric("tautline_connections_closed_total", label, 1.0);
}

#[test]
fn a_health_check_speaks_for_itself() {
    let node = Node::start(&[FROM_LOOPBACK, "log.level=debug"]);
    let mut line = Line::of(connect(node.ready.devices, None));
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    line.send([&local[..], request("/ws?device_id=tv-1", "").as_bytes()].concat());
    assert!(line.head().starts_with("HTTP/1.1 101 "));
    logs_source(&node, "127.0.0.1");
}
