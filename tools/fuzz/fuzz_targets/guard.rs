//! The guard in front of the API: any cut lets the same bytes through, and never a byte that did not come. What is taken
//! whole is a request as it came, and nothing of it goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tautline::head::guard::{Choice, Guard};
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

/// Takes every request that it is offered, and awaits the bodies of those that are not whole: what is taken and what goes
/// on, in order, is what came.
fn take(bytes: &[u8], size: usize) -> Result<Vec<u8>, BadHead> {
    let (mut guard, mut seen, mut held) = (Guard::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            let mut passed = Vec::new();
            let mut taken = None;
            let received = guard.receive_some(&held, &LIMITS, &mut passed, |offer| {
                let Some(body) = offer.body else {
                    return Choice::Await;
                };
                assert_eq!(body.len(), offer.body_bytes);
                taken = Some((offer.head_bytes, body.to_vec()));
                Choice::Take
            })?;
            if received == 0 {
                assert!(passed.is_empty(), "what is awaited does not go on");
                break;
            }
            held.drain(..received);
            if let Some((head_bytes, body)) = taken {
                assert!(passed.is_empty(), "what is taken does not go on");
                assert!(guard.is_between_requests(), "it is taken whole");
                let head = bytes.get(seen.len()..seen.len() + head_bytes);
                passed.extend_from_slice(head.expect("it came"));
                passed.extend_from_slice(&body);
            }
            seen.append(&mut passed);
        }
    }
    // Nothing more comes of the last one.
    guard.receive(&held, &LIMITS, &mut seen)?;
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
