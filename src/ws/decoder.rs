//! Bytes from a device into events.

use std::borrow::Cow;
use std::ops::Range;

use tungstenite::protocol::frame::coding::CloseCode;

use super::assembly::{Assembled, Assembly};
use super::frame::{Frame, Limits, Opcode};
use super::mask;
use super::violation::Violation;

/// The decoding state of one connection: eight bytes, and nothing behind them while no frame or fragmented
/// message is incomplete.
#[derive(Debug, Default)]
pub struct Decoder(Option<Box<Assembly>>);

/// What one call of [`Decoder::decode`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Bytes taken from the front of the input.
    pub consumed: usize,
    /// What they completed. `None` means that all of the input was consumed and more is needed.
    pub event: Option<Event<'a>>,
}

/// A message or control frame from a device: borrowed from the input if it came whole, else owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered by a pong with the same payload, at most 125 bytes.
    Ping(Cow<'a, [u8]>),
    /// A pong, asked for or not, at most 125 bytes.
    Pong(Cow<'a, [u8]>),
    /// The device closes; without a payload it says no more than that.
    Close(Option<CloseFrame<'a>>),
}

/// The payload of a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code that RFC 6455, section 7.4, allows on the wire.
    pub code: u16,
    /// The device's words, at most 123 bytes; often empty.
    pub reason: Cow<'a, str>,
}

impl Decoder {
    /// Takes bytes from the front of `input` until an event is complete or the input is used up.
    ///
    /// The caller goes on with the rest until the event is `None`. A frame that lies whole in `input` is unmasked
    /// there and borrowed. `now_ms` is only remembered, for [`Decoder::incomplete_since`].
    ///
    /// # Errors
    ///
    /// The first [`Violation`] in the input, as early as its bytes show it. The connection must be closed: the
    /// decoder has lost its place and is not called again.
    pub fn decode<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Decoded<'a>, Violation> {
        let mut consumed = 0;
        while consumed < input.len() {
            let (taken, finished) = self.advance(&mut input[consumed..], limits, now_ms)?;
            self.free_if_empty();
            if let Some(finished) = finished {
                let input: &'a [u8] = &input[consumed..];
                consumed += taken;
                let event = Some(finished.into_event(input)?);
                return Ok(Decoded { consumed, event });
            }
            consumed += taken;
        }
        Ok(Decoded {
            consumed,
            event: None,
        })
    }

    /// When the first byte of what is still incomplete came, in the clock of `decode`; `None` when nothing is.
    pub fn incomplete_since(&self) -> Option<u64> {
        self.0.as_ref().map(|assembly| assembly.since_ms())
    }

    /// Goes on by at most one frame.
    fn advance(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        now_ms: u64,
    ) -> Result<(usize, Option<Finished>), Violation> {
        if let Some(assembly) = self.0.as_deref_mut().filter(|a| a.is_inside_frame()) {
            return receive(assembly, input, limits);
        }
        let Some((frame, header_bytes)) = Frame::parse(input, limits)? else {
            return receive(self.assembly(now_ms), input, limits);
        };
        let is_whole = input.len() - header_bytes >= frame.length;
        let interrupts_nothing = frame.opcode.is_control() || self.0.is_none();
        if is_whole && frame.stands_alone() && interrupts_nothing {
            let payload = header_bytes..header_bytes + frame.length;
            mask::apply(&mut input[payload.clone()], frame.mask, 0);
            return Ok((payload.end, Some(Finished::Whole(frame.opcode, payload))));
        }
        let assembly = self.assembly(now_ms);
        assembly.open(frame, limits)?;
        let (taken, finished) = receive(assembly, &mut input[header_bytes..], limits)?;
        Ok((header_bytes + taken, finished))
    }

    fn assembly(&mut self, now_ms: u64) -> &mut Assembly {
        self.0
            .get_or_insert_with(|| Box::new(Assembly::new(now_ms)))
    }

    fn free_if_empty(&mut self) {
        self.0.take_if(|assembly| assembly.is_empty());
    }
}

/// A finished message or control frame.
enum Finished {
    /// Its payload, unmasked, is this range of the input.
    Whole(Opcode, Range<usize>),
    /// It came in pieces.
    Assembled(Assembled),
}

impl Finished {
    fn into_event(self, input: &[u8]) -> Result<Event<'_>, Violation> {
        let (opcode, payload) = match self {
            Self::Whole(opcode, range) => (opcode, Cow::Borrowed(&input[range])),
            Self::Assembled(Assembled { opcode, payload }) => (opcode, Cow::Owned(payload)),
        };
        Ok(match opcode {
            Opcode::Text => Event::Text(text(payload)?),
            // A finished message has the opcode of its first frame, so no event is a continuation.
            Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Close => Event::Close(CloseFrame::parse(payload)?),
        })
    }
}

impl<'a> CloseFrame<'a> {
    fn parse(mut payload: Cow<'a, [u8]>) -> Result<Option<Self>, Violation> {
        let code = match *payload {
            [] => return Ok(None),
            [_] => return Err(Violation::ClosePayloadOfOneByte),
            [high, low, ..] => u16::from_be_bytes([high, low]),
        };
        if !is_close_code(code) {
            return Err(Violation::CloseCode);
        }
        payload = match payload {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[2..]),
            Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(2)),
        };
        Ok(Some(Self {
            code,
            reason: text(payload)?,
        }))
    }
}

fn receive(
    assembly: &mut Assembly,
    input: &mut [u8],
    limits: &Limits,
) -> Result<(usize, Option<Finished>), Violation> {
    let (taken, assembled) = assembly.receive(input, limits)?;
    Ok((taken, assembled.map(Finished::Assembled)))
}

/// Assembled text was checked while it came; the second pass here is what makes it a `String` without `unsafe`.
fn text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Violation> {
    match bytes {
        Cow::Borrowed(bytes) => simdutf8::basic::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|_| Violation::InvalidUtf8),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|_| Violation::InvalidUtf8),
    }
}

/// Whether a device may send the code. 1014 (bad gateway) is in the registry of RFC 6455 but newer than tungstenite's list.
fn is_close_code(code: u16) -> bool {
    code == 1014 || CloseCode::from(code).is_allowed()
}

const _: () = assert!(size_of::<Decoder>() == 8);
