//! One frame header: what RFC 6455, section 5.2, lets a device send.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::violation::Violation;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The last frame of a side.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

/// How much a device may send. The configuration has the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a message, over all its fragments.
    pub message_bytes_max: usize,
    /// Most frames of a message; empty ones count.
    pub fragments_max: u32,
}

/// The header of a frame that is legal by itself and within the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    /// Bytes of payload.
    pub(super) length: usize,
}

impl Frame {
    /// The longest header: two bytes, a 64-bit length, the mask.
    pub(super) const HEADER_BYTES_MAX: usize = 14;

    /// Reads a header at the front of `bytes`, and how long it is; `None` while bytes of it are missing.
    pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<(Self, usize)>, Violation> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::ReservedOpcode)?;
        let Some((header, length)) = parsed else {
            return Ok(None);
        };
        let mask = header.mask.ok_or(Violation::Unmasked)?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        let header_bytes = header.len(length);
        if cursor.position() != header_bytes as u64 {
            return Err(Violation::LengthNotMinimal);
        }
        let opcode = Opcode::try_from(header.opcode)?;
        let frame = Self {
            opcode,
            is_final: header.is_final,
            mask,
            length: check_length(opcode, length, limits)?,
        };
        if opcode.is_control() && !frame.is_final {
            return Err(Violation::FragmentedControl);
        }
        Ok(Some((frame, header_bytes)))
    }

    /// Whether the frame is an event of its own: not a fragment.
    pub(super) fn stands_alone(&self) -> bool {
        self.is_final && self.opcode != Opcode::Continuation
    }
}

impl Opcode {
    /// Whether frames of this kind may come between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl TryFrom<OpCode> for Opcode {
    type Error = Violation;

    fn try_from(opcode: OpCode) -> Result<Self, Violation> {
        match opcode {
            OpCode::Data(Data::Continue) => Ok(Self::Continuation),
            OpCode::Data(Data::Text) => Ok(Self::Text),
            OpCode::Data(Data::Binary) => Ok(Self::Binary),
            OpCode::Control(Control::Close) => Ok(Self::Close),
            OpCode::Control(Control::Ping) => Ok(Self::Ping),
            OpCode::Control(Control::Pong) => Ok(Self::Pong),
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                Err(Violation::ReservedOpcode)
            }
        }
    }
}

impl From<Opcode> for OpCode {
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Continuation => Self::Data(Data::Continue),
            Opcode::Text => Self::Data(Data::Text),
            Opcode::Binary => Self::Data(Data::Binary),
            Opcode::Close => Self::Control(Control::Close),
            Opcode::Ping => Self::Control(Control::Ping),
            Opcode::Pong => Self::Control(Control::Pong),
        }
    }
}

/// Compares the declared length as the `u64` it is, before anything is added to it or allocated by it.
fn check_length(opcode: Opcode, length: u64, limits: &Limits) -> Result<usize, Violation> {
    if length > u64::MAX / 2 {
        return Err(Violation::LengthTopBit);
    }
    let (max, violation) = if opcode.is_control() {
        (CONTROL_BYTES_MAX, Violation::LongControl)
    } else {
        (limits.message_bytes_max, Violation::MessageTooBig)
    };
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= max)
        .ok_or(violation)
}

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;
