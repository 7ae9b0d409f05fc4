//! Frames to a device: one header, no mask, the shortest length.

use tungstenite::protocol::frame::FrameHeader;

use super::frame::{CONTROL_BYTES_MAX, Opcode};

/// The longest header of a frame to a device, in bytes: what to reserve in front of a payload.
pub const HEADER_BYTES_MAX: usize = 10;

/// Appends the header of a final frame. The caller appends exactly `length` bytes of payload after it, so an
/// envelope whose length is known is written where it leaves from.
pub fn encode_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    debug_assert!(
        !opcode.is_control() || length <= CONTROL_BYTES_MAX,
        "a control frame carries at most {CONTROL_BYTES_MAX} bytes"
    );
    let header = FrameHeader {
        opcode: opcode.into(),
        ..FrameHeader::default()
    };
    #[expect(clippy::expect_used, reason = "writing to a Vec cannot fail")]
    header
        .format(length as u64, out)
        .expect("a Vec takes every byte");
}

/// Appends a final frame with the given payload.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    encode_parts(opcode, &[payload], out);
}

/// Appends a final frame whose payload is the parts, one after the other: an envelope around bytes that are
/// copied once.
pub fn encode_parts(opcode: Opcode, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_BYTES_MAX + length);
    encode_header(opcode, length, out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a close frame with a code and a word, as [`CloseReason`](crate::base::close::CloseReason) has them.
/// A close without a payload is `encode(Opcode::Close, &[], out)`.
pub fn encode_close(code: u16, word: &str, out: &mut Vec<u8>) {
    encode_parts(Opcode::Close, &[&code.to_be_bytes(), word.as_bytes()], out);
}

/// Appends the answer to a close frame: it echoes the code, if there was one (RFC 6455, section 5.5.1).
pub fn encode_close_answer(code: Option<u16>, out: &mut Vec<u8>) {
    match code {
        Some(code) => encode_close(code, "", out),
        None => encode(Opcode::Close, &[], out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(opcode, payload, &mut out);
        out
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        let table: [(usize, &[u8]); 6] = [
            (0, &[0x82, 0]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 20, &[0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]),
        ];
        for (length, header) in table {
            let frame = encoded(Opcode::Binary, &vec![7; length]);
            assert_eq!(&frame[..header.len()], header, "{length}");
            assert_eq!(frame.len(), header.len() + length, "{length}");
        }
    }

    #[test]
    fn every_opcode_has_its_number() {
        let table = [
            (Opcode::Continuation, 0x80),
            (Opcode::Text, 0x81),
            (Opcode::Binary, 0x82),
            (Opcode::Close, 0x88),
            (Opcode::Ping, 0x89),
            (Opcode::Pong, 0x8a),
        ];
        for (opcode, first) in table {
            assert_eq!(encoded(opcode, b"x"), [first, 1, b'x'], "{opcode:?}");
        }
    }

    #[test]
    fn a_close_carries_code_and_word() {
        let mut out = b"before".to_vec();
        encode_close(4000, "drain", &mut out);
        assert_eq!(out, b"before\x88\x07\x0f\xa0drain");
    }
}
