//! The strict reader in front of a lenient one: lets HTTP/1.1 requests through only if nobody can read them otherwise.
//!
//! hyper takes a bare line feed for a line end, `Transfer-Encoding` beside `Content-Length`, and a request without a
//! `Host`. A proxy in front may not, and what two readers cut differently hides a second request (RFC 9112, section
//! 11.2). So the bytes are framed here as well, by the letter, and the first request in doubt ends the connection.

use crate::head::buffer::HeadBuffer;
use crate::head::request::{BadHead, Limits, Request};

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub struct Guard {
    place: Place,
    head: HeadBuffer,
}

/// A request with a whole head, sound and of one length.
#[derive(Debug)]
pub struct Offer<'a> {
    /// Its head.
    pub request: Request<'a>,
    /// Bytes of its head.
    pub head_bytes: usize,
    /// Bytes of its body, 0 if it has none.
    pub body_bytes: usize,
    /// Its body, once all of it is there.
    pub body: Option<&'a [u8]>,
}

impl Offer<'_> {
    /// Bytes from the first of its head to the last of its body.
    pub fn whole_bytes(&self) -> usize {
        self.head_bytes.saturating_add(self.body_bytes)
    }
}

/// What becomes of a request that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None of it goes on. For one that is whole.
    Take,
    /// It is to be offered again with its body. For one that is not whole; it goes on all the same if its head came in
    /// pieces.
    Await,
    /// It goes on.
    Pass,
}

/// Where in its stream of requests a connection is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    /// In a head, whose bytes are held back until it is whole.
    #[default]
    Head,
    /// In a body of so many more bytes.
    Body(u64),
    /// In a chunked body.
    Chunk(ChunkPlace),
}

/// Where in a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkPlace {
    /// In the digits of a chunk's size: the size so far, and how many digits.
    Size(u64, u8),
    /// In an extension, which nobody here understands.
    Extension(u64),
    /// Before the line feed that ends the size line.
    SizeEnd(u64),
    /// In the data.
    Data(u64),
    /// Before the carriage return after the data.
    DataEnd,
    /// Before the line feed after the data.
    DataEndLine,
    /// At the start of a line after the last chunk.
    Trailer,
    /// Within a trailer field.
    TrailerField,
    /// Before the line feed of a trailer field.
    TrailerFieldEnd,
    /// Before the line feed that ends the body.
    End,
}

impl Guard {
    /// Takes bytes of the connection and appends those that may go on to `out`.
    ///
    /// # Errors
    /// [`BadHead`] for the first request that is malformed or ambiguous. Nothing after it may be read.
    pub fn receive(
        &mut self,
        mut input: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), BadHead> {
        while !input.is_empty() {
            let taken = self.receive_some(input, limits, out, |_| Choice::Pass)?;
            input = &input[taken..];
        }
        Ok(())
    }

    /// As [`Self::receive`], but no further than to the end of a request: how many bytes were taken. A request of known
    /// length is offered to `choose` first. None are taken of one that is awaited: it is to be given again, with more.
    ///
    /// # Errors
    /// As for [`Self::receive`].
    pub fn receive_some(
        &mut self,
        input: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
        choose: impl FnOnce(&Offer<'_>) -> Choice,
    ) -> Result<usize, BadHead> {
        let taken = match &mut self.place {
            Place::Head => {
                let Some(head) = self.head.receive(input, limits)? else {
                    return Ok(input.len());
                };
                let request = Request::parse(head.bytes, limits)?;
                let place = body_of(&request)?;
                let is_in_pieces = head.consumed < head.bytes.len();
                let offer = place.body_bytes().map(|body_bytes| Offer {
                    request,
                    head_bytes: head.bytes.len(),
                    body_bytes,
                    body: input[head.consumed..].get(..body_bytes),
                });
                let choice = offer.as_ref().map_or(Choice::Pass, choose);
                let body = offer.and_then(|offer| offer.body);
                let taken = match (choice, body) {
                    (Choice::Take, Some(body)) => head.consumed + body.len(),
                    (Choice::Await, None) if !is_in_pieces => 0,
                    _ => {
                        out.extend_from_slice(head.bytes);
                        self.place = place;
                        head.consumed
                    }
                };
                self.head = HeadBuffer::default();
                taken
            }
            Place::Body(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.place = Place::Head;
                }
                out.extend_from_slice(&input[..taken]);
                taken
            }
            Place::Chunk(at) => {
                let (taken, next) = chunk(*at, input)?;
                self.place = next.map_or(Place::Head, Place::Chunk);
                out.extend_from_slice(&input[..taken]);
                taken
            }
        };
        Ok(taken)
    }

    /// Whether the next byte belongs to a head.
    pub fn is_in_head(&self) -> bool {
        self.place == Place::Head
    }

    /// Whether the last request has arrived whole and no byte of another has come.
    pub fn is_between_requests(&self) -> bool {
        self.is_in_head() && self.head.is_empty()
    }
}

impl Place {
    /// Bytes of the body that follows a head, if that is known.
    fn body_bytes(&self) -> Option<usize> {
        match self {
            Self::Head => Some(0),
            Self::Body(length) => usize::try_from(*length).ok(),
            Self::Chunk(_) => None,
        }
    }
}

/// What follows a head, if everybody agrees on it.
fn body_of(request: &Request<'_>) -> Result<Place, BadHead> {
    let mut encodings = request.header_values("transfer-encoding");
    let (encoding, another) = (encodings.next(), encodings.next());
    let mut lengths = request.header_values("content-length");
    match (encoding, another, lengths.next()) {
        (None, _, None) => Ok(Place::Head),
        (None, _, Some(length)) => match length_of(length).ok_or(BadHead::Framing)? {
            0 => Ok(Place::Head),
            length => Ok(Place::Body(length)),
        },
        (Some(encoding), None, None)
            if encoding.eq_ignore_ascii_case(b"chunked") && request.minor_version() == 1 =>
        {
            Ok(Place::Chunk(ChunkPlace::Size(0, 0)))
        }
        _ => Err(BadHead::Framing),
    }
}

/// A length in digits only: no sign, no list, no overflow.
fn length_of(value: &[u8]) -> Option<u64> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_plain.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

/// Takes a step in a chunked body: how many bytes, and where that leads; `None` is the end of the body.
fn chunk(at: ChunkPlace, input: &[u8]) -> Result<(usize, Option<ChunkPlace>), BadHead> {
    use ChunkPlace as C;
    if let C::Data(left) = at {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let left = left - taken as u64;
        return Ok((
            taken,
            Some(if left == 0 { C::DataEnd } else { C::Data(left) }),
        ));
    }
    let byte = input[0];
    let next = match (at, byte) {
        (C::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
            if digits < SIZE_DIGITS_MAX =>
        {
            let digit = char::from(byte).to_digit(16).unwrap_or_default();
            C::Size(size << 4 | u64::from(digit), digits + 1)
        }
        (C::Size(size, 1..), b'\r') | (C::Extension(size), b'\r') => C::SizeEnd(size),
        (C::Size(size, 1..), b';') => C::Extension(size),
        (C::Extension(size), b' '..=b'~' | b'\t') => C::Extension(size),
        (C::SizeEnd(0), b'\n') | (C::TrailerFieldEnd, b'\n') => C::Trailer,
        (C::SizeEnd(size), b'\n') => C::Data(size),
        (C::DataEnd, b'\r') => C::DataEndLine,
        (C::DataEndLine, b'\n') => C::Size(0, 0),
        (C::Trailer, b'\r') => C::End,
        (C::Trailer | C::TrailerField, b'!'..=b'~') | (C::TrailerField, b' ' | b'\t') => {
            C::TrailerField
        }
        (C::TrailerField, b'\r') => C::TrailerFieldEnd,
        (C::End, b'\n') => return Ok((1, None)),
        _ => return Err(BadHead::Framing),
    };
    Ok((1, Some(next)))
}

/// Hexadecimal digits of a chunk's size: enough for any body that is taken, too few to overflow.
const SIZE_DIGITS_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        head_bytes_max: 8 * 1024,
        target_bytes_max: 2 * 1024,
    };

    fn guard(pieces: &[&[u8]]) -> Result<Vec<u8>, BadHead> {
        let mut guard = Guard::default();
        let mut out = Vec::new();
        for piece in pieces {
            guard.receive(piece, &LIMITS, &mut out)?;
        }
        Ok(out)
    }

    fn post(headers: &str, body: &str) -> Vec<u8> {
        format!("POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}").into_bytes()
    }

    #[test]
    fn sound_requests_pass_byte_for_byte() {
        for request in [
            post("", ""),
            post(
                "Content-Length: 3\r\n",
                "abcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            post(
                "Transfer-Encoding: chunked\r\n",
                "3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: v w\r\n\r\n",
            ),
        ] {
            assert_eq!(guard(&[&request]).as_deref(), Ok(&request[..]));
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_goes_no_further() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        for request in [
            post(
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: identity\r\n", ""),
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            post("Content-Length: +3\r\n", "abc"),
            post("Content-Length: 3, 3\r\n", "abc"),
            post("Content-Length: 99999999999999999999999\r\n", "abc"),
            post(chunked, "\r\n"),
            post(chunked, "0x3\r\nabc\r\n0\r\n\r\n"),
            post(chunked, "3\nabc\r\n0\r\n\r\n"),
            post(chunked, "3\r\nabcd\r\n0\r\n\r\n"),
            post(chunked, "fffffffff\r\n"),
            b"POST /x HTTP/1.1\nHost: a\n\n".to_vec(),
            b"GET /x HTTP/1.1\r\n\r\n".to_vec(),
            b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
            b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ] {
            assert!(
                guard(&[&request]).is_err(),
                "{}",
                String::from_utf8_lossy(&request)
            );
        }
    }

    /// What is passed on, and what is taken or awaited, when every other request is.
    fn take_every_other(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), BadHead> {
        let (mut guard, mut out, mut taken) = (Guard::default(), Vec::new(), Vec::new());
        let (mut number, mut held) = (0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                let was_in_head = guard.is_in_head();
                let n = guard.receive_some(&held, &LIMITS, &mut out, |offer| {
                    let Some(body) = offer.body.filter(|_| number % 2 == 0) else {
                        return [Choice::Await, Choice::Pass][number % 2];
                    };
                    taken.extend_from_slice(body);
                    Choice::Take
                })?;
                if n == 0 {
                    break;
                }
                held.drain(..n);
                number += usize::from(was_in_head && guard.is_between_requests());
            }
        }
        Ok((out, taken))
    }

    #[test]
    fn what_is_taken_whole_does_not_go_on() {
        let (first, second) = (post("Content-Length: 3\r\n", "abc"), post("", ""));
        let third = post("Content-Length: 2\r\n", "de");
        let stream = [&first[..], &second, &third].concat();
        let (out, taken) = take_every_other(&[&stream]).unwrap();
        assert_eq!((out, &taken[..]), (second, &b"abcde"[..]));
        // A body that is not there yet is awaited, but behind a head in pieces it goes on, as a chunked one does.
        let (out, taken) = take_every_other(&[&first[..first.len() - 1], b"c"]).unwrap();
        assert_eq!((out, &taken[..]), (Vec::new(), &b"abc"[..]));
        let (out, taken) =
            take_every_other(&[&first[..9], &first[9..first.len() - 1], b"c"]).unwrap();
        assert_eq!((out, taken), (first, Vec::new()));
        let chunked = post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
        let (out, _) = take_every_other(&[&chunked]).unwrap();
        assert_eq!(out, chunked);
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(bytes in prop::collection::vec(prop::sample::select(&b"POST /x HTTP/1.1\r\n0aHost: Content-Length3;"[..]), 0..200), cut in 0_usize..200) {
            let sound = post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
            let stream = [sound, bytes].concat();
            let cut = cut.min(stream.len());
            prop_assert_eq!(guard(&[&stream]), guard(&[&stream[..cut], &stream[cut..]]));
        }
    }
}
