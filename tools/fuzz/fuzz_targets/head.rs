//! Request heads: any cut has the same verdict, and what passes can be asked anything. The first byte chooses the
//! cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tautline::head::buffer::HeadBuffer;
use tautline::head::request::{BadHead, Limits, Request};
use tautline::head::target::redact;
use tautline::ws::handshake::Upgrade;

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
    if let Ok(Some((head, _))) = whole {
        ask_everything(&head);
    }
});

/// The head, and how many of the bytes belong to it.
fn receive(bytes: &[u8], size: usize) -> Result<Option<(Vec<u8>, usize)>, BadHead> {
    let mut buffer = HeadBuffer::default();
    let mut at = 0;
    for piece in bytes.chunks(size.max(1)) {
        if let Some(head) = buffer.receive(piece, &LIMITS)? {
            return Ok(Some((head.bytes.to_vec(), at + head.consumed)));
        }
        at += piece.len();
    }
    Ok(None)
}

fn ask_everything(head: &[u8]) {
    let Ok(request) = Request::parse(head, &LIMITS) else {
        return;
    };
    assert!(request.host().is_some() || request.minor_version() == 0);
    let _sid = request.cookie("sid");
    let _token = request.target().query_pair("token");
    let asked = format!("/?{}", request.target().query);
    let shown = redact(&asked).into_owned();
    assert_eq!(
        redact(&shown),
        shown,
        "what is shown has nothing left to hide"
    );
    let headers = request.headers();
    let supported = ["tautline.v1.json", "tautline.v1.raw"];
    let upgrade = Upgrade::accept(
        request.method(),
        request.minor_version(),
        headers,
        &supported,
    );
    if let Ok(upgrade) = upgrade {
        let mut answer = Vec::new();
        upgrade.encode_response(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    }
}
