//! The guard in front of the API: any cut lets the same bytes through, and never a byte that did not come.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tautline::head::guard::Guard;
use tautline::head::request::{BadHead, Limits};

/// Small enough that short inputs reach every limit.
const LIMITS: Limits = Limits {
    head_bytes_max: 512,
    target_bytes_max: 64,
};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    let whole = receive(bytes, bytes.len());
    assert_eq!(whole, receive(bytes, usize::from(cut % 64) + 1));
    if let Ok(passed) = whole {
        assert!(
            bytes.starts_with(&passed),
            "what passes is a prefix of what came"
        );
    }
});

fn receive(bytes: &[u8], size: usize) -> Result<Vec<u8>, BadHead> {
    let mut guard = Guard::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        guard.receive(piece, &LIMITS, &mut passed)?;
    }
    Ok(passed)
}
