//! The sending API's port: keys and roles, deadlines, and requests that two readers could read differently.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::canary::Canary;
use crate::deadline::{Deadline, eventually, pause};
use crate::device::Device;
use crate::http::{Http, encode};
use crate::node::{CURL_CONTENT_TYPE, Node, Setup};

const SEND: &str = "/v1/devices/tv-1/messages";

fn keyed_node() -> Node {
    let mut setup = Setup::new(&[]);
    for role in ["send", "read", "admin"] {
        let key = format!("{role}-key-of-some-length-0123456789\n");
        setup = setup.key(role, &key, &[role]);
    }
    setup.start()
}

#[test]
fn a_key_opens_what_its_roles_name_and_nothing_else() {
    let node = keyed_node();
    let bearer = |role: &str| format!("Bearer {role}-key-of-some-length-0123456789");
    let kick = "/v1/connections/none";
    for (role, method, path, status) in [
        ("send", "POST", SEND, 404),
        ("send", "GET", "/v1/devices/tv-1", 403),
        ("send", "DELETE", kick, 403),
        ("read", "GET", "/v1/devices/tv-1", 404),
        ("read", "GET", "/v1/connections", 200),
        ("read", "POST", SEND, 403),
        ("read", "DELETE", kick, 403),
        ("admin", "POST", SEND, 403),
    ] {
        let key = bearer(role);
        let answer = node.request(method, path, &[("Authorization", &key)], b"");
        assert_eq!(
            answer.status,
            status,
            "{role} {method} {path}: {}",
            answer.text()
        );
        if status == 403 {
            answer.assert_error(403, "forbidden");
        }
    }
    let admin = bearer("admin");
    let kicked = node.request("DELETE", kick, &[("Authorization", &admin)], b"");
    assert!(![401, 403].contains(&kicked.status), "{}", kicked.text());
}

#[test]
fn without_a_good_key_the_answer_is_401() {
    let node = keyed_node();
    let right = "send-key-of-some-length-0123456789";
    for value in [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        "Bearer wrong".into(),
        format!("Bearer {right}x"),
        format!("Bearer {}", &right[1..]),
        format!("Basic {right}"),
        right.into(),
    ] {
        let answer = node.request("POST", SEND, &[("Authorization", &value)], b"1");
        answer.assert_error(401, "unauthorized");
    }
    for (method, path) in [
        ("POST", SEND),
        ("GET", "/v1/devices/tv-1"),
        ("GET", "/v1/connections"),
        ("DELETE", "/v1/connections/x"),
    ] {
        node.request(method, path, &[], b"")
            .assert_error(401, "unauthorized");
    }
    let lower = format!("bearer {right}");
    let answer = node.request("POST", SEND, &[("Authorization", &lower)], b"1");
    answer.assert_error(404, "device_offline");
}

#[test]
fn a_slow_head_ends_at_its_deadline_however_it_trickles() {
    let node = Node::with_one_reactor(&["api.head_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let slow = Http::connect(node.ready.api);
    let mut silent = Http::connect(node.ready.api);
    slow.send("GET /v1/devices/tv-1 HTTP/1.1\r\nX: ");
    silent.send("GET /v1/dev");
    let deadline = Deadline::after(Duration::from_secs(10));
    while slow.send("x") {
        assert!(!deadline.has_passed(), "still open after 10 s");
        pause(Duration::from_millis(30));
    }
    silent.rest();
    canary.survives();
    node.await_metric("tautline_api_connections", "", 0.0);
}

#[test]
fn a_slow_body_ends_at_its_deadline_however_it_trickles() {
    let node = Node::with_one_reactor(&["api.body_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let head = format!("POST {SEND} HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n");
    let slow = Http::connect(node.ready.api);
    let mut silent = Http::connect(node.ready.api);
    slow.send(&head);
    silent.send(&head);
    let deadline = Deadline::after(Duration::from_secs(10));
    while slow.send("x") {
        assert!(!deadline.has_passed(), "still open after 10 s");
        pause(Duration::from_millis(30));
    }
    silent.rest();
    canary.survives();
    node.await_metric("tautline_api_connections", "", 0.0);
}

#[test]
fn a_connection_without_requests_is_closed() {
    let node = Node::start(&["api.idle_timeout=500ms"]);
    let mut used = Http::connect(node.ready.api);
    assert_eq!(
        used.request("GET", "/v1/devices/tv-1", &[], b"").status,
        404
    );
    assert_eq!(
        used.request("GET", "/v1/devices/tv-1", &[], b"").status,
        404
    );
    let mut unused = Http::connect(node.ready.api);
    assert!(used.rest().is_empty());
    assert!(unused.rest().is_empty());
    node.await_metric("tautline_api_connections", "", 0.0);
}

#[test]
fn a_sender_that_hangs_up_leaves_nothing() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let wait = format!("{SEND}?wait=acked&timeout_ms=2000");
    for _ in 0..10 {
        let http = Http::connect(node.ready.api);
        http.send(encode("POST", &wait, &[CURL_CONTENT_TYPE], b"1"));
        assert_eq!(device.next()["data"], 1);
    }
    // The canary's own stays.
    node.await_metric("tautline_api_connections", "", 1.0);
    device.close();
    device.close_code();
    canary.survives();
}

#[test]
fn the_body_is_asked_for_when_the_sender_waits_for_that() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let mut http = Http::connect(node.ready.api);
    http.send(format!(
        "POST {SEND} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(http.answer().expect("an interim answer").status, 100);
    http.send("hello");
    assert_eq!(http.answer().expect("an answer").status, 200);
    assert_eq!(device.next()["data"], "hello");
}

#[test]
fn a_head_over_its_limit_is_431() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let long = "x".repeat(100_000);
    let many = vec![("X", "x"); 200];
    for headers in [vec![("X", long.as_str())], many] {
        let mut http = Http::connect(node.ready.api);
        http.send(encode("GET", "/v1/devices/tv-1", &headers, b""));
        let answer = http.answer().expect("an answer");
        assert_eq!(answer.status, 431);
        http.rest();
    }
    canary.survives();
}

#[test]
fn old_and_closing_senders_are_answered_and_closed() {
    let node = Node::start(&[]);
    for request in [
        "GET /v1/devices/tv-1 HTTP/1.0\r\n\r\n",
        "GET /v1/devices/tv-1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    ] {
        let mut http = Http::connect(node.ready.api);
        http.send(request);
        assert_eq!(http.answer().expect("an answer").status, 404);
        assert!(http.rest().is_empty());
    }
    let mut half_closed = Http::connect(node.ready.api);
    half_closed.send("GET /v1/devices/tv-1 HTTP/1.1\r\nHost: t\r\n\r\n");
    half_closed.shut_down_writing();
    assert_eq!(half_closed.answer().expect("an answer").status, 404);
    half_closed.rest();
}

#[test]
fn a_request_id_comes_back() {
    let node = Node::start(&[]);
    let headers = [("X-Request-Id", "req-17")];
    let answer = node.request("GET", "/v1/devices/tv-1", &headers, b"");
    assert_eq!(answer.json()["error"]["request_id"], "req-17");
    let nasty = "<script>\u{1f}\"".replace('\u{1f}', "");
    let answer = node.request("GET", "/v1/devices/tv-1", &[("X-Request-Id", &nasty)], b"");
    answer.assert_error(404, "device_offline");
}

#[test]
fn a_sender_that_reads_its_answers_late_gets_them_all() {
    const REQUESTS: usize = 20_000;
    let node = Setup::new(&["limits.outbox_stall_timeout=30s"]).start();
    let mut socket = TcpStream::connect(node.ready.api).unwrap();
    let mut writing = socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let request = encode("GET", "/v1/devices/nobody", &[], b"");
        (0..REQUESTS).for_each(|_| writing.write_all(&request).unwrap());
        writing.shutdown(Shutdown::Write).unwrap();
    });
    // More answers than the outbox and the kernel hold, and nobody reads them.
    eventually("answers that wait", || {
        (node.metric("tautline_outbox_bytes", "") > 200_000.0).then_some(())
    });
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    writer.join().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 404").count(), REQUESTS);
}
