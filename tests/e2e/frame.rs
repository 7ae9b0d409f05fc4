//! What a device may say on its line, and how the line ends when it says something else.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::line::{
    BETWEEN, BINARY, CLOSE, Ending, LAST, Line, PING, PONG, TEXT, TEXT_FIRST, frame, header,
};
use crate::node::Node;

/// Sends bytes on fresh lines: each must end with one of the codes, be counted under the word the close frame says,
/// and leave nothing.
#[track_caller]
fn ends(node: &Node, open: fn(&Node, &str) -> Line, cases: &[(&str, Vec<u8>, &[u16])]) {
    let mut canary = Canary::on(node);
    for (name, bytes, codes) in cases {
        let mut line = open(node, "tv-1");
        line.send(bytes);
        let Ending::Closed(code, reason) = line.ending() else {
            panic!("{name}: dropped without a close frame");
        };
        assert!(codes.contains(&code), "{name}: closed with {code} {reason}");
        drop(line);
        let label = format!("reason=\"{reason}\"");
        eventually(&format!("{name} counted as {reason}"), || {
            (node.metric("tautline_connections_closed_total", &label) > 0.0).then_some(())
        });
    }
    canary.survives();
}

#[test]
fn frames_against_the_rfc_end_the_line_with_1002() {
    let node = Node::with_one_reactor(&[]);
    let unmasked = b"\x81\x02hi".to_vec();
    let long_ping = frame(PING, [0; 126]);
    let endless = [&[BINARY][..], &[0xff; 9], &[0; 4]].concat();
    let not_minimal = [&[TEXT, 0x80 | 126, 0, 2][..], b"\0\0\0\0hi"].concat();
    ends(
        &node,
        Line::open,
        &[
            ("unmasked", unmasked, &[1002]),
            (
                "reserved bit 1, as compression would set it",
                frame(0xc1, "hi"),
                &[1002],
            ),
            ("reserved bit 2", frame(0xa1, "hi"), &[1002]),
            ("reserved bit 3 on a ping", frame(0x99, ""), &[1002]),
            ("opcode 3", frame(0x83, "hi"), &[1002]),
            ("opcode 11", frame(0x8b, ""), &[1002]),
            ("ping over 125 bytes", long_ping, &[1002]),
            ("fragmented ping", frame(0x09, ""), &[1002]),
            ("fragmented close", frame(0x08, ""), &[1002]),
            ("continuation of nothing", frame(LAST, "hi"), &[1002]),
            (
                "message inside a message",
                [frame(TEXT_FIRST, "{"), frame(TEXT, "{}")].concat(),
                &[1002],
            ),
            ("64-bit length with the top bit", endless, &[1002, 1009]),
            ("length that is not minimal", not_minimal, &[1002]),
        ],
    );
}

#[test]
fn close_frames_that_make_no_sense_end_the_line_with_1002() {
    let node = Node::with_one_reactor(&[]);
    let close = |code: u16| frame(CLOSE, code.to_be_bytes());
    ends(
        &node,
        Line::open,
        &[
            ("one byte", frame(CLOSE, [3]), &[1002]),
            ("code 0", close(0), &[1002]),
            ("code 999", close(999), &[1002]),
            ("code 1004", close(1004), &[1002]),
            ("code 1005", close(1005), &[1002]),
            ("code 1006", close(1006), &[1002]),
            ("code 1015", close(1015), &[1002]),
            ("code 1016", close(1016), &[1002]),
            ("code 2999", close(2999), &[1002]),
            ("code 5000", close(5000), &[1002]),
            (
                "reason that is no UTF-8",
                frame(CLOSE, b"\x03\xe8\xff\xfe"),
                &[1002, 1007],
            ),
        ],
    );
}

#[test]
fn data_a_line_does_not_take_ends_it_with_1003() {
    let node = Node::with_one_reactor(&[]);
    ends(
        &node,
        Line::open,
        &[
            ("binary", frame(BINARY, "{}"), &[1003]),
            ("empty binary", frame(BINARY, ""), &[1003]),
        ],
    );
    let mut canary = Canary::on(&node);
    for (name, bytes) in [("text", frame(TEXT, "{}")), ("binary", frame(BINARY, "{}"))] {
        let mut line = Line::open_raw(&node, "tv-1");
        line.send(bytes);
        let ending = line.ending();
        assert!(
            matches!(ending, Ending::Closed(1003, _)),
            "{name} on a raw line: {ending:?}"
        );
    }
    canary.survives();
}

#[test]
fn text_that_is_no_utf8_ends_the_line_with_1007() {
    let node = Node::with_one_reactor(&[]);
    let split = |first: &[u8], last: &[u8]| [frame(TEXT_FIRST, first), frame(LAST, last)].concat();
    ends(
        &node,
        Line::open,
        &[
            ("lone byte", frame(TEXT, b"\xff"), &[1007]),
            ("surrogate", frame(TEXT, b"\"\xed\xa0\x80\""), &[1007]),
            ("overlong", frame(TEXT, b"\xc0\xaf"), &[1007]),
            ("cut at the end", frame(TEXT, b"\"\xe2\x98"), &[1007]),
            (
                "bad over two fragments",
                split(b"\"\xe2", b"\x28\xa1\""),
                &[1007],
            ),
            (
                "bad before the message is whole",
                frame(TEXT_FIRST, b"\xff\xff"),
                &[1007],
            ),
        ],
    );
}

#[test]
fn a_message_over_the_limit_ends_the_line_with_1009() {
    let node = Node::with_one_reactor(&[]);
    let fragments = [frame(TEXT_FIRST, [b' '; 40_000]), header(LAST, 40_000)].concat();
    ends(
        &node,
        Line::open,
        &[
            ("declared, not sent", header(TEXT, 65_537), &[1009]),
            ("declared as 4 GiB", header(TEXT, 1 << 32), &[1009]),
            ("over two fragments", fragments, &[1009]),
        ],
    );
}

#[test]
fn a_message_in_too_many_pieces_ends_the_line_with_1008() {
    let node = Node::with_one_reactor(&[]);
    let pieces = |piece: Vec<u8>| [frame(TEXT_FIRST, "{"), piece.repeat(1_000)].concat();
    ends(
        &node,
        Line::open,
        &[
            ("one-byte fragments", pieces(frame(BETWEEN, " ")), &[1008]),
            ("empty fragments", pieces(frame(BETWEEN, "")), &[1008]),
        ],
    );
}

#[test]
fn endless_fragments_take_no_memory() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let before = node.memory();
    let pieces = frame(BETWEEN, " ").repeat(130_000);
    for _ in 0..5 {
        let mut line = Line::open(&node, "tv-1");
        line.send(frame(TEXT_FIRST, "{"));
        // It need not take them all.
        line.send(&pieces);
        let ending = line.ending();
        let is_ended = matches!(ending, Ending::Closed(1008, _) | Ending::Dropped);
        assert!(is_ended, "{ending:?}");
    }
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    canary.survives();
}

#[test]
fn the_longest_message_and_the_most_fragments_are_taken() {
    let node = Node::start(&[]);
    let mut line = Line::open(&node, "tv-1");
    let ping = r#"{"type":"ping","id":7}"#;
    line.send(frame(
        TEXT,
        format!("{ping}{}", " ".repeat(65_536 - ping.len())),
    ));
    let pong = line.frame().expect("a pong");
    assert_eq!(pong.payload, br#"{"type":"pong","id":7}"#);
    let mut fragments = vec![frame(TEXT_FIRST, ping)];
    fragments.extend((0..62).map(|_| frame(BETWEEN, " ")));
    fragments.push(frame(LAST, ""));
    line.send(fragments.concat());
    assert_eq!(
        line.frame().expect("a pong").payload,
        br#"{"type":"pong","id":7}"#
    );
}

#[test]
fn a_ping_is_answered_even_inside_a_message() {
    let node = Node::start(&[]);
    let mut line = Line::open(&node, "tv-1");
    let longest = vec![b'p'; 125];
    line.send(
        [
            frame(TEXT_FIRST, r#"{"type":"#),
            frame(PING, &longest),
            frame(LAST, r#""ping"}"#),
        ]
        .concat(),
    );
    let pong = line.frame().unwrap();
    assert_eq!((pong.first_byte, pong.payload), (PONG, longest));
    assert_eq!(line.frame().unwrap().payload, br#"{"type":"pong"}"#);
    line.send(frame(PONG, "nobody asked"));
    line.send(frame(PING, ""));
    assert_eq!(line.frame().unwrap().first_byte, PONG);
}

#[test]
fn frames_cut_at_every_byte_are_the_same_frames() {
    let node = Node::start(&[]);
    let mut line = Line::open(&node, "tv-1");
    let text = frame(TEXT, r#"{"type":"ping","id":"☃"}"#);
    for byte in text.iter().chain(&frame(PING, "x")) {
        line.send([*byte]);
    }
    let pong = line.frame().unwrap();
    assert_eq!(pong.payload, r#"{"type":"pong","id":"☃"}"#.as_bytes());
    assert_eq!(line.frame().unwrap().payload, b"x");
}

#[test]
fn a_message_that_makes_no_sense_is_answered_and_the_line_stays() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut device = Device::connect(&node, "tv-1");
    let errors = node.metric("tautline_frame_errors_total", "");
    let (open, nested) = (
        "[".repeat(60_000),
        format!(r#"{{"type":"ack","message_id":{}"#, "[".repeat(60_000)),
    );
    let cases = [
        ("", "invalid_body"),
        ("hello", "invalid_body"),
        ("{", "invalid_body"),
        ("[]", "invalid_body"),
        ("null", "invalid_body"),
        ("{}", "invalid_body"),
        (r#"{"type":1}"#, "invalid_body"),
        (open.as_str(), "invalid_body"),
        (nested.as_str(), "invalid_body"),
        (r#"{"type":"ack"}"#, "invalid_body"),
        (r#"{"type":"ack","message_id":"?"}"#, "invalid_body"),
        (r#"{"type":"refresh"}"#, "invalid_body"),
        (r#"{"type":"dance"}"#, "unknown_type"),
    ];
    for (text, code) in &cases {
        device.send(Message::text(*text));
        let answer = device.next();
        assert_eq!(answer["type"], "error", "{text:.40}: {answer}");
        assert_eq!(answer["error"]["code"], *code, "{text:.40}: {answer}");
        assert!(
            answer["error"]["message"].is_string() && answer["error"]["retryable"] == false,
            "{answer}"
        );
    }
    let count = cases.len() as f64;
    node.await_metric("tautline_frame_errors_total", "", errors + count);
    device.assert_alive();
    drop(device);
    canary.survives();
}

#[test]
fn an_error_names_the_request_it_answers() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    for id in [json!("r-1"), json!(17)] {
        device.say(&json!({"type": "dance", "id": id}));
        assert_eq!(device.next()["id"], id);
    }
    device.say(&json!({"type": "dance", "id": "x".repeat(60_000)}));
    let answer = device.next();
    assert_eq!(answer["error"]["code"], "unknown_type", "{answer:.200}");
    device.assert_alive();
}

#[test]
fn unknown_fields_of_a_device_are_ignored() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    device.say(&json!({"type": "ping", "id": "1", "new": {"in": ["version", 9]}}));
    assert_eq!(device.next(), json!({"type": "pong", "id": "1"}));
    device.say(&json!({"type": "ping"}));
    assert_eq!(device.next(), json!({"type": "pong"}));
    let never = json!({"type": "ack", "message_id": "0".repeat(26)});
    device.say(&never);
    device.assert_alive();
}

#[test]
fn a_device_on_a_line_without_tokens_may_say_hello() {
    let node = Node::start(&[]);
    let mut device = Device::connect(&node, "tv-1");
    device.say(&json!({"type": "hello", "token": "x"}));
    let answer: Value = device.next();
    assert_eq!(answer["type"], "error", "{answer}");
    device.assert_alive();
}

#[test]
fn a_flood_of_pings_ends_the_line() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let before = node.memory();
    let mut line = Line::open(&node, "tv-1");
    let pings = frame(PING, [0; 125]).repeat(1_000);
    for _ in 0..100 {
        if !line.send(&pings) {
            break;
        }
    }
    let ending = line.ending();
    assert!(
        matches!(ending, Ending::Closed(1008, _) | Ending::Dropped),
        "{ending:?}"
    );
    let grown = node.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    drop(line);
    canary.survives();
}

#[test]
fn a_flood_of_small_frames_or_of_bytes_ends_the_line() {
    let node = Node::with_one_reactor(&[
        "limits.frames_per_second=50",
        "limits.bytes_per_second=128KiB",
    ]);
    let mut canary = Canary::on(&node);
    // Around the turn of a second twice the limit may pass.
    let frames = frame(TEXT, r#"{"type":"ack"}"#).repeat(101);
    let bytes = frame(TEXT, [b' '; 60_000]).repeat(5);
    for flood in [frames, bytes] {
        let mut line = Line::open(&node, "tv-1");
        line.send(flood);
        let ending = line.ending();
        assert!(
            matches!(ending, Ending::Closed(1008, _) | Ending::Dropped),
            "{ending:?}"
        );
    }
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="policy_violation""#,
        2.0,
    );
    canary.survives();
}

#[test]
fn a_close_is_answered_with_its_code() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    for (sent, code) in [
        (&[][..], 1005),
        (&1000_u16.to_be_bytes(), 1000),
        (&1001_u16.to_be_bytes(), 1001),
        (b"\x0f\xa0bye", 4000),
        (b"\x13\x87", 4999),
    ] {
        let mut line = Line::open(&node, "tv-1");
        line.send(frame(CLOSE, sent));
        let Ending::Closed(echoed, _) = line.ending() else {
            panic!("{code} was not answered");
        };
        assert_eq!(echoed, code);
        assert_eq!(line.frame(), None, "the node closes the connection");
    }
    canary.survives();
}

#[test]
fn nothing_after_a_close_is_read() {
    let node = Node::start(&[]);
    let mut line = Line::open(&node, "tv-1");
    line.send(
        [
            frame(CLOSE, 1000_u16.to_be_bytes()),
            frame(TEXT, r#"{"type":"ping"}"#),
        ]
        .concat(),
    );
    assert_eq!(line.ending(), Ending::Closed(1000, String::new()));
}

#[test]
fn a_device_that_hangs_up_in_any_way_is_gone() {
    let node = Node::with_one_reactor(&[]);
    let mut canary = Canary::on(&node);
    let mut half_closed = Line::open(&node, "tv-1");
    half_closed.shut_down_writing();
    half_closed.ending();
    Line::open(&node, "tv-2").reset();
    drop(Line::open(&node, "tv-3"));
    let mut cut = Line::open(&node, "tv-4");
    cut.send(&frame(TEXT, "never whole")[..5]);
    drop(cut);
    for id in ["tv-1", "tv-2", "tv-3", "tv-4"] {
        eventually(id, || (node.device_status(id) == 404).then_some(()));
    }
    canary.survives();
}
