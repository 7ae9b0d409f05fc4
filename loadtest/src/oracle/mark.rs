//! The mark a message carries through the server: who it is for, which one it is, when it was meant to leave.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::nanoseconds;
use crate::name::LineId;

/// What the sender writes into a message and the receiving line reads back, whatever the server wraps around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The line it is for.
    pub(crate) line: LineId,
    /// Its number among the messages for that line, from 0.
    pub(crate) sequence: u32,
    /// When it was meant to leave, in nanoseconds since the start of the run; 48 bits.
    pub(crate) intended_ns: u64,
}

/// The smallest body that holds a mark: a JSON string, so that every server passes it on as it is.
pub(crate) const BODY_BYTES_MIN: usize = TEXT_BYTES + 2;

/// Stands for all lines; no line has this number.
const EVERYBODY: LineId = LineId(u32::MAX);
/// Fences of the base64 text: a byte that ids, JSON and base64 do not use.
pub(crate) const FENCE: u8 = b'~';
const RAW_BYTES: usize = 15;
const BASE64_BYTES: usize = 20;
const TEXT_BYTES: usize = BASE64_BYTES + 2;

impl Mark {
    /// The mark of a broadcast: its number, from 0, and when it was meant to leave.
    pub(crate) fn for_everybody(number: u32, intended: Duration) -> Self {
        Self {
            line: EVERYBODY,
            sequence: number,
            intended_ns: nanoseconds(intended),
        }
    }

    /// Whether it is for all lines.
    pub(crate) fn is_for_everybody(self) -> bool {
        self.line == EVERYBODY
    }

    /// Fills `body` with a JSON string of `bytes` bytes that holds this mark, padded with dots.
    pub(crate) fn write_body(self, body: &mut Vec<u8>, bytes: usize) {
        body.clear();
        body.extend_from_slice(b"\"~");
        body.extend_from_slice(&self.encode());
        body.push(FENCE);
        body.resize(bytes.max(BODY_BYTES_MIN) - 1, b'.');
        body.push(b'"');
    }

    /// Finds the mark in a received message.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let start = memchr::memchr(FENCE, message)? + 1;
        let text = message.get(start..start + BASE64_BYTES)?;
        (message.get(start + BASE64_BYTES) == Some(&FENCE)).then_some(())?;
        Self::decode(text)
    }

    fn encode(self) -> [u8; BASE64_BYTES] {
        let mut raw = [0; RAW_BYTES];
        raw[0..4].copy_from_slice(&self.line.0.to_be_bytes());
        raw[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        raw[8..14].copy_from_slice(&self.intended_ns.to_be_bytes()[2..]);
        raw[14] = check(&raw);
        let mut text = [0; BASE64_BYTES];
        let length = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
        debug_assert_eq!(length, Ok(BASE64_BYTES));
        text
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let mut raw = [0; RAW_BYTES];
        URL_SAFE_NO_PAD
            .decode_slice_unchecked(text, &mut raw)
            .ok()?;
        let u32_at = |i: usize| u32::from_be_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]]);
        let intended_ns = raw[8..14].iter().fold(0, |ns, b| ns << 8 | u64::from(*b));
        (check(&raw) == raw[14]).then(|| Self {
            line: LineId(u32_at(0)),
            sequence: u32_at(4),
            intended_ns,
        })
    }
}

/// A byte over all others that any single changed byte changes.
fn check(raw: &[u8; RAW_BYTES]) -> u8 {
    raw[..RAW_BYTES - 1]
        .iter()
        .fold(0x5a, |sum: u8, b| sum.rotate_left(3) ^ b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        line: LineId(239_999),
        sequence: 77,
        intended_ns: 0x1234_5678_9abc,
    };

    fn body(bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        MARK.write_body(&mut body, bytes);
        body
    }

    #[test]
    fn a_mark_survives_any_wrapping() {
        for bytes in [0, BODY_BYTES_MIN, 100, 4096] {
            let wrapped = [b"{\"type\":\"message\",\"data\":", &body(bytes)[..], b"}"].concat();
            assert_eq!(Mark::find(&wrapped), Some(MARK));
            assert_eq!(body(bytes).len(), bytes.max(BODY_BYTES_MIN));
        }
    }

    #[test]
    fn a_body_is_json() {
        assert!(serde_json::from_slice::<String>(&body(64)).is_ok());
    }

    #[test]
    fn damage_is_noticed() {
        let good = body(BODY_BYTES_MIN);
        for i in 2..BODY_BYTES_MIN - 2 {
            let mut bad = good.clone();
            bad[i] = if bad[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(Mark::find(&bad), None, "byte {i}");
        }
        assert_eq!(Mark::find(&good[..20]), None);
        assert_eq!(Mark::find(b"{\"type\":\"welcome\"}"), None);
    }
}
