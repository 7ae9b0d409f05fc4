//! The substance of the 247 small cases of the Autobahn|Testsuite: groups 1 to 7 and 10.
//!
//! Numbers in comments and messages are Autobahn's. What its cases ask of the far end beyond decoding (echo, pong,
//! the closing handshake) is tested where that is done.

use super::oracle::{Run, run};
use super::{CloseFrame, Event, LIMITS, Limits, Violation, frame, ping, pong, text};

/// Group 5 has messages in more frames than we allow.
const UNCOUNTED: Limits = Limits {
    fragments_max: u32::MAX,
    ..LIMITS
};

/// Every case is fed whole and, as Autobahn's chopped variants, byte by byte.
fn check(case: &str, bytes: &[u8], events: &[Event<'static>], violation: Option<Violation>) {
    let expected = Run {
        events: events.to_vec(),
        violation,
    };
    assert_eq!(run(bytes, &[], &UNCOUNTED), expected, "case {case}, whole");
    assert_eq!(
        run(bytes, &[1], &UNCOUNTED),
        expected,
        "case {case}, by bytes"
    );
    assert_eq!(
        run(bytes, &[997], &UNCOUNTED),
        expected,
        "case {case}, in chops"
    );
}

#[test]
fn group_1_messages_of_all_length_forms_arrive() {
    for length in [0, 125, 126, 127, 128, 65_535, 65_536] {
        let words = "*".repeat(length);
        check("1.1", &frame(0x81, words.as_bytes()), &[text(&words)], None);
        let bytes = vec![0xfe; length];
        let expected = [Event::Binary(bytes.clone().into())];
        check("1.2", &frame(0x82, &bytes), &expected, None);
    }
}

#[test]
fn group_2_pings_and_pongs_arrive_up_to_125_bytes() {
    for payload in [
        &b""[..],
        b"Hello, world!",
        b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",
        &[0xfe; 125],
    ] {
        check("2.1-4", &frame(0x89, payload), &[ping(payload)], None);
        check("2.7-8", &frame(0x8a, payload), &[pong(payload)], None);
    }
    check(
        "2.5",
        &frame(0x89, &[0xfe; 126]),
        &[],
        Some(Violation::LongControl),
    );
    let mixed = [frame(0x8a, b"unasked"), frame(0x89, b"asked")].concat();
    check("2.9", &mixed, &[pong(b"unasked"), ping(b"asked")], None);
    let ten: Vec<_> = (0..10).map(|i| format!("payload-{i}")).collect();
    let bytes: Vec<_> = ten.iter().flat_map(|p| frame(0x89, p.as_bytes())).collect();
    let expected: Vec<_> = ten.iter().map(|p| ping(p.as_bytes())).collect();
    check("2.10-11", &bytes, &expected, None);
}

#[test]
fn group_3_reserved_bits_are_refused_on_every_kind_of_frame() {
    for bits in 1..8_u8 {
        for opcode in [0x81, 0x82, 0x88, 0x89, 0x8a, 0x01, 0x80] {
            let before = frame(0x81, b"before");
            let bytes = [before, frame(opcode | bits << 4, b"x"), frame(0x89, b"")].concat();
            let case = format!("3.{bits}");
            check(
                &case,
                &bytes,
                &[text("before")],
                Some(Violation::ReservedBits),
            );
        }
    }
}

#[test]
fn group_4_reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15_u8] {
        for payload in [&b""[..], b"payload"] {
            let before = frame(0x81, b"before");
            let bytes = [before, frame(0x80 | opcode, payload), frame(0x89, b"")].concat();
            let case = format!("4, opcode {opcode}");
            check(
                &case,
                &bytes,
                &[text("before")],
                Some(Violation::ReservedOpcode),
            );
        }
    }
}

#[test]
fn group_5_fragments_become_one_message() {
    let (a, b) = (frame(0x01, b"frag"), frame(0x80, b"ment"));
    let middle = frame(0x00, b"-");
    let asked = frame(0x89, b"ping");
    let whole = text("fragment");
    let table: [(&str, Vec<u8>, Vec<Event<'static>>); 5] = [
        ("5.3-5", [&a[..], &b].concat(), vec![whole.clone()]),
        (
            "5.6-8",
            [&a[..], &asked, &b].concat(),
            vec![ping(b"ping"), whole.clone()],
        ),
        (
            "5.19-20",
            [&a[..], &middle, &asked, &middle, &asked, &b].concat(),
            vec![ping(b"ping"), ping(b"ping"), text("frag--ment")],
        ),
        (
            "pong between",
            [&a[..], &frame(0x8a, b""), &b].concat(),
            vec![pong(b""), whole.clone()],
        ),
        (
            "two in a row",
            [&a[..], &b, &a, &b].concat(),
            vec![whole.clone(), whole],
        ),
    ];
    for (case, bytes, events) in table {
        check(case, &bytes, &events, None);
    }
}

#[test]
fn group_5_fragments_out_of_order_are_refused() {
    let lonely = Some(Violation::ContinuationWithoutStart);
    let nested = Some(Violation::MessageInsideMessage);
    let control = Some(Violation::FragmentedControl);
    let hello = frame(0x81, b"hi");
    let open = frame(0x01, b"frag");
    let table = [
        ("5.1", frame(0x09, b"frag"), vec![], control),
        ("5.2", frame(0x0a, b"frag"), vec![], control),
        (
            "5.9-11",
            [frame(0x80, b"non"), hello.clone()].concat(),
            vec![],
            lonely,
        ),
        (
            "5.12-14",
            [frame(0x00, b"non"), hello].concat(),
            vec![],
            lonely,
        ),
        (
            "5.15",
            [open.clone(), frame(0x80, b"ment"), frame(0x00, b"x")].concat(),
            vec![text("fragment")],
            lonely,
        ),
        ("5.16-17", frame(0x00, b""), vec![], lonely),
        (
            "5.18",
            [open.clone(), frame(0x81, b"x")].concat(),
            vec![],
            nested,
        ),
        (
            "binary inside",
            [open.clone(), frame(0x82, b"x")].concat(),
            vec![],
            nested,
        ),
        (
            "fragment inside",
            [open, frame(0x01, b"x")].concat(),
            vec![],
            nested,
        ),
    ];
    for (case, bytes, events, violation) in table {
        check(case, &bytes, &events, violation);
    }
}

#[test]
fn group_6_empty_fragments_make_an_empty_text() {
    let empty = [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat();
    check("6.1.2", &empty, &[text("")], None);
    let middle = [frame(0x01, b""), frame(0x00, b"middle"), frame(0x80, b"")].concat();
    check("6.1.3", &middle, &[text("middle")], None);
}

/// A text in one frame, and in one frame per byte.
fn check_text(case: &str, bytes: &[u8]) {
    let (events, violation) = match std::str::from_utf8(bytes) {
        Ok(valid) => (vec![text(valid)], None),
        Err(_) => (vec![], Some(Violation::InvalidUtf8)),
    };
    check(case, &frame(0x81, bytes), &events, violation);
    let mut fragments = frame(0x01, b"");
    for byte in bytes {
        fragments.extend_from_slice(&frame(0x00, &[*byte]));
    }
    fragments.extend_from_slice(&frame(0x80, b""));
    check(case, &fragments, &events, violation);
}

#[test]
fn group_6_valid_text_arrives() {
    let table: [&[u8]; 24] = [
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        b"hello\x24world",
        b"hello\xc2\xa2world",
        b"hello\xe2\x82\xacworld",
        b"hello\xf0\xa4\xad\xa2world",
        "κόσμε".as_bytes(),
        b"\x00",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbe",
        b"\xf0\x9f\xbf\xbe",
        b"\xf1\xaf\xbf\xbf",
        b"\xf2\xbf\xbf\xbe",
        b"\xf3\xbf\xbf\xbf",
        b"\xf4\x8f\xbf\xbe",
        b"\xef\xbf\xb9\xef\xbf\xba\xef\xbf\xbb\xef\xbf\xbc",
    ];
    for bytes in table {
        assert!(std::str::from_utf8(bytes).is_ok(), "{bytes:x?}");
        check_text("6.2, 6.5-6.23", bytes);
    }
}

#[test]
fn group_6_prefixes_of_a_text_arrive_where_a_character_ends() {
    let bytes = "κόσμε".as_bytes();
    for end in 1..bytes.len() {
        check_text("6.6", &bytes[..end]);
    }
}

#[test]
fn group_6_invalid_text_is_refused() {
    let table: [&[u8]; 42] = [
        // 6.3: a surrogate in the middle. 6.7 to 6.9: five and six bytes, and beyond U+10FFFF.
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        // 6.11: continuations without a start.
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\x80\xbf\x80",
        b"\x80\xbf\x80\xbf\x80\xbf",
        // 6.12: starts without a continuation.
        b"\xc0 \xc1 \xc2 \xdf ",
        b"\xe0 \xe8 \xef ",
        b"\xf0 \xf7 ",
        b"\xf8 \xfb ",
        b"\xfc \xfd ",
        // 6.13, 6.14: the last continuation missing, alone and in a row.
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
        // 6.15: impossible bytes.
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        // 6.16 to 6.18: overlong.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        // 6.19, 6.20: surrogates, alone and in pairs.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xed\xad\xbf\xed\xbf\xbf",
        b"\xed\xaf\xbf\xed\xb0\x80",
    ];
    for bytes in table {
        assert!(std::str::from_utf8(bytes).is_err(), "{bytes:x?}");
        check_text("6.3, 6.7-6.20", bytes);
    }
}

#[test]
fn group_6_invalid_text_is_refused_before_its_frame_or_message_ends() {
    let refused = Some(Violation::InvalidUtf8);
    let valid = "κόσμε".as_bytes();
    let first = frame(0x01, valid);
    let case_1 = [&first[..], &frame(0x00, b"\xf4\x90\x80\x80")].concat();
    check("6.4.1", &case_1, &[], refused);
    let case_2 = [&first[..], &frame(0x00, b"\xf4"), &frame(0x00, b"\x90")].concat();
    check("6.4.2", &case_2, &[], refused);
    let whole = frame(0x81, &[valid, b"\xf4\x90\x80\x80edited"].concat());
    let header = 2 + 4;
    check("6.4.3", &whole[..header + valid.len() + 2], &[], refused);
    check("6.4.4", &whole[..header + valid.len() + 1], &[], None);
}

fn close(code: u16, reason: &str) -> Event<'static> {
    Event::Close(Some(CloseFrame {
        code,
        reason: reason.to_owned().into(),
    }))
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], reason].concat())
}

#[test]
fn group_7_closes_of_every_legal_form_arrive() {
    let longest = "*".repeat(123);
    check("7.3.1", &frame(0x88, b""), &[Event::Close(None)], None);
    check("7.3.3", &close_frame(1000, b""), &[close(1000, "")], None);
    check(
        "7.3.4",
        &close_frame(1000, b"Hello"),
        &[close(1000, "Hello")],
        None,
    );
    let bytes = close_frame(1000, longest.as_bytes());
    check("7.3.5", &bytes, &[close(1000, &longest)], None);
    let inside = [frame(0x01, b"frag"), close_frame(1001, b"")].concat();
    check("7.1.6", &inside, &[close(1001, "")], None);
}

#[test]
fn group_7_codes_of_the_wire_arrive_and_others_are_refused() {
    let legal = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    ];
    for code in legal.into_iter().chain([3000, 3999, 4000, 4999]) {
        check("7.7", &close_frame(code, b""), &[close(code, "")], None);
    }
    let reserved = [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ];
    for code in reserved {
        check(
            "7.9, 7.13",
            &close_frame(code, b"x"),
            &[],
            Some(Violation::CloseCode),
        );
    }
}

#[test]
fn group_7_malformed_closes_are_refused() {
    let one_byte = Some(Violation::ClosePayloadOfOneByte);
    check("7.3.2", &frame(0x88, b"\x03"), &[], one_byte);
    let too_long = close_frame(1000, &[b'*'; 124]);
    check("7.3.6", &too_long, &[], Some(Violation::LongControl));
    let reason = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    check(
        "7.5.1",
        &close_frame(1000, reason),
        &[],
        Some(Violation::InvalidUtf8),
    );
    check(
        "fragmented",
        &frame(0x08, b""),
        &[],
        Some(Violation::FragmentedControl),
    );
}

#[test]
fn group_10_a_message_in_many_equal_fragments_arrives() {
    let payload = vec![b'*'; 65_536];
    let mut bytes = frame(0x01, &payload[..1300]);
    for piece in payload[1300..].chunks(1300) {
        bytes.extend_from_slice(&frame(0x00, piece));
    }
    bytes.extend_from_slice(&frame(0x80, b""));
    let expected = String::from_utf8(payload).unwrap();
    check("10.1.1", &bytes, &[text(&expected)], None);
}
