//! What a device can do wrong on the wire, and the close reason each wrong has.

use crate::base::close::CloseReason;

/// A frame that RFC 6455 or our limits refuse. The connection ends with [`Violation::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A frame without a mask (section 5.1).
    Unmasked,
    /// A reserved bit is set though no extension was negotiated (section 5.2).
    ReservedBits,
    /// An opcode without a meaning (section 5.2).
    ReservedOpcode,
    /// A control frame without FIN (section 5.5).
    FragmentedControl,
    /// A control frame over 125 bytes (section 5.5).
    LongControl,
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A 64-bit length with its top bit set (section 5.2).
    LengthTopBit,
    /// A continuation while no message is open (section 5.4).
    ContinuationWithoutStart,
    /// A new message while another one is open (section 5.4).
    MessageInsideMessage,
    /// A close frame with a payload of one byte (section 5.5.1).
    ClosePayloadOfOneByte,
    /// A close code that must not be on the wire (section 7.4).
    CloseCode,
    /// Text, or the reason of a close, that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A message, or the length a header declares, over `message_bytes_max`.
    MessageTooBig,
    /// A message in more than `fragments_max` frames.
    TooManyFragments,
}

impl Violation {
    /// Why the connection ends.
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode
            | Self::FragmentedControl
            | Self::LongControl
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ContinuationWithoutStart
            | Self::MessageInsideMessage
            | Self::ClosePayloadOfOneByte
            | Self::CloseCode => CloseReason::ProtocolError,
            Self::InvalidUtf8 => CloseReason::InvalidPayload,
            Self::MessageTooBig => CloseReason::MessageTooBig,
            Self::TooManyFragments => CloseReason::PolicyViolation,
        }
    }
}
