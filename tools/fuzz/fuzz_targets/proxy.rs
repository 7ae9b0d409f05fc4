//! PROXY headers: any cut yields the same source and the same rest, and only what the specification's length allows
//! is ever taken.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use tautline::net::proxy::{BadProxyHeader, ProxyHeader};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    let whole = receive(bytes, bytes.len());
    let cut = receive(bytes, usize::from(cut % 64) + 1);
    assert_eq!(whole, cut);
    if let Ok(Some((_, length))) = whole {
        assert!(length <= 536, "longer than any header may be");
        assert!(bytes.starts_with(b"PROXY") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    }
});

/// The source, and how long the header was.
fn receive(
    bytes: &[u8],
    size: usize,
) -> Result<Option<(Option<SocketAddr>, usize)>, BadProxyHeader> {
    let mut header = ProxyHeader::default();
    let mut taken = 0;
    for piece in bytes.chunks(size.max(1)) {
        if let Some(proxied) = header.receive(piece)? {
            assert!(proxied.consumed <= piece.len());
            return Ok(Some((proxied.source, taken + proxied.consumed)));
        }
        taken += piece.len();
    }
    Ok(None)
}
