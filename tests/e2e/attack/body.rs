//! What a request or a message may hold: nesting, duplicates, numbers without end, ids outside the alphabet, codings.

use serde_json::json;
use tungstenite::Message;

use crate::canary::Canary;
use crate::device::Device;
use crate::http::{Answer, Http, encode};
use crate::node::{CURL_CONTENT_TYPE, JSON_CONTENT_TYPE, Node};

const SEND: &str = "/v1/devices/tv-1/messages";

#[test]
fn an_envelope_is_one_object_of_known_fields_each_once() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let deep = |n: usize| format!("{{\"data\":{}1{}}}", "[".repeat(n), "]".repeat(n));
    let open = format!("{{\"data\":{}", "[{\"a\":".repeat(20_000));
    let wait_deep = format!(
        "{{\"data\":1,\"wait\":{}1{}}}",
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    for (envelope, code) in [
        (open.as_str(), "invalid_body"),
        (wait_deep.as_str(), "invalid_body"),
        (r#"{"data":1,"data":2}"#, "invalid_body"),
        (
            r#"{"data":1,"wait":"queued","wait":"written"}"#,
            "invalid_body",
        ),
        (r#"{"data":1,"data_b64":"AA=="}"#, "invalid_body"),
        (r#"{"data":1,"timeout_ms":1e400}"#, "invalid_body"),
        (
            r#"{"data":1,"timeout_ms":18446744073709551616}"#,
            "invalid_body",
        ),
        (r#"{"data":1,"timeout_ms":-1}"#, "invalid_body"),
        (r#"{"data":1,"timeout_ms":0.5}"#, "invalid_body"),
        (r#"{"data":1,"timeout_ms":"5"}"#, "invalid_body"),
        (r#"{"data":1,"wait":"\ud800"}"#, "invalid_body"),
        (r#"{"data":1,"connection_id":"\ud800"}"#, "invalid_body"),
        (r#"{"data":1,"__proto__":{}}"#, "unknown_field"),
        (r#"{"data":1,"to":{"device":"canary"}}"#, "unknown_field"),
        ("{\"data\":\"\u{0}\"}", "invalid_body"),
        ("\u{feff}{\"data\":1}", "invalid_body"),
        (r#"{"data":NaN}"#, "invalid_body"),
        (r#"{"data":01}"#, "invalid_body"),
    ] {
        let answer = node.push_envelope("tv-1", envelope);
        assert_eq!(answer.status, 400, "{envelope:.60}: {}", answer.text());
        answer.assert_error(400, code);
    }
    // Nobody here reads the payload: it arrives as it was sent, or not at all.
    let payloads = [
        deep(30_000),
        r#"{"data":1e400}"#.into(),
        r#"{"data":{"a":1,"a":2}}"#.into(),
        r#"{"data":"\ud800"}"#.into(),
    ];
    for envelope in payloads {
        let answer = node.push_envelope("tv-1", &envelope);
        let data = &envelope["{\"data\":".len()..envelope.len() - 1];
        match answer.status {
            200 => assert!(
                device.next_text().contains(&format!("\"data\":{data}")),
                "{envelope:.60}"
            ),
            _ => answer.assert_error(400, "invalid_body"),
        }
    }
    device.assert_alive();
    drop(device);
    canary.survives();
}

#[test]
fn a_frame_of_a_device_may_be_as_odd_as_it_likes() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for text in [
        nested(30_000),
        format!(r#"{{"type":{}}}"#, nested(30_000)),
        format!(r#"{{"x":{},"type":"dance"}}"#, nested(30_000)),
        format!(r#"{{"type":"dance","id":{}}}"#, nested(30_000)),
        r#"{"type":"ping","type":"ack"}"#.into(),
        r#"{"type":"\ud800"}"#.into(),
        r#"{"type":"ack","message_id":"\ud800"}"#.into(),
        r#"{"type":"dance","n":1e400}"#.into(),
        r#"{"type":"dance","n":-99999999999999999999999999}"#.into(),
        format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000)),
        "{\"type\":\"dance\u{202e}\"}".into(),
    ] {
        device.send(Message::text(text.as_str()));
        let answer = device.next();
        assert_eq!(answer["type"], "error", "{text:.60}: {answer:.200}");
    }
    device.assert_alive();
    drop(device);
    canary.survives();
}

#[test]
fn an_id_outside_the_alphabet_goes_nowhere() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    // Each byte there is, and what ids have been misused for elsewhere.
    let bytes = (0..=255_u8).filter(|b| !b.is_ascii_alphanumeric() && !b"._:-".contains(b));
    let ids = bytes.map(|b| format!("tv%{b:02x}1"));
    let odd = [
        "%0d%0aX:%20y",
        "%00",
        "a%00",
        "..%2f..%2fetc",
        "%E2%80%AE",
        "tv%EF%BC%8D1",
        "a%7Bb%7D",
        "*",
        "a%3Fb",
        "%2525",
    ];
    let long = ["a".repeat(129), "a".repeat(6_000)];
    let mut http = Http::connect(node.ready.api);
    for id in ids.chain(odd.map(String::from)).chain(long) {
        let answer = http.request("GET", &format!("/v1/devices/{id}"), &[], b"");
        answer.assert_error(400, "invalid_id");
        let answer = http.request("POST", &format!("/v1/devices/{id}/messages"), &[], b"1");
        answer.assert_error(400, "invalid_id");
        let refused = Device::open(node.ready.devices, &format!("/ws?device_id={id}"), &[]).err();
        assert_eq!(refused, Some(400), "{id:.40}");
        let path = format!("/ws?device_id=tv-1&user_id={id}");
        let refused = Device::open(node.ready.devices, &path, &[]).err();
        assert_eq!(refused, Some(400), "{id:.40}");
    }
    let megabyte = "a".repeat(1 << 20);
    let envelope = json!({"data": 1, "connection_id": megabyte}).to_string();
    assert_eq!(node.push_envelope("tv-1", &envelope).status, 413);
    let envelope = json!({"data": 1, "connection_id": &megabyte[..100_000]}).to_string();
    node.push_envelope("tv-1", &envelope)
        .assert_error(400, "bad_request");
    drop(http);
    canary.survives();
}

#[test]
fn numbers_at_their_ends_are_taken_or_refused() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    for (timeout, is_taken) in [
        ("0", true),
        ("1", true),
        ("00000000000000000000000000000001", true),
        ("4294967296", true),
        ("9223372036854775808", true),
        ("18446744073709551615", true),
        ("18446744073709551616", false),
        ("-1", false),
        ("-0", false),
        ("1e3", false),
        ("1.0", false),
        ("0x10", false),
        ("", false),
        ("%D9%A3", false),
    ] {
        let answer = node.push("tv-1", &format!("?timeout_ms={timeout}"), b"1");
        if is_taken {
            assert_eq!(answer.status, 200, "{timeout}: {}", answer.text());
            assert_eq!(device.next()["data"], 1);
        } else {
            answer.assert_error(400, "bad_request");
        }
    }
    for limit in ["18446744073709551616", "4294967297", "-1", "0", "1e2"] {
        let answer = node.request("GET", &format!("/v1/connections?limit={limit}"), &[], b"");
        answer.assert_error(400, "bad_request");
    }
    device.assert_alive();
    drop(device);
    canary.survives();
}

#[test]
fn times_to_live_at_their_ends_are_taken_or_refused() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let mut check = |ttl: &str, status: u16, answer: Answer| {
        if status == 200 {
            assert_eq!(answer.status, 200, "{ttl}: {}", answer.text());
            assert_eq!(device.next()["data"], 1);
        } else {
            answer.assert_error(
                400,
                if ttl.starts_with('{') {
                    "invalid_body"
                } else {
                    "bad_request"
                },
            );
        }
    };
    let plain = ("Content-Type", "text/plain");
    for (ttl, status) in [
        ("0", 200),
        ("00000000000000000000000000000001", 200),
        ("18446744073709552", 200),
        ("18446744073709551615", 200),
        ("18446744073709551616", 400),
        ("-1", 400),
        ("1.5", 400),
        ("+1", 400),
        ("", 400),
    ] {
        check(
            ttl,
            status,
            node.request("POST", SEND, &[("TTL", ttl), plain], b"1"),
        );
    }
    for (ttl_ms, status) in [
        ("0", 200),
        ("18446744073709551615", 200),
        ("18446744073709551616", 400),
        ("-1", 400),
        ("1e3", 400),
        ("null", 200),
    ] {
        let body = format!(r#"{{"data":1,"ttl_ms":{ttl_ms}}}"#);
        let json = [JSON_CONTENT_TYPE];
        check(
            &body,
            status,
            node.request("POST", SEND, &json, body.as_bytes()),
        );
    }
    device.assert_alive();
    drop(device);
    canary.survives();
}

#[test]
fn a_coded_body_is_415_and_nothing_else_is_taken_apart() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    for coding in [
        "gzip",
        "br",
        "deflate",
        "zstd",
        "x-bomb",
        "gzip, gzip",
        "GZIP",
    ] {
        let headers = [CURL_CONTENT_TYPE, ("Content-Encoding", coding)];
        let answer = node.request("POST", SEND, &headers, b"\x1f\x8b\x08");
        answer.assert_error(415, "unsupported_media_type");
    }
    // Parts are not looked for: the body is the payload.
    let parts = "--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n1\r\n--b--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=b")];
    assert_eq!(
        node.request("POST", SEND, &headers, parts.as_bytes())
            .status,
        200
    );
    assert_eq!(device.next()["data"], parts);
    drop(device);
    canary.survives();
}

#[test]
fn a_body_is_asked_for_only_if_it_may_come() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let _device = Device::connect(&node, "tv-1");
    let expecting = |length: &str, more: &str| {
        let mut http = Http::connect(node.ready.api);
        http.send(format!(
            "POST {SEND} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n{more}\r\n"
        ));
        http.answer().expect("an answer").status
    };
    assert_eq!(expecting("5", ""), 100);
    assert_eq!(
        expecting("262145", ""),
        413,
        "longer than api.body_bytes_max"
    );
    assert_eq!(expecting("9223372036854775807", ""), 413);
    let coded = "Content-Encoding: gzip\r\n";
    assert!([100, 415].contains(&expecting("5", coded)));
    drop(_device);
    canary.survives();
}

#[test]
fn many_small_requests_on_one_connection_take_their_turns() {
    const REQUESTS: usize = 5_000;
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut http = Http::connect(node.ready.api);
    let request = encode(
        "POST",
        "/v1/devices/nobody/messages",
        &[CURL_CONTENT_TYPE],
        b"1",
    );
    for _ in 0..REQUESTS / 50 {
        http.send(request.repeat(50));
        for _ in 0..50 {
            assert_eq!(http.answer().expect("an answer").status, 404);
        }
    }
    drop(http);
    canary.survives();
}
