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

/// Stands for all lines: above the numbers that runs give, and below those of lines beside a run's own.
const EVERYBODY: LineId = LineId(u32::MAX / 2);
/// Fences of the base64 text: a byte that ids, JSON and base64 do not use.
pub(crate) const FENCE: u8 = b'~';
/// What makes a body as long as it has to be.
const PADDING: u8 = b'.';
const RAW_BYTES: usize = 15;
const BASE64_BYTES: usize = 20;
const TEXT_BYTES: usize = BASE64_BYTES + 2;

impl Mark {
    /// The mark of a broadcast: `run` tells those of runs side by side apart, `number` counts from 0.
    pub(crate) fn for_everybody(run: u16, number: u16, intended: Duration) -> Self {
        Self {
            line: EVERYBODY,
            sequence: u32::from(run) << 16 | u32::from(number),
            intended_ns: nanoseconds(intended),
        }
    }

    /// The mark as a line takes it that gets the broadcasts of `run`: one of these is as if for this line alone. `None` if it
    /// is another run's.
    pub(crate) fn heard_by(self, line: LineId, run: Option<u16>) -> Option<Self> {
        if self.line != EVERYBODY {
            return Some(self);
        }
        let [high, low, number @ ..] = self.sequence.to_be_bytes();
        let is_own = run == Some(u16::from_be_bytes([high, low]));
        is_own.then(|| Self {
            line,
            sequence: u16::from_be_bytes(number).into(),
            ..self
        })
    }

    /// Fills `body` with a JSON string of `bytes` bytes that holds this mark, padded with dots.
    pub(crate) fn write_body(self, body: &mut Vec<u8>, bytes: usize) {
        body.clear();
        body.extend_from_slice(b"\"~");
        body.extend_from_slice(&self.encode());
        body.push(FENCE);
        body.resize(bytes.max(BODY_BYTES_MIN) - 1, PADDING);
        body.push(b'"');
    }

    /// Finds the mark in a received message; a body that is not as it was written has none.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let start = memchr::memchr(FENCE, message)? + 1;
        let (text, rest) = message[start..].split_at_checked(BASE64_BYTES)?;
        let padding = rest.strip_prefix(&[FENCE])?;
        let end = padding.iter().position(|byte| *byte != PADDING);
        // A quote within a string within a string is escaped; a server may also have taken off the quotes.
        let is_whole = end.is_none_or(|end| b"\"\\".contains(&padding[end]));
        is_whole.then(|| Self::decode(text))?
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

    #[test]
    fn a_broadcast_is_for_every_line_of_its_run_and_no_other() {
        let (line, at) = (LineId(7), Duration::from_millis(3));
        let mut body = Vec::new();
        Mark::for_everybody(65_000, 2, at).write_body(&mut body, 40);
        let mark = Mark::find(&body).unwrap();
        let heard = Mark {
            line,
            sequence: 2,
            intended_ns: 3_000_000,
        };
        assert_eq!(mark.heard_by(line, Some(65_000)), Some(heard));
        assert_eq!(mark.heard_by(line, Some(64_999)), None);
        assert_eq!(mark.heard_by(line, None), None);
        assert_eq!(heard.heard_by(LineId(8), Some(65_000)), Some(heard));
    }

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
    fn damage_behind_the_mark_is_noticed_and_quotes_are_not_part_of_it() {
        let good = body(64);
        for i in BODY_BYTES_MIN - 1..63 {
            let mut bad = good.clone();
            bad[i] = b',';
            assert_eq!(Mark::find(&bad), None, "byte {i}");
        }
        let escaped = [b"\"\\", &good[..63], b"\\\"\""].concat();
        assert_eq!(Mark::find(&escaped), Some(MARK));
        assert_eq!(Mark::find(&good[1..63]), Some(MARK));
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
