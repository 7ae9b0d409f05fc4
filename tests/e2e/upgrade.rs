//! From the first byte to a line, or to the refusal the contract names.

use std::time::Duration;

use crate::canary::Canary;
use crate::deadline::{Deadline, pause};
use crate::device::Device;
use crate::http::Http;
use crate::line::{CLOSE, Line, PING, PONG, TEXT, connect, frame, request};
use crate::node::Node;

/// A correct request, with one thing replaced.
fn with(from: &str, to: &str) -> String {
    let correct = request("/ws?device_id=tv-1", "");
    assert!(correct.contains(from));
    correct.replace(from, to)
}

#[test]
fn a_request_that_is_no_upgrade_is_refused_with_its_status() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases: [(&str, String, &[u16]); 22] = [
        ("method", with("GET", "POST"), &[405]),
        ("path", with("/ws?", "/nope?"), &[404]),
        ("longer path", with("/ws?", "/ws/x?"), &[404]),
        (
            "version",
            with(version, "Sec-WebSocket-Version: 8\r\n"),
            &[426],
        ),
        ("no version", with(version, ""), &[400, 426]),
        ("no key", with(key, ""), &[400]),
        (
            "short key",
            with(key, "Sec-WebSocket-Key: c2hvcnQ=\r\n"),
            &[400],
        ),
        (
            "key that is no base64",
            with(key, "Sec-WebSocket-Key: ************************\r\n"),
            &[400],
        ),
        ("two keys", with(key, &format!("{key}{key}")), &[400]),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), &[400, 426, 505]),
        ("HTTP/2.0", with("HTTP/1.1", "HTTP/2.0"), &[400, 505]),
        (
            "no upgrade header",
            with("Upgrade: websocket\r\n", ""),
            &[400, 426],
        ),
        (
            "another upgrade",
            with("Upgrade: websocket", "Upgrade: h2c"),
            &[400, 426],
        ),
        (
            "no connection header",
            with("Connection: Upgrade\r\n", ""),
            &[400, 426],
        ),
        ("no host", with("Host: test\r\n", ""), &[400]),
        (
            "body",
            with("Host: test\r\n", "Host: test\r\nContent-Length: 5\r\n"),
            &[400],
        ),
        (
            "chunked body",
            with(
                "Host: test\r\n",
                "Host: test\r\nTransfer-Encoding: chunked\r\n",
            ),
            &[400],
        ),
        (
            "sub-protocol",
            request(
                "/ws?device_id=tv-1",
                "Sec-WebSocket-Protocol: chat, superchat\r\n",
            ),
            &[400],
        ),
        (
            "folded header",
            with("Host: test\r\n", "Host: test\r\nX: a\r\n b\r\n"),
            &[400],
        ),
        (
            "space before colon",
            with("Host: test", "Host : test"),
            &[400],
        ),
        ("control byte", with("Host: test", "Host: te\0st"), &[400]),
        ("garbage", "\x01\x02\x03 how are you\r\n\r\n".into(), &[400]),
    ];
    let refused = node.metric("tautline_connections_refused_total", "");
    let count = cases.len() as f64;
    for (name, request, statuses) in cases {
        let mut http = Http::connect(node.ready.devices);
        http.send(request);
        let answer = http.answer().unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(
            statuses.contains(&answer.status),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
        if name == "version" {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
        assert!(http.rest().is_empty(), "{name}: something after the answer");
    }
    node.await_metric("tautline_connections_refused_total", "", refused + count);
    canary.survives();
}

#[test]
fn nothing_after_a_refused_upgrade_is_read_as_a_request() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut http = Http::connect(node.ready.devices);
    let good = request("/ws?device_id=tv-1", "");
    http.send(format!("{}{good}", with("/ws?", "/nope?")));
    let all = String::from_utf8_lossy(&http.rest()).into_owned();
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
    assert_eq!(node.device_status("tv-1"), 404);
    canary.survives();
}

#[test]
fn frames_in_the_same_segment_as_the_upgrade_are_read() {
    let node = Node::start(&[]);
    let mut line = Line::of(connect(node.ready.devices, None));
    let upgrade = request("/ws?device_id=tv-1", "");
    let early = [
        frame(PING, "early"),
        frame(TEXT, r#"{"type":"ping","id":1}"#),
    ]
    .concat();
    line.send([upgrade.as_bytes(), &early].concat());
    assert!(line.head().starts_with("HTTP/1.1 101 "));
    let welcome = line.frame().unwrap();
    assert_eq!(welcome.first_byte, TEXT);
    let mut next = [line.frame().unwrap(), line.frame().unwrap()];
    next.sort_by_key(|frame| frame.first_byte);
    assert_eq!(
        (next[1].first_byte, &next[1].payload[..]),
        (PONG, &b"early"[..])
    );
    assert!(String::from_utf8_lossy(&next[0].payload).contains("pong"));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut line = Line::of(connect(node.ready.devices, None));
    for byte in request("/ws?device_id=tv-1", "").bytes() {
        assert!(line.send([byte]));
    }
    assert!(line.head().starts_with("HTTP/1.1 101 "));
    drop(line);
    canary.survives();
}

#[test]
fn a_head_over_its_limits_is_431() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let long = request(
        "/ws?device_id=tv-1",
        &format!("X: {}\r\n", "x".repeat(9_000)),
    );
    let many = request("/ws?device_id=tv-1", &"X: x\r\n".repeat(65));
    let endless = format!("GET /ws?{}", "x".repeat(20_000));
    for (name, head) in [("long", long), ("many", many), ("endless", endless)] {
        let mut http = Http::connect(node.ready.devices);
        http.send(head);
        let answer = http.answer().unwrap_or_else(|| panic!("{name}: no answer"));
        // A target that alone is too long has a status of its own.
        let is_right = answer.status == 431 || name == "endless" && answer.status == 414;
        assert!(is_right, "{name}: {}", answer.status);
        http.rest();
    }
    canary.survives();
}

#[test]
fn a_slow_head_ends_at_the_deadline_however_it_trickles() {
    let node = Node::with_one_reactor(&["limits.handshake_timeout=500ms"]);
    let mut canary = Canary::on(&node);
    let slow = Http::connect(node.ready.devices);
    let mut silent = Http::connect(node.ready.devices);
    let deadline = Deadline::after(Duration::from_secs(10));
    let head = request("/ws?device_id=tv-1", "");
    let mut bytes = head.as_bytes().iter().cycle();
    slow.send("GET /ws?");
    // Writing fails once the other side has closed and reset.
    while slow.send([*bytes.next().unwrap() | 0x40]) {
        assert!(!deadline.has_passed(), "still open after 10 s");
        pause(Duration::from_millis(30));
    }
    silent.rest();
    assert_ne!(
        node.metric(
            "tautline_connections_closed_total",
            r#"reason="handshake_timeout""#
        ),
        0.0
    );
    canary.survives();
}

#[test]
fn tls_on_the_plain_port_is_refused() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut http = Http::connect(node.ready.devices);
    http.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
    http.rest();
    canary.survives();
}

#[test]
fn connections_that_never_speak_leave_nothing() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    for head in ["", "G", "GET /ws HTTP/1.1\r\nHost: x\r\n"] {
        Http::connect(node.ready.devices).send(head);
        let http = Http::connect(node.ready.devices);
        http.send(head);
        http.shut_down_writing();
    }
    canary.survives();
}

#[test]
fn only_pages_on_the_list_may_connect() {
    let node =
        Node::with_one_reactor(&[r#"auth.origins=["https://app.example.com", "tv.example.com"]"#]);
    let mut canary = Canary::on(&node);
    for (origin, status) in [
        ("https://app.example.com", 101),
        ("https://app.example.com:443", 101),
        ("http://tv.example.com", 101),
        ("https://tv.example.com", 101),
        ("http://localhost:3000", 101),
        ("http://127.0.0.1:8080", 101),
        ("http://[::1]:8080", 101),
        ("null", 101),
        ("http://app.example.com", 403),
        ("https://app.example.com:8443", 403),
        ("https://app.example.com.evil.example", 403),
        ("https://evil-app.example.com", 403),
        ("https://evil.example/app.example.com", 403),
        ("https://app.example.com@evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("nonsense", 403),
        ("", 403),
    ] {
        let mut http = Http::connect(node.ready.devices);
        http.send(request(
            "/ws?device_id=tv-1",
            &format!("Origin: {origin}\r\n"),
        ));
        let answer = http_status(&mut http);
        assert_eq!(answer, status, "Origin: {origin}");
    }
    let two = "Origin: https://app.example.com\r\nOrigin: https://evil.example\r\n";
    let mut http = Http::connect(node.ready.devices);
    http.send(request("/ws?device_id=tv-1", two));
    assert!([400, 403].contains(&http_status(&mut http)));
    drop(http);
    canary.survives();
}

fn http_status(http: &mut Http) -> u16 {
    http.answer_to_upgrade().expect("an answer").status
}

#[test]
fn compression_is_never_negotiated() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut line = Line::of(connect(node.ready.devices, None));
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    line.send(request("/ws?device_id=tv-1", offer));
    let head = line.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    drop(line);
    canary.survives();
}

#[test]
fn the_sub_protocol_is_one_that_was_offered() {
    let node = Node::start(&[]);
    for (offer, chosen) in [
        ("", None),
        (
            "Sec-WebSocket-Protocol: tautline.v1.json\r\n",
            Some("tautline.v1.json"),
        ),
        (
            "Sec-WebSocket-Protocol: tautline.v1.raw\r\n",
            Some("tautline.v1.raw"),
        ),
        (
            "Sec-WebSocket-Protocol: chat, tautline.v1.raw\r\n",
            Some("tautline.v1.raw"),
        ),
        (
            "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: tautline.v1.json\r\n",
            Some("tautline.v1.json"),
        ),
    ] {
        let mut line = Line::of(connect(node.ready.devices, None));
        line.send(request("/ws?device_id=tv-1", offer));
        let head = line.head().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{offer}: {head}");
        let named = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(named, chosen, "{offer}");
    }
}

#[test]
fn header_names_and_tokens_are_read_without_case() {
    let node = Node::start(&[]);
    let mut line = Line::of(connect(node.ready.devices, None));
    let head = request("/ws?device_id=tv-1", "")
        .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE")
        .replace("Upgrade: websocket", "uPGRADE: WebSocket");
    line.send(head);
    assert!(line.head().starts_with("HTTP/1.1 101 "));
    line.send(frame(CLOSE, ""));
}

#[test]
fn the_sending_api_is_not_on_the_devices_port() {
    let node = Node::start(&[]);
    let _device = Device::connect(&node, "tv-1");
    let mut http = Http::connect(node.ready.devices);
    let answer = http.request("POST", "/v1/devices/tv-1/messages", &[], b"1");
    assert!([404, 405].contains(&answer.status), "{}", answer.status);
}
