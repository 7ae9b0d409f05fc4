//! One request head, parsed and checked.

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::target::{Target, is_host};

/// A request head that is sound: one `Host`, and nothing twice that must be there once.
#[derive(Debug)]
pub struct Request<'a> {
    method: &'a str,
    target: Target<'a>,
    minor_version: u8,
    headers: [Header<'a>; HEADERS_MAX],
    header_count: usize,
}

/// How large a head may be. The configuration has the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the head, request line and empty line included.
    pub head_bytes_max: usize,
    /// Most bytes of the target in the request line.
    pub target_bytes_max: usize,
}

/// Why a head is refused. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadHead {
    /// Not `METHOD target HTTP/1.x`.
    RequestLine,
    /// Another HTTP version than 1.0 and 1.1.
    Version,
    /// A line that ends without a carriage return.
    BareLineFeed,
    /// A header outside the grammar of RFC 9112: folded, without a name, with a space before its colon, with NUL.
    Header,
    /// No `Host` in HTTP/1.1, more than one, or one that is not a host.
    Host,
    /// A header twice that decides who asks or what is asked, or such a header that is not plain ASCII.
    RepeatedHeader,
    /// A body whose end two readers could see at different places.
    Framing,
    /// The target is over `target_bytes_max`.
    TargetTooLong,
    /// The head is over `head_bytes_max`.
    HeadTooLarge,
    /// More than [`HEADERS_MAX`] headers.
    TooManyHeaders,
}

impl BadHead {
    /// The HTTP status that tells it.
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::BareLineFeed
            | Self::Header
            | Self::Host
            | Self::RepeatedHeader
            | Self::Framing => 400,
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::Version => 505,
        }
    }

    /// A sentence for whoever wrote the client.
    pub const fn message(self) -> &'static str {
        match self {
            Self::RequestLine => "the first line is no request line of HTTP/1.1",
            Self::Version => "only HTTP/1.1 is spoken here",
            Self::BareLineFeed => "a line ends with LF instead of CR LF",
            Self::Header => "a header line is malformed",
            Self::Host => "exactly one valid Host header is required",
            Self::RepeatedHeader => "a header that must be unique is repeated or not ASCII",
            Self::Framing => {
                "the body's length is given in more than one way, or not by the letter of RFC 9112"
            }
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTooLarge => "the request head is too large",
            Self::TooManyHeaders => "the request has too many headers",
        }
    }
}

impl<'a> Request<'a> {
    /// Parses a whole head, as [`HeadBuffer`](super::buffer::HeadBuffer) yields it.
    ///
    /// # Errors
    ///
    /// [`BadHead`]; a head that is not whole is [`BadHead::Header`].
    pub fn parse(head: &'a [u8], limits: &Limits) -> Result<Self, BadHead> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut parser = httparse::Request::new(&mut headers);
        let status = parser.parse(head).map_err(refusal)?;
        let (Status::Complete(_), Some(method), Some(target), Some(minor_version)) =
            (status, parser.method, parser.path, parser.version)
        else {
            return Err(BadHead::Header);
        };
        if target.len() > limits.target_bytes_max {
            return Err(BadHead::TargetTooLong);
        }
        let header_count = parser.headers.len();
        let request = Self {
            method,
            target: Target::parse(target).ok_or(BadHead::RequestLine)?,
            minor_version,
            headers,
            header_count,
        };
        request.check_host()?;
        request.check_unique()?;
        Ok(request)
    }

    /// The method, in upper case as sent.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Path and query.
    pub fn target(&self) -> &Target<'a> {
        &self.target
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Host and port the device asked for, from the target if it is absolute, else from `Host`.
    pub fn host(&self) -> Option<&'a str> {
        self.target.authority.or_else(|| self.header("host"))
    }

    /// Every header, in order, its value without the space around it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers[..self.header_count]
            .iter()
            .map(|header| (header.name, header.value))
    }

    /// The values of one header, whose name may be in any case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The value of a header; `None` when it is absent, repeated or not UTF-8.
    ///
    /// `Host`, `Origin`, `Authorization`, `Sec-WebSocket-Key` and `Content-Length` can only be absent: the other
    /// two made the request itself be refused, so `None` never hides one that was sent.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut values = self.header_values(name);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }

    /// The value of the first cookie of that name, without quotes; names are case-sensitive (RFC 6265).
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let unquoted = |value: &'a str| {
            let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            inner.unwrap_or(value)
        };
        self.header_values("cookie")
            .filter_map(|value| std::str::from_utf8(value).ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then(|| unquoted(value)))
    }

    /// RFC 9112, section 3.2: a request without exactly one valid `Host` is answered with 400.
    fn check_host(&self) -> Result<(), BadHead> {
        let mut values = self.header_values("host");
        let is_sound = match (values.next(), values.next()) {
            (None, _) => self.minor_version == 0,
            (Some(host), None) => std::str::from_utf8(host).is_ok_and(is_host),
            (Some(_), Some(_)) => false,
        };
        if is_sound { Ok(()) } else { Err(BadHead::Host) }
    }

    fn check_unique(&self) -> Result<(), BadHead> {
        let is_sound = |name: &&str| {
            let mut values = self.header_values(name);
            values.next().is_none_or(<[u8]>::is_ascii) && values.next().is_none()
        };
        if UNIQUE_HEADERS.iter().all(is_sound) {
            Ok(())
        } else {
            Err(BadHead::RepeatedHeader)
        }
    }
}

fn refusal(error: Error) -> BadHead {
    match error {
        Error::HeaderName | Error::HeaderValue | Error::NewLine => BadHead::Header,
        Error::TooManyHeaders => BadHead::TooManyHeaders,
        Error::Version => BadHead::Version,
        Error::Status | Error::Token => BadHead::RequestLine,
    }
}

/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;

/// Headers that decide who asks or how the request is framed: two of them are two opinions, so neither counts.
const UNIQUE_HEADERS: [&str; 4] = [
    "origin",
    "authorization",
    "sec-websocket-key",
    "content-length",
];
