//! The guard in front of the API: any cut lets the same bytes through, and never a byte that did not come. What is taken
//! whole is a request as it came, and nothing of it goes on.

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
    let size = usize::from(cut % 64) + 1;
    assert_eq!(whole, take(bytes, size));
    assert_eq!(whole, take(bytes, bytes.len()));
    if let Ok(passed) = whole {
        assert!(
            bytes.starts_with(&passed),
            "what passes is a prefix of what came"
        );
    }
});

/// Takes every request that it is offered: what is taken and what goes on, in order, is what came.
fn take(bytes: &[u8], size: usize) -> Result<Vec<u8>, BadHead> {
    let (mut guard, mut seen) = (Guard::default(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        let mut at = 0;
        while at < piece.len() {
            let before = seen.len();
            let mut passed = Vec::new();
            let mut taken = None;
            let received = guard.receive_some(&piece[at..], &LIMITS, &mut passed, |whole| {
                taken = Some((whole.head_bytes, whole.body.to_vec()));
                true
            });
            at += received?;
            if let Some((head_bytes, body)) = taken {
                assert!(passed.is_empty(), "what is taken does not go on");
                assert!(guard.is_between_requests(), "it is taken whole");
                let head = bytes.get(before..before + head_bytes).expect("it came");
                passed.extend_from_slice(head);
                passed.extend_from_slice(&body);
            }
            seen.append(&mut passed);
        }
    }
    Ok(seen)
}

fn receive(bytes: &[u8], size: usize) -> Result<Vec<u8>, BadHead> {
    let mut guard = Guard::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        guard.receive(piece, &LIMITS, &mut passed)?;
    }
    Ok(passed)
}
