//! The frame decoder: any cut means the same, and tungstenite sees the same. The first byte chooses the cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tautline::ws::decoder::{CloseFrame, Decoder, Event};
use tautline::ws::frame::Limits;
use tautline::ws::violation::Violation;

#[path = "../../../src/ws/tests/oracle.rs"]
mod oracle;

/// Small enough that short inputs reach every limit.
const TIGHT: Limits = Limits {
    message_bytes_max: 300,
    fragments_max: 4,
};

/// Only the size limit, because tungstenite has no other.
const UNCOUNTED: Limits = Limits {
    message_bytes_max: 300,
    fragments_max: u32::MAX,
};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    let sizes = [usize::from(cut & 15) + 1, usize::from(cut >> 4) + 1];
    oracle::assert_cut_does_not_matter(bytes, &sizes, &TIGHT);
    oracle::assert_agrees_with_tungstenite(bytes, &UNCOUNTED);
});
