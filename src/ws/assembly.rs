//! What a connection holds while a frame or a fragmented message is incomplete.

use std::mem;

use super::frame::{Frame, Limits, Opcode};
use super::mask;
use super::utf8::Utf8Stream;
use super::violation::Violation;

/// The incomplete part of a connection's input. It grows with bytes received, never with a length declared.
#[derive(Debug)]
pub(super) struct Assembly {
    since_ms: u64,
    header: [u8; Frame::HEADER_BYTES_MAX],
    header_bytes: usize,
    frame: Option<PartialFrame>,
    message: Option<PartialMessage>,
    control: Vec<u8>,
}

/// A finished message or control frame, out of several pieces.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct PartialFrame {
    frame: Frame,
    received: usize,
}

#[derive(Debug)]
struct PartialMessage {
    opcode: Opcode,
    fragments: u32,
    payload: Vec<u8>,
    utf8: Utf8Stream,
}

impl Assembly {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            header: [0; Frame::HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// When its first byte came.
    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Whether nothing is incomplete.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_inside_frame() && self.message.is_none()
    }

    /// Whether the next byte belongs to a frame of which some already came.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.header_bytes > 0 || self.frame.is_some()
    }

    /// Takes bytes of the frame from the front of `input`: how many, and what they completed.
    pub(super) fn receive(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Assembled>), Violation> {
        let header = if self.frame.is_none() {
            self.receive_header(input, limits)?
        } else {
            0
        };
        let (payload, assembled) = self.receive_payload(&mut input[header..])?;
        Ok((header + payload, assembled))
    }

    /// Opens a frame whose payload comes next, if it may follow what came before.
    pub(super) fn open(&mut self, frame: Frame, limits: &Limits) -> Result<(), Violation> {
        match (frame.opcode, &mut self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => (),
            (Opcode::Continuation, None) => return Err(Violation::ContinuationWithoutStart),
            (Opcode::Continuation, Some(message)) => message.add_fragment(&frame, limits)?,
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::MessageInsideMessage);
            }
            (opcode @ (Opcode::Text | Opcode::Binary), message @ None) => {
                *message = Some(PartialMessage::new(opcode));
            }
        }
        self.frame = Some(PartialFrame { frame, received: 0 });
        Ok(())
    }

    /// Takes bytes until the header is whole, and opens its frame then.
    fn receive_header(&mut self, input: &[u8], limits: &Limits) -> Result<usize, Violation> {
        let held = self.header_bytes;
        let taken = input.len().min(self.header.len() - held);
        self.header[held..held + taken].copy_from_slice(&input[..taken]);
        match Frame::parse(&self.header[..held + taken], limits)? {
            None => {
                self.header_bytes += taken;
                Ok(taken)
            }
            Some((frame, header_bytes)) => {
                self.open(frame, limits)?;
                self.header_bytes = 0;
                Ok(header_bytes - held)
            }
        }
    }

    fn receive_payload(
        &mut self,
        input: &mut [u8],
    ) -> Result<(usize, Option<Assembled>), Violation> {
        let Some(PartialFrame { frame, received }) = &mut self.frame else {
            return Ok((0, None));
        };
        let frame = *frame;
        let taken = input.len().min(frame.length - *received);
        let piece = &mut input[..taken];
        mask::apply(piece, frame.mask, *received);
        *received += taken;
        let is_complete = *received == frame.length;
        match &mut self.message {
            Some(message) if !frame.opcode.is_control() => message.push(piece)?,
            _ => self.control.extend_from_slice(piece),
        }
        let assembled = is_complete.then(|| self.close(frame)).flatten();
        Ok((taken, assembled))
    }

    /// Ends a frame whose payload is whole; the last frame of a message yields the message.
    fn close(&mut self, frame: Frame) -> Option<Assembled> {
        self.frame = None;
        if frame.opcode.is_control() {
            let payload = mem::take(&mut self.control);
            let opcode = frame.opcode;
            return Some(Assembled { opcode, payload });
        }
        let PartialMessage {
            opcode, payload, ..
        } = self.message.take_if(|_| frame.is_final)?;
        Some(Assembled { opcode, payload })
    }
}

impl PartialMessage {
    fn new(opcode: Opcode) -> Self {
        Self {
            opcode,
            fragments: 1,
            payload: Vec::new(),
            utf8: Utf8Stream::default(),
        }
    }

    fn add_fragment(&mut self, frame: &Frame, limits: &Limits) -> Result<(), Violation> {
        if self.fragments >= limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        let room = limits.message_bytes_max.saturating_sub(self.payload.len());
        if frame.length > room {
            return Err(Violation::MessageTooBig);
        }
        self.fragments += 1;
        Ok(())
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        if self.opcode == Opcode::Text {
            self.utf8.feed(piece).map_err(|_| Violation::InvalidUtf8)?;
        }
        self.payload.extend_from_slice(piece);
        Ok(())
    }
}
