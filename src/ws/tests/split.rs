//! Streams of random frames, valid and spoilt.

use proptest::prelude::*;

use super::{LIMITS, Limits, append_masked, oracle};

/// Small enough that random messages reach every limit.
const TIGHT: Limits = Limits {
    message_bytes_max: 300,
    fragments_max: 4,
};

/// Only the size limit, because tungstenite has no other.
const UNCOUNTED: Limits = Limits {
    message_bytes_max: 300,
    fragments_max: u32::MAX,
};

proptest! {
    #[test]
    fn no_cut_of_any_stream_changes_what_it_means(
        bytes in stream(),
        sizes in prop::collection::vec(1_usize..40, 1..8),
    ) {
        oracle::assert_cut_does_not_matter(&bytes, &sizes, &TIGHT);
        oracle::assert_cut_does_not_matter(&bytes, &[1], &LIMITS);
    }

    #[test]
    fn no_cut_of_noise_changes_what_it_means(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        sizes in prop::collection::vec(1_usize..10, 1..4),
    ) {
        oracle::assert_cut_does_not_matter(&bytes, &sizes, &TIGHT);
    }

    #[test]
    fn tungstenite_sees_the_same(bytes in stream()) {
        oracle::assert_agrees_with_tungstenite(&bytes, &UNCOUNTED);
    }
}

/// Frames one after the other, sometimes with a byte changed, sometimes cut short.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let frames = prop::collection::vec(frame(), 1..12)
        .prop_map(|frames| frames.concat())
        .boxed();
    let spoilt = (frames.clone(), any::<prop::sample::Index>(), any::<u8>());
    let spoilt = spoilt.prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let cut = (frames.clone(), any::<prop::sample::Index>());
    let cut = cut.prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len()));
        bytes
    });
    prop_oneof![2 => frames, 1 => spoilt, 1 => cut]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        6 => Just(0_u8), 6 => Just(1), 4 => Just(2), 1 => Just(8), 2 => Just(9), 2 => Just(10),
        1 => 0_u8..16,
    ];
    let fin = prop::bool::weighted(0.6);
    let length_form = prop_oneof![20 => Just(0_usize), 1 => Just(2), 1 => Just(8)];
    (opcode, fin, length_form, payload()).prop_map(|(opcode, fin, form, payload)| {
        // A control frame without FIN ends the stream at once: rare is enough.
        let fin = fin || opcode >= 8 && payload.len() % 8 != 0;
        let mut out = vec![u8::from(fin) << 7 | opcode];
        append_length(payload.len(), form, &mut out);
        append_masked(&payload, &mut out);
        out
    })
}

/// Text in any script, whole or cut anywhere; bytes; close payloads.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let text = "\\PC{0,40}".prop_map(String::into_bytes);
    let cut = ("\\PC{1,10}", any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let mut bytes = text.into_bytes();
        bytes.truncate(at.index(bytes.len()) + 1);
        bytes
    });
    let close = (900_u16..5100, "[a-z]{0,9}")
        .prop_map(|(code, word)| [&code.to_be_bytes()[..], word.as_bytes()].concat());
    prop_oneof![
        4 => text,
        2 => cut,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        2 => close,
        2 => Just(Vec::new()),
    ]
}

/// Writes the length in `form` bytes, minimal when 0 or when it does not fit.
fn append_length(length: usize, form: usize, out: &mut Vec<u8>) {
    let bytes = (length as u64).to_be_bytes();
    match (form, length) {
        (8, _) => out.push(0x80 | 127),
        (0, ..126) => return out.push(0x80 | bytes[7]),
        _ => out.push(0x80 | 126),
    }
    out.extend_from_slice(&bytes[if form == 8 { 0 } else { 6 }..]);
}
