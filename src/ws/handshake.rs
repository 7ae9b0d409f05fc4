//! The opening handshake (RFC 6455, section 4.2): which requests become a line, and what the others are told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

/// A request that may become a WebSocket, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept_key: String,
    protocol: &'static str,
    was_offered: bool,
}

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoUpgrade {
    /// Not `GET`.
    Method,
    /// HTTP/1.0.
    HttpVersion,
    /// A request with a body, which would be read as frames, or as a second request by a proxy in front.
    Body,
    /// `Upgrade: websocket` or `Connection: upgrade` is missing.
    NotWebSocket,
    /// `Sec-WebSocket-Version` is not 13.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, there twice, or not 16 bytes in base 64.
    Key,
    /// Sub-protocols were offered, but none that is served here.
    Protocol,
}

impl Upgrade {
    /// Judges a request by its method, HTTP/1 minor version and headers.
    ///
    /// `supported` are the sub-protocols of this path; the first is meant when a device offers none, and the first
    /// of the device's list that is among them is chosen.
    ///
    /// # Errors
    ///
    /// [`NoUpgrade`], the first that applies in the order of its variants.
    pub fn accept<'a>(
        method: &str,
        minor_version: u8,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        supported: &[&'static str],
    ) -> Result<Self, NoUpgrade> {
        let fields = Fields::collect(headers);
        ensure(method == "GET", NoUpgrade::Method)?;
        ensure(minor_version >= 1, NoUpgrade::HttpVersion)?;
        ensure(!fields.announces_body, NoUpgrade::Body)?;
        let is_websocket = fields.upgrades_to_websocket && fields.connection_upgrades;
        ensure(is_websocket, NoUpgrade::NotWebSocket)?;
        ensure(fields.version.is(b"13"), NoUpgrade::WebSocketVersion)?;
        let key = fields.key.once().filter(|key| is_key(key));
        let key = key.ok_or(NoUpgrade::Key)?;
        Ok(Self {
            accept_key: derive_accept_key(key),
            protocol: choose(&fields.protocols, supported)?,
            was_offered: !fields.protocols.is_empty(),
        })
    }

    /// The sub-protocol of the line.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Appends the 101. It names a sub-protocol only if the device offered some, and never an extension.
    pub fn encode_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(SWITCHING);
        out.extend_from_slice(self.accept_key.as_bytes());
        if self.was_offered {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(self.protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

impl NoUpgrade {
    /// The HTTP status that tells it.
    ///
    /// HTTP/1.0 is 400: RFC 6455, section 4.2.1, wants "HTTP/1.1 or higher" and answers what falls short with
    /// "such as 400"; the 505 of RFC 9110 is about the major version, which is the right one.
    pub const fn status(self) -> u16 {
        match self {
            Self::HttpVersion | Self::Body | Self::Key | Self::Protocol => 400,
            Self::Method => 405,
            Self::NotWebSocket | Self::WebSocketVersion => 426,
        }
    }

    /// The headers that this status requires.
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("Allow", "GET")],
            Self::NotWebSocket => &[UPGRADE, CONNECTION],
            Self::WebSocketVersion => &[UPGRADE, CONNECTION, ("Sec-WebSocket-Version", "13")],
            Self::HttpVersion | Self::Body | Self::Key | Self::Protocol => &[],
        }
    }

    /// A sentence for whoever wrote the client.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Method => "a WebSocket opens with GET",
            Self::HttpVersion => "a WebSocket needs HTTP/1.1",
            Self::Body => "a request for a WebSocket has no body",
            Self::NotWebSocket => "this path speaks WebSocket only",
            Self::WebSocketVersion => "only version 13 of the WebSocket protocol is spoken here",
            Self::Key => "Sec-WebSocket-Key must be there once, 16 bytes in base 64",
            Self::Protocol => "none of the offered sub-protocols is spoken here",
        }
    }
}

/// What the headers say about an upgrade.
#[derive(Default)]
struct Fields<'a> {
    upgrades_to_websocket: bool,
    connection_upgrades: bool,
    announces_body: bool,
    version: Single<'a>,
    key: Single<'a>,
    protocols: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn collect(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.add(name, value);
        }
        fields
    }

    fn add(&mut self, name: &str, value: &'a [u8]) {
        let is = |other| name.eq_ignore_ascii_case(other);
        if is("upgrade") {
            self.upgrades_to_websocket |= has_token(value, "websocket");
        } else if is("connection") {
            self.connection_upgrades |= has_token(value, "upgrade");
        } else if is("content-length") {
            self.announces_body |= value != b"0";
        } else if is("transfer-encoding") {
            self.announces_body = true;
        } else if is("sec-websocket-version") {
            self.version.add(value);
        } else if is("sec-websocket-key") {
            self.key.add(value);
        } else if is("sec-websocket-protocol") {
            self.protocols.extend(tokens(value));
        }
    }
}

/// The value of a header that must be there once.
#[derive(Clone, Copy, Default)]
enum Single<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Single<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn once(self) -> Option<&'a [u8]> {
        match self {
            Self::Once(value) => Some(value),
            Self::Absent | Self::Repeated => None,
        }
    }

    fn is(self, expected: &[u8]) -> bool {
        self.once() == Some(expected)
    }
}

fn ensure(holds: bool, otherwise: NoUpgrade) -> Result<(), NoUpgrade> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// The elements of a comma-separated list; empty ones do not count (RFC 9110, section 5.6.1).
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

fn has_token(value: &[u8], expected: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(expected.as_bytes()))
}

fn is_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

fn choose(offered: &[&[u8]], supported: &[&'static str]) -> Result<&'static str, NoUpgrade> {
    let chosen = if offered.is_empty() {
        supported.first()
    } else {
        offered
            .iter()
            .find_map(|offer| supported.iter().find(|name| name.as_bytes() == *offer))
    };
    chosen.copied().ok_or(NoUpgrade::Protocol)
}

/// RFC 9110 wants both in every 426 (sections 15.5.22 and 7.8).
const UPGRADE: (&str, &str) = ("Upgrade", "websocket");
const CONNECTION: (&str, &str) = ("Connection", "Upgrade");

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: ";

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = Vec<(&'static str, &'static str)>;

    const SUPPORTED: [&str; 2] = ["tautline.v1.json", "tautline.v1.raw"];

    /// The request of RFC 6455, section 1.3.
    fn sound() -> Headers {
        vec![
            ("Host", "server.example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ]
    }

    fn without(name: &str) -> Headers {
        let mut headers = sound();
        headers.retain(|(other, _)| *other != name);
        headers
    }

    fn with(name: &'static str, value: &'static str) -> Headers {
        let mut headers = without(name);
        headers.push((name, value));
        headers
    }

    fn and(name: &'static str, value: &'static str) -> Headers {
        let mut headers = sound();
        headers.push((name, value));
        headers
    }

    fn accept(headers: &Headers) -> Result<Upgrade, NoUpgrade> {
        let headers = headers.iter().map(|(n, v)| (*n, v.as_bytes()));
        Upgrade::accept("GET", 1, headers, &SUPPORTED)
    }

    #[test]
    fn the_example_of_the_rfc_gets_its_answer() {
        let mut out = Vec::new();
        accept(&sound()).unwrap().encode_response(&mut out);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_first_known_sub_protocol_of_the_offer_is_chosen_and_named() {
        let mut headers = with("Sec-WebSocket-Protocol", "chat, ,tautline.v1.raw");
        headers.push(("sec-websocket-protocol", "tautline.v1.json"));
        let upgrade = accept(&headers).unwrap();
        let mut out = Vec::new();
        upgrade.encode_response(&mut out);
        assert_eq!(upgrade.protocol(), "tautline.v1.raw");
        assert!(out.ends_with(b"\r\nSec-WebSocket-Protocol: tautline.v1.raw\r\n\r\n"));
    }

    #[test]
    fn without_an_offer_the_first_supported_one_is_meant() {
        assert_eq!(accept(&sound()).unwrap().protocol(), "tautline.v1.json");
    }

    #[test]
    fn an_extension_is_never_negotiated() {
        let upgrade = accept(&and("Sec-WebSocket-Extensions", "permessage-deflate")).unwrap();
        let mut out = Vec::new();
        upgrade.encode_response(&mut out);
        assert!(!String::from_utf8(out).unwrap().contains("Extensions"));
    }

    #[test]
    fn token_lists_are_searched_in_any_case() {
        for headers in [
            with("Connection", "keep-alive, uPGRADE"),
            with("Connection", ",,Upgrade ,x"),
            with("Upgrade", "h2c, WebSocket"),
            and("Connection", "keep-alive"),
            and("Content-Length", "0"),
        ] {
            assert!(accept(&headers).is_ok(), "{headers:?}");
        }
    }

    #[test]
    fn a_request_that_falls_short_is_told_how() {
        let table = [
            (with("Connection", "close"), NoUpgrade::NotWebSocket),
            (
                with("Connection", "upgrade-insecure"),
                NoUpgrade::NotWebSocket,
            ),
            (without("Connection"), NoUpgrade::NotWebSocket),
            (with("Upgrade", "h2c"), NoUpgrade::NotWebSocket),
            (with("Upgrade", "websocket/13"), NoUpgrade::NotWebSocket),
            (without("Upgrade"), NoUpgrade::NotWebSocket),
            (
                with("Sec-WebSocket-Version", "8"),
                NoUpgrade::WebSocketVersion,
            ),
            (
                with("Sec-WebSocket-Version", "13, 8"),
                NoUpgrade::WebSocketVersion,
            ),
            (
                without("Sec-WebSocket-Version"),
                NoUpgrade::WebSocketVersion,
            ),
            (
                and("Sec-WebSocket-Version", "13"),
                NoUpgrade::WebSocketVersion,
            ),
            (without("Sec-WebSocket-Key"), NoUpgrade::Key),
            (
                and("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                NoUpgrade::Key,
            ),
            (
                with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ"),
                NoUpgrade::Key,
            ),
            (with("Sec-WebSocket-Key", "c2hvcnQ="), NoUpgrade::Key),
            (
                with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ!!"),
                NoUpgrade::Key,
            ),
            (
                with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAA"),
                NoUpgrade::Key,
            ),
            (and("Content-Length", "5"), NoUpgrade::Body),
            (and("Content-Length", "+0"), NoUpgrade::Body),
            (and("Transfer-Encoding", "chunked"), NoUpgrade::Body),
            (with("Sec-WebSocket-Protocol", "mqtt"), NoUpgrade::Protocol),
            (
                with("Sec-WebSocket-Protocol", "TAUTLINE.V1.JSON"),
                NoUpgrade::Protocol,
            ),
        ];
        for (headers, expected) in table {
            assert_eq!(accept(&headers), Err(expected), "{headers:?}");
        }
    }

    #[test]
    fn method_and_http_version_come_first() {
        let judge = |method, minor| Upgrade::accept(method, minor, [].into_iter(), &SUPPORTED);
        assert_eq!(judge("POST", 1), Err(NoUpgrade::Method));
        assert_eq!(judge("HEAD", 0), Err(NoUpgrade::Method));
        assert_eq!(judge("GET", 0), Err(NoUpgrade::HttpVersion));
    }

    #[test]
    fn each_refusal_carries_the_headers_its_status_requires() {
        let table: [(NoUpgrade, u16, &[&str]); 7] = [
            (NoUpgrade::Method, 405, &["Allow"]),
            (NoUpgrade::HttpVersion, 400, &[]),
            (NoUpgrade::Body, 400, &[]),
            (NoUpgrade::NotWebSocket, 426, &["Upgrade", "Connection"]),
            (
                NoUpgrade::WebSocketVersion,
                426,
                &["Upgrade", "Connection", "Sec-WebSocket-Version"],
            ),
            (NoUpgrade::Key, 400, &[]),
            (NoUpgrade::Protocol, 400, &[]),
        ];
        for (refusal, status, names) in table {
            assert_eq!(refusal.status(), status, "{refusal:?}");
            let headers = refusal.headers().iter().map(|(name, _)| *name);
            assert!(headers.eq(names.iter().copied()), "{refusal:?}");
        }
    }
}
