//! Bytes until the head of a request is whole, in linear time however they are cut.

use httparse::{Error, Request};

use super::request::{BadHead, Limits};

/// Collects one request head. Empty, and without an allocation, while heads arrive in one piece.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    bytes: Vec<u8>,
    scan: Scan,
}

/// A whole head: borrowed from the input if it came in one piece, else from the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// From the request line to the empty line, included.
    pub bytes: &'a [u8],
    /// Bytes of the input that belong to it. What follows is not HTTP: frames after a 101, void after a refusal.
    pub consumed: usize,
}

impl HeadBuffer {
    /// Whether nothing of a head has come yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next bytes of the connection; `None` while the head is not whole.
    ///
    /// # Errors
    ///
    /// [`BadHead`] as soon as the bytes so far show it: at the first byte when the device speaks TLS to a plain
    /// port, at the end of its line for a bad request line, and before anything over the limit is kept.
    pub fn receive<'a>(
        &'a mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<Head<'a>>, BadHead> {
        let held = self.bytes.len();
        // The limit may have been lowered by a reload since the first bytes came.
        let room = limits.head_bytes_max.saturating_sub(held);
        let acceptable = &input[..input.len().min(room)];
        if held == 0 {
            let end = self.scan.find_end(acceptable, limits)?;
            if end.is_none() {
                self.bytes.extend_from_slice(acceptable);
            }
            return Ok(end.map(|end| Head {
                bytes: &input[..end],
                consumed: end,
            }));
        }
        self.bytes.extend_from_slice(acceptable);
        let end = self.scan.find_end(&self.bytes, limits)?;
        Ok(end.map(|end| Head {
            bytes: &self.bytes[..end],
            consumed: end - held,
        }))
    }
}

/// How far the search for the empty line has come.
#[derive(Debug, Default)]
struct Scan {
    /// Where the unfinished line begins.
    line_start: usize,
    /// The first byte not looked at yet.
    next: usize,
}

impl Scan {
    /// The length of the head at the front of `bytes`, which begin with all the bytes of earlier calls.
    fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, BadHead> {
        if self.line_start == 0 {
            check_method(bytes)?;
        }
        while let Some(at) = bytes[self.next..].iter().position(|&b| b == b'\n') {
            let end = self.next + at + 1;
            let is_empty = self.end_line(&bytes[..end], limits)?;
            if is_empty {
                return Ok(Some(end));
            }
        }
        self.next = bytes.len();
        if self.line_start == 0 {
            check_line_length(bytes, limits)?;
        }
        if bytes.len() >= limits.head_bytes_max {
            return Err(BadHead::HeadTooLarge);
        }
        Ok(None)
    }

    /// Ends the line that ends `bytes`; whether it was the empty one.
    fn end_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, BadHead> {
        let line = &bytes[self.line_start..];
        if self.line_start == 0 {
            check_line_length(line, limits)?;
            check_request_line(line)?;
        }
        if !line.ends_with(b"\r\n") {
            return Err(BadHead::BareLineFeed);
        }
        self.line_start = bytes.len();
        self.next = bytes.len();
        Ok(line.len() == 2)
    }
}

/// Refuses what does not begin like a method: a TLS hello, a proxy line on the wrong port, noise.
///
/// An empty line in front, which RFC 9112, section 2.2, lets a server skip, is refused too: it is a leftover of
/// an earlier body, and here there is none.
fn check_method(bytes: &[u8]) -> Result<(), BadHead> {
    let start = &bytes[..bytes.len().min(METHOD_BYTES_MAX + 1)];
    let method = start.iter().position(|&b| b == b' ').unwrap_or(start.len());
    let is_method = (1..=METHOD_BYTES_MAX).contains(&method)
        && start[..method].iter().all(u8::is_ascii_uppercase);
    if is_method || bytes.is_empty() {
        return Ok(());
    }
    Err(BadHead::RequestLine)
}

fn check_line_length(line: &[u8], limits: &Limits) -> Result<(), BadHead> {
    if line.len() > limits.target_bytes_max + REQUEST_LINE_REST_BYTES {
        return Err(BadHead::TargetTooLong);
    }
    Ok(())
}

/// Parses the request line alone, so that a bad one is refused before the headers come.
fn check_request_line(line: &[u8]) -> Result<(), BadHead> {
    match Request::new(&mut []).parse(line) {
        Ok(_) => Ok(()),
        Err(Error::Version) if names_http(line) => Err(BadHead::Version),
        Err(_) => Err(BadHead::RequestLine),
    }
}

fn names_http(line: &[u8]) -> bool {
    let version = line.split(|&b| b == b' ').nth(2);
    version.is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Longer than any registered method that is sent to the root of an origin.
const METHOD_BYTES_MAX: usize = 16;

/// What a request line holds besides its target: method, two spaces, version, line end.
const REQUEST_LINE_REST_BYTES: usize = METHOD_BYTES_MAX + " HTTP/1.1\r\n".len() + 1;
