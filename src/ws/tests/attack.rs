//! Attacks that have taken other servers down, and what they get here.

use crate::base::close::CloseReason;

use super::oracle::run;
use super::{Decoder, LIMITS, Limits, Violation, frame, ping};

fn violation(bytes: &[u8]) -> Option<Violation> {
    run(bytes, &[], &LIMITS).violation
}

/// A masked header that declares `length` in 64 bits.
fn declares(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

#[test]
fn a_frame_without_a_mask_is_refused() {
    assert_eq!(violation(b"\x81\x05Hello"), Some(Violation::Unmasked));
    assert_eq!(violation(b"\x89\x00"), Some(Violation::Unmasked));
}

#[test]
fn a_length_with_its_top_bit_set_is_refused_before_it_is_added_to() {
    let exact = [&[0x82, 0xff][..], &[0xff; 8], &[0; 5]].concat();
    assert_eq!(exact.len(), 15);
    assert_eq!(violation(&exact), Some(Violation::LengthTopBit));
    assert_eq!(
        violation(&declares(0x82, 1 << 63)),
        Some(Violation::LengthTopBit)
    );
    assert_eq!(
        violation(&declares(0x89, u64::MAX)),
        Some(Violation::LengthTopBit)
    );
}

#[test]
fn lengths_that_are_not_minimal_are_refused() {
    let long = [&[0x82, 0xfe, 0, 125, 1, 2, 3, 4][..], &[0; 125]].concat();
    assert_eq!(violation(&long), Some(Violation::LengthNotMinimal));
    assert_eq!(
        violation(&declares(0x82, 65_535)),
        Some(Violation::LengthNotMinimal)
    );
    assert_eq!(
        violation(&declares(0x82, 0)),
        Some(Violation::LengthNotMinimal)
    );
}

#[test]
fn a_declared_length_over_the_limit_is_refused_at_the_header() {
    for length in [65_537, 2 << 30, (1 << 63) - 1] {
        let violation = violation(&declares(0x82, length));
        assert_eq!(violation, Some(Violation::MessageTooBig), "{length}");
    }
    assert_eq!(violation(&declares(0x82, 65_536)), None);
}

#[test]
fn fragments_together_over_the_limit_are_refused_at_the_header_that_passes_it() {
    let mut bytes = frame(0x02, &[0; 65_000]);
    bytes.extend_from_slice(&frame(0x00, &[0; 537])[..8]);
    assert_eq!(violation(&bytes), Some(Violation::MessageTooBig));
    assert_eq!(
        Violation::MessageTooBig.reason(),
        CloseReason::MessageTooBig
    );
}

#[test]
fn a_flood_of_one_byte_fragments_ends_at_the_limit() {
    let mut bytes = frame(0x01, b"x");
    for _ in 0..130_000 {
        bytes.extend_from_slice(&frame(0x00, b"x"));
    }
    assert_eq!(violation(&bytes), Some(Violation::TooManyFragments));
    assert_eq!(violation(&bytes[..7 * 64]), None);
    assert_eq!(
        violation(&bytes[..7 * 65]),
        Some(Violation::TooManyFragments)
    );
    assert_eq!(
        Violation::TooManyFragments.reason(),
        CloseReason::PolicyViolation
    );
}

#[test]
fn endless_empty_continuations_count_as_fragments() {
    let mut bytes = frame(0x02, b"");
    bytes.extend(frame(0x00, b"").repeat(64));
    assert_eq!(violation(&bytes), Some(Violation::TooManyFragments));
}

#[test]
fn pings_between_fragments_do_not_extend_the_deadline_of_the_message() {
    let mut decoder = Decoder::default();
    let mut decode = |mut bytes: Vec<u8>, now_ms| {
        let mut at = 0;
        while decoder
            .decode(&mut bytes[at..], &LIMITS, now_ms)
            .inspect(|decoded| at += decoded.consumed)
            .unwrap()
            .event
            .is_some()
        {}
        decoder.incomplete_since()
    };
    assert_eq!(decode(frame(0x89, b"idle"), 5), None);
    assert_eq!(decode(frame(0x01, b"a"), 10), Some(10));
    assert_eq!(decode(frame(0x89, b"whole"), 20), Some(10));
    assert_eq!(decode(frame(0x89, b"cut")[..7].to_vec(), 30), Some(10));
    assert_eq!(decode(frame(0x89, b"cut")[7..].to_vec(), 40), Some(10));
    let end_and_start = [frame(0x80, b"b"), frame(0x01, b"c")].concat();
    assert_eq!(decode(end_and_start, 50), Some(50));
    assert_eq!(decode(frame(0x80, b"d"), 60), None);
}

#[test]
fn a_message_in_one_byte_reads_ends_whole_and_leaves_nothing() {
    let message = vec![b'x'; 65_536];
    let mut decoder = Decoder::default();
    let mut events = 0;
    for byte in frame(0x82, &message) {
        let mut byte = [byte];
        let decoded = decoder.decode(&mut byte, &LIMITS, 0).unwrap();
        assert_eq!(decoded.consumed, 1);
        events += usize::from(decoded.event.is_some());
    }
    assert_eq!(events, 1);
    assert_eq!(decoder.incomplete_since(), None);
}

#[test]
fn a_control_frame_is_taken_though_messages_are_not() {
    let limits = Limits {
        message_bytes_max: 0,
        fragments_max: 1,
    };
    let run = run(&frame(0x89, b"still there?"), &[], &limits);
    assert_eq!(run.events, [ping(b"still there?")]);
}
