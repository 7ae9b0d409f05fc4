//! One line: connecting, upgrading, open, down.
//!
//! Once open, it speaks through tungstenite, whose view of RFC 6455 is not the server's. Its buffers are small: idle
//! lines are many, and the generator shares the machine with the server.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use nix::errno::Errno;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Error, Message};

use crate::transport::Transport;

/// Why a line failed or was lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// The socket could not be opened, or broke: the kernel's word for it.
    Socket(String),
    /// Not open in time.
    Timeout,
    /// An HTTP status other than 101.
    Status(u16),
    /// An answer that is no RFC 6455 upgrade.
    Upgrade(&'static str),
    /// The server closed it, with code and reason.
    Closed(u16, String),
    /// It broke RFC 6455, or ended without a close frame.
    Protocol(String),
}

/// A connection on its way to 101.
#[derive(Debug)]
pub(crate) struct Upgrade {
    stream: Transport,
    intended: Duration,
    request: Vec<u8>,
    sent: usize,
    accept: String,
    head: Vec<u8>,
    retry_after: Option<Duration>,
    /// What the line says first, as a frame. It is open when the server has answered that.
    greeting: Option<Vec<u8>>,
    is_greeted: bool,
}

/// An open line.
#[derive(Debug)]
pub(crate) struct OpenLine {
    stream: Transport,
    context: WebSocketContext,
    /// Whether a text is several JSON documents, one to a line, of which empty objects are pings.
    has_documents: bool,
    /// The documents of a text that have not been read yet.
    documents: Bytes,
}

/// What one visit to an open line found.
#[derive(Debug)]
pub(crate) enum Found {
    /// A ping, already answered.
    Ping,
    /// A message.
    Message(Bytes),
    /// A pong or the like.
    Other,
    /// Nothing more for now.
    Nothing,
}

const READ_BUFFER_BYTES: usize = 256;
const HEAD_END: &[u8] = b"\r\n\r\n";
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// What a server says that pings in JSON, and what it wants to hear.
const JSON_PING: &[u8] = b"{}";
const PONG: &str = "{}";
/// What an answer to the last command of a greeting has in it, and what one that refuses has.
const GREETING_ANSWER: &[u8] = b"\"id\":2";
const GREETING_REFUSAL: &[u8] = b"\"error\":";
const REFUSED: &str = "the server refuses what the line says first";

impl Upgrade {
    /// An upgrade over a connecting stream. `write_request` appends the request for the key it is given, and behind its
    /// head what the line says first.
    pub(crate) fn new(
        stream: Transport,
        write_request: impl FnOnce(&mut Vec<u8>, &str),
        intended: Duration,
    ) -> Self {
        let key = generate_key();
        let mut request = Vec::with_capacity(256);
        write_request(&mut request, &key);
        let accept = derive_accept_key(key.as_bytes());
        let head_bytes = memchr::memmem::find(&request, HEAD_END)
            .map_or(request.len(), |at| at + HEAD_END.len());
        let greeting = request.split_off(head_bytes);
        Self {
            stream,
            intended,
            request,
            sent: 0,
            accept,
            head: Vec::new(),
            retry_after: None,
            greeting: (!greeting.is_empty()).then(|| text_frame(greeting)),
            is_greeted: false,
        }
    }

    /// When the line was meant to start.
    pub(crate) fn intended(&self) -> Duration {
        self.intended
    }

    /// The socket, to register it.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        self.stream.source()
    }

    /// Whether an earlier TLS session was resumed, once the answer is there.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.is_resumed()
    }

    /// When to try again, if a refusal says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Sends what the socket takes of the request; whether all of it is out.
    pub(crate) fn flush(&mut self) -> Result<bool, Failure> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if is_not_yet(&error) => return Ok(false),
                Err(error) => return Err(Failure::socket(&error)),
            }
        }
        Ok(true)
    }

    /// Reads the answer; the bytes that followed the head once it is complete.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) if self.is_greeted => return Err(Failure::Upgrade(REFUSED)),
                Ok(0) => return Err(Failure::Upgrade("hung up before answering")),
                Ok(count) => {
                    self.head.extend_from_slice(&scratch[..count]);
                    if let Some(tail) = self.parse()?
                        && self.greet(&tail)?
                    {
                        return Ok(Some(tail));
                    }
                }
                Err(error) if is_not_yet(&error) => return Ok(None),
                Err(error) => return Err(Failure::socket(&error)),
            }
        }
    }

    /// Says what the line has to say first; whether the server has answered it by what followed its head.
    fn greet(&mut self, tail: &[u8]) -> Result<bool, Failure> {
        if let Some(greeting) = self.greeting.take() {
            self.request = greeting;
            self.sent = 0;
            self.is_greeted = true;
            self.flush()?;
        }
        if self.is_greeted && memchr::memmem::find(tail, GREETING_REFUSAL).is_some() {
            return Err(Failure::Upgrade(REFUSED));
        }
        if tail.len() > HEAD_BYTES_MAX {
            return Err(Failure::Upgrade(
                "endless answer to what the line says first",
            ));
        }
        Ok(!self.is_greeted || memchr::memmem::find(tail, GREETING_ANSWER).is_some())
    }

    /// Turns into an open line that starts with the bytes that came with the answer.
    pub(crate) fn into_open(self, tail: Vec<u8>) -> OpenLine {
        self.into_sending(tail, READ_BUFFER_BYTES, 0)
    }

    /// The same for a line with larger buffers.
    pub(crate) fn into_sending(
        self,
        tail: Vec<u8>,
        read_bytes: usize,
        write_bytes: usize,
    ) -> OpenLine {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_bytes)
            .write_buffer_size(write_bytes);
        OpenLine {
            has_documents: self.is_greeted,
            documents: Bytes::new(),
            stream: self.stream,
            context: WebSocketContext::from_partially_read(tail, Role::Client, Some(config)),
        }
    }

    fn parse(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.head) {
            Ok(httparse::Status::Complete(length)) => {
                self.retry_after = retry_after(&response);
                self.verify(&response)?;
                Ok(Some(self.head[length..].to_vec()))
            }
            Ok(httparse::Status::Partial) if self.head.len() < HEAD_BYTES_MAX => Ok(None),
            Ok(httparse::Status::Partial) => Err(Failure::Upgrade("endless head")),
            Err(_) => Err(Failure::Upgrade("no HTTP answer")),
        }
    }

    /// RFC 6455 section 4.1, the points that do not depend on extensions.
    fn verify(&self, response: &httparse::Response<'_, '_>) -> Result<(), Failure> {
        let status = response.code.unwrap_or(0);
        if status != 101 {
            return Err(Failure::Status(status));
        }
        if !header(response, "Upgrade").is_some_and(|v| v.eq_ignore_ascii_case(b"websocket")) {
            return Err(Failure::Upgrade("no `Upgrade: websocket`"));
        }
        if header(response, "Sec-WebSocket-Accept") != Some(self.accept.as_bytes()) {
            return Err(Failure::Upgrade("wrong `Sec-WebSocket-Accept`"));
        }
        Ok(())
    }
}

impl OpenLine {
    /// Starts a visit. `is_ending` tells that a short read does not prove the socket empty.
    pub(crate) fn wake(&mut self, is_ending: bool) {
        self.stream.wake(is_ending);
    }

    /// Reads the next thing on the line; pings are answered on the way.
    pub(crate) fn read(&mut self) -> Result<Found, Failure> {
        if !self.documents.is_empty() {
            return self.read_document();
        }
        match self.context.read(&mut self.stream) {
            Ok(Message::Ping(_)) => Ok(Found::Ping),
            Ok(Message::Text(text)) if self.has_documents => {
                self.documents = text.into();
                self.read_document()
            }
            Ok(Message::Text(text)) => Ok(Found::Message(text.into())),
            Ok(Message::Binary(bytes)) => Ok(Found::Message(bytes)),
            Ok(Message::Pong(_) | Message::Frame(_)) => Ok(Found::Other),
            Ok(Message::Close(frame)) => {
                self.answer_close();
                Err(frame.map_or(Failure::Closed(1005, String::new()), |frame| {
                    Failure::Closed(frame.code.into(), frame.reason.to_string())
                }))
            }
            Err(Error::Io(error)) if is_not_yet(&error) => Ok(Found::Nothing),
            Err(Error::Io(error)) => Err(Failure::socket(&error)),
            Err(error) => Err(Failure::Protocol(error.to_string())),
        }
    }

    fn read_document(&mut self) -> Result<Found, Failure> {
        let end = memchr::memchr(b'\n', &self.documents);
        let rest = end.map_or_else(Bytes::new, |at| self.documents.slice(at + 1..));
        let mut document = std::mem::replace(&mut self.documents, rest);
        document.truncate(end.unwrap_or(document.len()));
        if document.trim_ascii() != JSON_PING {
            return Ok(Found::Message(document));
        }
        self.write(PONG.to_owned())?;
        self.flush()?;
        Ok(Found::Ping)
    }

    /// Takes in a text; what the socket does not take waits for the next [`flush`](Self::flush).
    pub(crate) fn write(&mut self, text: String) -> Result<(), Failure> {
        Self::sent(self.context.write(&mut self.stream, Message::text(text)))
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Self::sent(self.context.flush(&mut self.stream))
    }

    fn sent(result: Result<(), Error>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(()),
            Err(Error::Io(error)) if is_not_yet(&error) => Ok(()),
            Err(Error::Io(error)) => Err(Failure::socket(&error)),
            Err(error) => Err(Failure::Protocol(error.to_string())),
        }
    }

    /// Says goodbye with 1000 and does not wait for the answer.
    pub(crate) fn close(&mut self) {
        // Whether the frame still fits matters to nobody: a line that is over says so when it is read.
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        drop(self.context.close(&mut self.stream, Some(frame)));
        self.answer_close();
    }

    /// The socket, to cut it.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.stream()
    }

    /// The bare socket, without a word on it.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_stream()
    }

    /// The socket, to register it.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        self.stream.source()
    }

    fn answer_close(&mut self) {
        drop(self.context.flush(&mut self.stream));
    }
}

impl Failure {
    /// A socket's error, without what differs from line to line, or what TLS has to say.
    pub(crate) fn socket(error: &io::Error) -> Self {
        let told = error.get_ref().map(ToString::to_string);
        let kernel = || {
            error
                .raw_os_error()
                .map(|n| Errno::from_raw(n).desc().to_owned())
        };
        let told = told.or_else(kernel);
        Self::Socket(told.unwrap_or_else(|| error.kind().to_string()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(text) | Self::Protocol(text) => f.write_str(text),
            Self::Timeout => f.write_str("not open in time"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Upgrade(text) => write!(f, "bad upgrade: {text}"),
            Self::Closed(code, reason) => write!(f, "closed with {code} {reason}"),
        }
    }
}

fn header<'a>(response: &httparse::Response<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    let mut headers = response.headers.iter();
    let found = headers.find(|h| h.name.eq_ignore_ascii_case(name))?;
    Some(found.value.trim_ascii())
}

/// Seconds only: a date would be told by another clock.
fn retry_after(response: &httparse::Response<'_, '_>) -> Option<Duration> {
    let text = std::str::from_utf8(header(response, "Retry-After")?).ok()?;
    text.parse().ok().map(Duration::from_secs)
}

/// A masked frame, for what is sent before there is a context.
fn text_frame(text: Vec<u8>) -> Vec<u8> {
    let mut frame = Frame::message(text, OpCode::Data(Data::Text), true);
    frame.header_mut().mask = Some(rand::random());
    let mut bytes = Vec::new();
    let formatted = frame.format(&mut bytes);
    debug_assert!(formatted.is_ok(), "a vector takes every byte");
    bytes
}

/// Whether a socket only asks to come back later; a write before the connection stands says so too.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
