//! Heads from outside: what is refused and when, however the bytes are cut.

use proptest::prelude::*;

use super::buffer::HeadBuffer;
use super::request::{BadHead, HEADERS_MAX, Limits, Request};

const LIMITS: Limits = Limits {
    head_bytes_max: 8_192,
    target_bytes_max: 2_048,
};

/// The head as the buffer yields it and the bytes behind it, feeding pieces of the given sizes over and over.
fn receive(bytes: &[u8], sizes: &[usize]) -> Result<Option<(Vec<u8>, usize)>, BadHead> {
    let mut buffer = HeadBuffer::default();
    let mut sizes = sizes.iter().copied().cycle();
    let mut at = 0;
    while at < bytes.len() {
        let size = sizes.next().unwrap_or(bytes.len()).min(bytes.len() - at);
        if let Some(head) = buffer.receive(&bytes[at..at + size], &LIMITS)? {
            return Ok(Some((head.bytes.to_vec(), at + head.consumed)));
        }
        at += size;
    }
    Ok(None)
}

/// The verdict on a whole head.
fn verdict(bytes: &[u8]) -> Result<(), BadHead> {
    let (head, _) = receive(bytes, &[])?.expect("a whole head");
    Request::parse(&head, &LIMITS).map(|_| ())
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /ws HTTP/1.1\r\nHost: h\r\n{headers}\r\n").into_bytes()
}

#[test]
fn a_whole_head_is_borrowed_and_the_bytes_behind_it_are_left() {
    let bytes = [&get("")[..], b"\x81\x80POST /push HTTP/1.1\r\n\r\n"].concat();
    let mut buffer = HeadBuffer::default();
    let head = buffer.receive(&bytes, &LIMITS).unwrap().unwrap();
    assert_eq!(head.bytes.as_ptr(), bytes.as_ptr());
    assert_eq!(head.consumed, get("").len());
}

#[test]
fn a_request_is_taken_apart() {
    let head = b"GET /ws?device_id=tv-1&token=a%2Eb HTTP/1.1\r\nHost: push.example:7400\r\n\
        Cookie: a=1; sid=\"x=y\"\r\nX-Tag: \t one \t\r\nx-tag: two\r\ncookie: b=2\r\nX-Name: \xc3\xa9\r\n\
        X-Bytes: \xff\r\nX-Empty:\r\n\r\n";
    let request = Request::parse(head, &LIMITS).unwrap();
    assert_eq!((request.method(), request.minor_version()), ("GET", 1));
    assert_eq!(request.target().path, "/ws");
    assert_eq!(request.target().query_pair("token").as_deref(), Some("a.b"));
    assert_eq!(request.host(), Some("push.example:7400"));
    assert_eq!(request.header("x-name"), Some("é"));
    assert_eq!(request.header("X-EMPTY"), Some(""));
    assert_eq!(request.header("x-bytes"), None);
    assert_eq!(request.header("x-absent"), None);
    assert_eq!(request.header("x-tag"), None);
    assert!(request.header_values("X-Tag").eq([&b"one"[..], b"two"]));
    let cookies = ["a", "sid", "b", "A"].map(|name| request.cookie(name));
    assert_eq!(cookies, [Some("1"), Some("x=y"), Some("2"), None]);
}

#[test]
fn the_absolute_form_names_the_host() {
    let head = b"GET http://other:80/ws HTTP/1.1\r\nHost: h\r\n\r\n";
    let request = Request::parse(head, &LIMITS).unwrap();
    assert_eq!(request.host(), Some("other:80"));
    assert_eq!(request.target().path, "/ws");
}

#[test]
fn heads_outside_the_grammar_are_refused() {
    let table: [(&[u8], BadHead); 22] = [
        (b"GET / HTTP/1.1\nHost: h\n\n", BadHead::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: h\n\r\n", BadHead::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\n", BadHead::BareLineFeed),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n",
            BadHead::Header,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0\r\n\r\n",
            BadHead::Header,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
            BadHead::Header,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
            BadHead::Header,
        ),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", BadHead::Header),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", BadHead::Header),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", BadHead::Header),
        (b"GET / HTTP/1.1\r\n\r\n", BadHead::Host),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            BadHead::Host,
        ),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHead::Host),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHead::Host),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::RequestLine),
        (
            b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            BadHead::RequestLine,
        ),
        (b"GET /\r\nHost: h\r\n\r\n", BadHead::RequestLine),
        (b"GET ws HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::RequestLine),
        (
            b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
            BadHead::RequestLine,
        ),
        (b"GET / FTP/1.1\r\nHost: h\r\n\r\n", BadHead::RequestLine),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", BadHead::Version),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadHead::Version),
    ];
    for (bytes, expected) in table {
        assert_eq!(verdict(bytes), Err(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_second_opinion_on_who_asks_is_refused() {
    for name in [
        "Origin",
        "Authorization",
        "Sec-WebSocket-Key",
        "Content-Length",
    ] {
        let lower = name.to_lowercase();
        assert_eq!(verdict(&get(&format!("{name}: 1\r\n"))), Ok(()));
        let twice = get(&format!("{name}: 1\r\n{lower}: 1\r\n"));
        assert_eq!(verdict(&twice), Err(BadHead::RepeatedHeader));
        let accented = get(&format!("{name}: é\r\n"));
        assert_eq!(verdict(&accented), Err(BadHead::RepeatedHeader));
    }
}

#[test]
fn http_1_0_may_do_without_a_host() {
    assert_eq!(verdict(b"GET / HTTP/1.0\r\n\r\n"), Ok(()));
}

#[test]
fn garbage_is_refused_at_once() {
    let tls_hello = b"\x16";
    let proxy = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n";
    for bytes in [
        &tls_hello[..],
        b"\r\n",
        b" ",
        b"get / ",
        b"\x00",
        b"AAAAAAAAAAAAAAAAA",
        proxy,
    ] {
        assert_eq!(receive(bytes, &[]), Err(BadHead::RequestLine), "{bytes:x?}");
    }
}

#[test]
fn a_head_at_the_limit_passes_and_one_byte_more_does_not() {
    let padded = |bytes: usize| {
        let pad = bytes - get("X-Pad: \r\n").len();
        get(&format!("X-Pad: {}\r\n", "x".repeat(pad)))
    };
    assert_eq!(verdict(&padded(8_192)), Ok(()));
    assert_eq!(receive(&padded(8_193), &[]), Err(BadHead::HeadTooLarge));
    assert_eq!(receive(&padded(8_193), &[100]), Err(BadHead::HeadTooLarge));
    assert_eq!(receive(&padded(100_000), &[]), Err(BadHead::HeadTooLarge));
}

#[test]
fn the_last_header_allowed_passes_and_one_more_does_not() {
    assert_eq!(verdict(&get(&"A: b\r\n".repeat(HEADERS_MAX - 1))), Ok(()));
    let more = get(&"A: b\r\n".repeat(HEADERS_MAX));
    assert_eq!(verdict(&more), Err(BadHead::TooManyHeaders));
}

#[test]
fn a_long_target_is_refused_even_before_its_line_ends() {
    let head = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(bytes - 1));
    assert_eq!(verdict(head(2_048).as_bytes()), Ok(()));
    assert_eq!(verdict(head(2_049).as_bytes()), Err(BadHead::TargetTooLong));
    let endless = format!("GET /{}", "a".repeat(2_100));
    assert_eq!(
        receive(endless.as_bytes(), &[1]),
        Err(BadHead::TargetTooLong)
    );
}

#[test]
fn every_refusal_has_its_status() {
    let table = [
        (BadHead::RequestLine, 400),
        (BadHead::BareLineFeed, 400),
        (BadHead::Header, 400),
        (BadHead::Host, 400),
        (BadHead::RepeatedHeader, 400),
        (BadHead::TargetTooLong, 414),
        (BadHead::HeadTooLarge, 431),
        (BadHead::TooManyHeaders, 431),
        (BadHead::Version, 505),
    ];
    for (refusal, status) in table {
        assert_eq!(refusal.status(), status, "{refusal:?}");
        assert!(!refusal.message().is_empty());
    }
}

proptest! {
    #[test]
    fn no_cut_of_a_head_changes_its_verdict(
        bytes in head(),
        sizes in prop::collection::vec(1_usize..60, 1..6),
    ) {
        prop_assert_eq!(receive(&bytes, &sizes), receive(&bytes, &[]));
        prop_assert_eq!(receive(&bytes, &[1]), receive(&bytes, &[]));
    }

    #[test]
    fn no_head_panics_the_parser(bytes in head()) {
        if let Ok(request) = Request::parse(&bytes, &LIMITS) {
            let _names: Vec<_> = request.headers().map(|(name, _)| name).collect();
            prop_assert!(request.host().is_some() || request.minor_version() == 0);
        }
    }
}

/// Heads put together from good and bad lines, sometimes with a byte changed.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => Just("GET /ws?a=1 HTTP/1.1\r\n".to_owned()),
        1 => "[A-Z]{0,18} /[a-z]{0,9} HTTP/[12]\\.[01]\r\n",
        1 => (2_000_usize..2_200).prop_map(|n| format!("GET /{} HTTP/1.1\r\n", "a".repeat(n))),
        1 => "\\PC{0,20}\r?\n?",
    ];
    let line = prop_oneof![
        4 => "[A-Za-z-]{1,12}: ?[ -~]{0,30}\r\n",
        2 => Just("Host: h\r\n".to_owned()),
        1 => (1_000_usize..5_000).prop_map(|n| format!("X: {}\r\n", "x".repeat(n))),
        1 => "\\PC{0,10}\r?\n",
    ];
    let lines = prop::collection::vec(line, 0..10).prop_map(|lines| lines.concat());
    let whole = (first, lines, "(\r\n)?[a-z\r\n]{0,9}").prop_map(|(a, b, c)| a + &b + &c);
    let spoilt = (
        whole,
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    );
    spoilt.prop_map(|(whole, at, byte, spoils)| {
        let mut bytes = whole.into_bytes();
        if spoils && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}
