//! A device, a push, a message: every form of payload, every level, every refusal of the sending call.

use std::thread;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::device::Device;
use crate::http::{Http, encode};
use crate::node::{CURL_CONTENT_TYPE, Node};

#[test]
fn a_curl_reaches_the_device() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let answer = node.push("tv-1", "", br#"{"hi":1}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (result, message) = (answer.json(), device.next());
    assert_eq!(message["type"], "message");
    assert_eq!(message["data"], json!({"hi": 1}));
    assert!(message["from"]["service"].is_string(), "{message}");
    assert_eq!(message["message_id"].as_str().unwrap().len(), 26);
    assert_eq!(message["message_id"], result["message_id"]);
    assert_eq!(
        (&result["result"], &result["level"]),
        (&json!("written"), &json!("written"))
    );
    assert_eq!(result["node_id"], node.ready.node_id);
    assert_eq!(result["connection_id"], device.connection_id());
    assert!(result["latency_ms"].is_u64(), "{result}");
}

#[test]
fn a_welcome_tells_the_device_what_it_needs() {
    let node = Node::start(&["node.id=n-1"]);
    let welcome = Device::connect(&node, "tv-1").welcome;
    assert_eq!(welcome["device_id"], "tv-1");
    assert_eq!(welcome["node_id"], "n-1");
    assert_eq!(welcome["resumed"], false);
    assert_eq!(welcome["ping_ms"], 45_000);
    assert_eq!(welcome["max_message_bytes"], 65_536);
    let age_ms = welcome["max_age_ms"].as_u64().unwrap();
    assert!((27 * 60_000..=30 * 60_000).contains(&age_ms), "{welcome}");
    assert!(welcome["connection_id"].is_string() && welcome["session"].is_string());
    assert!(welcome["server_time_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[test]
fn a_plain_body_arrives_as_json_text_or_bytes() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    for (body, member) in [
        (&b"hello"[..], r#""data":"hello""#),
        ("Übergroß ☃ 😀".as_bytes(), r#""data":"Übergroß ☃ 😀""#),
        (b"say \"hi\"\n\x01\\", r#""data":"say \"hi\"\n\u0001\\""#),
        (b"1e400", r#""data":1e400"#),
        (
            br#"{"b":1, "a":[null,{}]}"#,
            r#""data":{"b":1, "a":[null,{}]}"#,
        ),
        (b"null", r#""data":null"#),
        (b"\xff\x00", r#""data_b64":"/wA=""#),
        (b"\xed\xa0\x80", r#""data_b64":"7aCA""#),
    ] {
        assert_eq!(node.push("tv-1", "", body).status, 200);
        let frame = device.next_text();
        assert!(frame.contains(member), "{frame} lacks {member}");
    }
}

#[test]
fn an_envelope_arrives_as_it_was_sent() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    for (envelope, member) in [
        (r#"{"data": {"b":1, "a":2}}"#, r#""data":{"b":1, "a":2}"#),
        (r#"{"data":null}"#, r#""data":null"#),
        (r#"{"data":"\u00fc"}"#, r#""data":"\u00fc""#),
        (r#"{"data_b64":"/wA="}"#, r#""data_b64":"/wA=""#),
        (r#"{"data_b64":""}"#, r#""data_b64":"""#),
        (
            r#"{"data":1,"wait":"queued","timeout_ms":5000}"#,
            r#""data":1"#,
        ),
    ] {
        let answer = node.push_envelope("tv-1", envelope);
        assert!(answer.status < 300, "{envelope}: {}", answer.text());
        let frame = device.next_text();
        assert!(frame.contains(member), "{frame} lacks {member}");
    }
}

#[test]
fn a_raw_line_gets_the_payload_and_nothing_else() {
    let node = Node::start(&[]);
    let mut device = Device::connect_raw(&node, "tv-1");
    for (body, frame) in [
        (&b"hello"[..], Message::text("hello")),
        ("☃".as_bytes(), Message::text("☃")),
        (br#"{"a": 1}"#, Message::text(r#"{"a": 1}"#)),
        (b"\xff\x00", Message::binary(vec![0xff, 0])),
    ] {
        assert_eq!(node.push("tv-1", "", body).status, 200);
        assert_eq!(device.receive(), frame);
    }
    for (envelope, frame) in [
        (r#"{"data":{"a": 1}}"#, Message::text(r#"{"a": 1}"#)),
        (r#"{"data_b64":"/wA="}"#, Message::binary(vec![0xff, 0])),
        (r#"{"data_b64":"aGk="}"#, Message::text("hi")),
    ] {
        assert_eq!(node.push_envelope("tv-1", envelope).status, 200);
        assert_eq!(device.receive(), frame);
    }
}

#[test]
fn a_payload_at_the_limit_arrives_and_one_byte_more_is_413() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let longest = "x".repeat(65_536);
    assert_eq!(node.push("tv-1", "", longest.as_bytes()).status, 200);
    assert_eq!(device.next()["data"], longest);
    let longer = format!("{longest}x");
    node.push("tv-1", "", longer.as_bytes())
        .assert_error(413, "payload_too_large");
    let envelope = format!(r#"{{"data":"{longest}"}}"#);
    node.push_envelope("tv-1", &envelope)
        .assert_error(413, "payload_too_large");
    device.assert_alive();
}

#[test]
fn a_body_over_the_limit_is_413_before_it_has_come() {
    let node = Node::start(&["api.body_bytes_max=1KiB", "limits.message_bytes_max=1KiB"]);
    let path = "/v1/devices/tv-1/messages";
    let declared = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 999999\r\n\r\n");
    let mut declaring = Http::connect(node.ready.api);
    declaring.send(declared);
    let answer = declaring.answer().expect("an answer");
    answer.assert_error(413, "payload_too_large");

    let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut streaming = Http::connect(node.ready.api);
    streaming.send(head);
    streaming.send(format!("800\r\n{}\r\n", "x".repeat(0x800)));
    let answer = streaming.answer().expect("an answer");
    answer.assert_error(413, "payload_too_large");
}

#[test]
fn a_chunked_body_is_a_body() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let mut http = Http::connect(node.ready.api);
    let head =
        "POST /v1/devices/tv-1/messages HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    http.send(head);
    http.send("3\r\nhel\r\n");
    http.send("2\r\nlo\r\n0\r\n\r\n");
    assert_eq!(http.answer().unwrap().status, 200);
    assert_eq!(device.next()["data"], "hello");
}

#[test]
fn each_level_is_answered_when_it_is_reached() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let queued = node.push("tv-1", "?wait=queued", b"1");
    assert_eq!(
        (queued.status, &queued.json()["level"]),
        (202, &json!("queued"))
    );
    let written = node.push("tv-1", "?wait=written", b"2");
    assert_eq!(
        (written.status, &written.json()["level"]),
        (200, &json!("written"))
    );
    let reader = thread::spawn(move || {
        let messages = [device.next(), device.next(), device.next()];
        assert!(messages[0].get("ack").is_none_or(|ack| ack == false));
        assert_eq!(messages[2]["ack"], true, "{}", messages[2]);
        device.acknowledge(&messages[2]);
        device
    });
    let acked = node.push("tv-1", "?wait=acked&timeout_ms=20000", b"3");
    assert_eq!(acked.status, 200, "{}", acked.text());
    assert_eq!(
        (&acked.json()["level"], &acked.json()["result"]),
        (&json!("acked"), &json!("acked"))
    );
    reader.join().unwrap().assert_alive();
}

#[test]
fn an_ack_of_another_message_is_no_ack() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    node.push("tv-1", "", b"1");
    let first = device.next();
    let reader = thread::spawn(move || {
        device.next();
        device.acknowledge(&first);
        device
    });
    let answer = node.push("tv-1", "?wait=acked&timeout_ms=500", b"2");
    answer.assert_error(504, "ack_timeout");
    reader.join().unwrap().assert_alive();
}

#[test]
fn without_an_ack_the_answer_is_504_with_the_level_so_far() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let answer = node.push_envelope("tv-1", r#"{"data":1,"wait":"acked","timeout_ms":300}"#);
    answer.assert_error(504, "ack_timeout");
    let message = device.next();
    let (body, id) = (answer.text(), message["message_id"].as_str().unwrap());
    assert!(body.contains(id), "no message_id in {body}");
    assert!(body.contains("written"), "no level in {body}");
    device.acknowledge(&message);
    device.assert_alive();
}

#[test]
fn a_line_that_ends_before_its_ack_does_not_unwrite_the_message() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let reader = thread::spawn(move || {
        device.next();
        device.close();
        device.close_code();
    });
    let answer = node.push("tv-1", "?wait=acked&timeout_ms=5000", b"1");
    reader.join().unwrap();
    let body = answer.text();
    assert_ne!(answer.status, 404, "it says that nothing was sent: {body}");
    assert!(body.contains("written"), "no level so far: {body}");
}

#[test]
fn a_raw_line_cannot_acknowledge() {
    let node = Node::start(&[]);
    let mut device = Device::connect_raw(&node, "tv-1");
    let answer = node.push("tv-1", "?wait=acked", b"1");
    answer.assert_error(400, "ack_unsupported");
    assert_eq!(node.push("tv-1", "", b"2").status, 200);
    assert_eq!(
        device.receive(),
        Message::text("2"),
        "nothing was sent before"
    );
}

#[test]
fn a_message_bound_to_a_line_goes_there_or_nowhere() {
    let node = Node::start(&[]);
    let mut first = Device::connect(&node, "tv-1");
    let bound = json!({"data": 1, "connection_id": first.connection_id()}).to_string();
    assert_eq!(node.push_envelope("tv-1", &bound).status, 200);
    assert_eq!(first.next()["data"], 1);
    let mut second = Device::connect(&node, "tv-1");
    assert_eq!(first.close_code(), 4502);
    node.push_envelope("tv-1", &bound)
        .assert_error(410, "connection_gone");
    second.assert_alive();
}

#[test]
fn a_bound_message_never_reaches_another_device() {
    let node = Node::start(&[]);
    let mut other = Device::connect(&node, "tv-2");
    let _device = Device::connect(&node, "tv-1");
    let bound = json!({"data": 1, "connection_id": other.connection_id()}).to_string();
    let answer = node.push_envelope("tv-1", &bound);
    assert!((400..500).contains(&answer.status), "{}", answer.text());
    other.assert_alive();
}

#[test]
fn an_absent_device_is_404() {
    let node = Node::start(&[]);
    node.push("tv-1", "", b"1")
        .assert_error(404, "device_offline");
    node.push("tv-1", "?wait=queued", b"1")
        .assert_error(404, "device_offline");
    node.push("tv-1", "?wait=acked", b"1")
        .assert_error(404, "device_offline");
    let info = node.request("GET", "/v1/devices/tv-1", &[], b"");
    info.assert_error(404, "device_offline");
    assert_eq!(
        node.request("HEAD", "/v1/devices/tv-1", &[], b"").status,
        404
    );
}

#[test]
fn a_device_that_left_is_404() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(node.device_status("tv-1"), 200);
    device.close();
    assert_eq!(device.close_code(), 1005, "an empty close is echoed");
    crate::deadline::eventually("offline", || {
        (node.device_status("tv-1") == 404).then_some(())
    });
}

#[test]
fn a_device_is_described_while_it_is_online() {
    let node = Node::start(&[]);
    let device = Device::connect_of(&node, "tv-1", "ann");
    let answer = node.request("GET", "/v1/devices/tv-1", &[], b"");
    let info: Value = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(info["online"], true);
    assert_eq!(info["device_id"], "tv-1");
    assert_eq!(info["user_id"], "ann");
    assert_eq!(info["node_id"], node.ready.node_id);
    assert_eq!(info["connection_id"], device.connection_id());
    assert!(
        info["since_ms"].as_u64().unwrap() > 1_700_000_000_000,
        "{info}"
    );
    let mut http = Http::connect(node.ready.api);
    let head = http.request("HEAD", "/v1/devices/tv-1", &[], b"");
    assert_eq!(head.status, 200);
    let again = http.request("GET", "/v1/devices/tv-1", &[], b"");
    assert_eq!(again.status, 200, "HEAD sent a body");
}

#[test]
fn ids_outside_the_alphabet_are_400() {
    let node = Node::start(&[]);
    let long = "a".repeat(129);
    for id in [
        "a%20b",
        "%00",
        "a%2Fb",
        "a%2fb",
        "%2e%2e%2fb",
        "%C3%A9",
        "%FF",
        "a*b",
        "a%0d%0aX:y",
        "%25",
        "a%zz",
        "%",
        long.as_str(),
    ] {
        node.push(id, "", b"1").assert_error(400, "invalid_id");
        let info = node.request("GET", &format!("/v1/devices/{id}"), &[], b"");
        info.assert_error(400, "invalid_id");
    }
    let longest = "a".repeat(128);
    for id in [longest.as_str(), "A.z_0:9-", "tv%2D1", ".", ".."] {
        node.push(id, "", b"1").assert_error(404, "device_offline");
    }
}

#[test]
fn a_percent_encoded_id_is_the_same_device() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    assert_eq!(node.push("tv%2d%31", "", b"1").status, 200);
    assert_eq!(device.next()["data"], 1);
}

#[test]
fn a_device_that_names_itself_badly_is_refused_with_400() {
    let node = Node::start(&[]);
    for path in [
        "/ws?device_id=a%20b",
        "/ws?device_id=",
        "/ws?device_id=%00",
        "/ws?device_id=tv-1&user_id=a%2fb",
    ] {
        let refused = Device::open(node.ready.devices, path, &[]).err();
        assert_eq!(refused, Some(400), "{path}");
    }
}

#[test]
fn an_unknown_field_is_400_and_named() {
    let node = Node::start(&[]);
    let _device = Device::connect(&node, "tv-1");
    let answer = node.push_envelope("tv-1", r#"{"data":1,"dada":2}"#);
    answer.assert_error(400, "unknown_field");
    assert!(answer.text().contains("dada"), "{}", answer.text());
}

#[test]
fn a_body_that_is_no_envelope_is_400() {
    let node = Node::start(&[]);
    let _device = Device::connect(&node, "tv-1");
    let nested = format!("{{\"data\":{}", "[".repeat(100_000));
    for envelope in [
        "",
        "{}",
        "[1]",
        "{",
        "nul",
        r#"{"data":1}x"#,
        r#"{"data":1,"data_b64":""}"#,
        r#"{"data_b64":"*"}"#,
        r#"{"data_b64":1}"#,
        r#"{"data":1,"data":2}"#,
        r#"{"data":1,"wait":"soon"}"#,
        r#"{"data":1,"timeout_ms":-1}"#,
        nested.as_str(),
    ] {
        let answer = node.push_envelope("tv-1", envelope);
        assert_eq!(answer.status, 400, "{:.60}: {}", envelope, answer.text());
        answer.assert_error(400, "invalid_body");
    }
    let headers = [("Content-Type", "application/json; charset=utf-8")];
    let path = "/v1/devices/tv-1/messages";
    let answer = node.request("POST", path, &headers, b"\xff");
    answer.assert_error(400, "invalid_body");
}

#[test]
fn a_query_that_makes_no_sense_is_400() {
    let node = Node::start(&[]);
    let _device = Device::connect(&node, "tv-1");
    for query in [
        "?wait=soon",
        "?wait=",
        "?timeout_ms=-1",
        "?timeout_ms=x",
        "?timeout_ms=99999999999999999999999",
    ] {
        node.push("tv-1", query, b"1")
            .assert_error(400, "bad_request");
    }
}

#[test]
fn a_content_coding_is_415() {
    let node = Node::start(&[]);
    let _device = Device::connect(&node, "tv-1");
    let headers = [CURL_CONTENT_TYPE, ("Content-Encoding", "gzip")];
    let path = "/v1/devices/tv-1/messages";
    let answer = node.request("POST", path, &headers, b"\x1f\x8b");
    answer.assert_error(415, "unsupported_media_type");
}

#[test]
fn an_unknown_route_is_404_and_a_wrong_method_405() {
    let node = Node::start(&[]);
    for path in [
        "/",
        "/v1",
        "/v2/devices/tv-1",
        "/v1/devices/tv-1/nope",
        "/v1/users/ann",
        "/v1/inbox",
        "/ws",
    ] {
        let answer = node.request("GET", path, &[], b"");
        answer.assert_error(404, "unknown_route");
    }
    for (method, path) in [
        ("GET", "/v1/devices/tv-1/messages"),
        ("PUT", "/v1/devices/tv-1/messages"),
        ("POST", "/v1/devices/tv-1"),
        ("DELETE", "/v1/devices/tv-1"),
        ("BREW", "/v1/devices/tv-1"),
        ("POST", "/v1/connections"),
        ("GET", "/v1/users/ann/messages"),
        ("POST", "/v1/users/ann/devices"),
    ] {
        let answer = node.request(method, path, &[], b"");
        answer.assert_error(405, "method_not_allowed");
    }
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    let mut http = Http::connect(node.ready.api);
    let push = |body: &[u8]| {
        encode(
            "POST",
            "/v1/devices/tv-1/messages",
            &[CURL_CONTENT_TYPE],
            body,
        )
    };
    let absent = encode("GET", "/v1/devices/tv-9", &[], b"");
    http.send([push(b"1"), absent, push(b"2")].concat());
    let statuses = [(); 3].map(|()| http.answer().expect("an answer").status);
    assert_eq!(statuses, [200, 404, 200]);
    assert_eq!(
        (&device.next()["data"], &device.next()["data"]),
        (&json!(1), &json!(2))
    );
}
