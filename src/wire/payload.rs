//! What a message carries: opaque bytes, and how they appear to each kind of line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The bytes of a message, classified once where they enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bytes as the sender meant them: base64 is already undone.
    pub bytes: Bytes,
    /// How they appear inside JSON.
    pub form: Form,
}

/// How a payload appears inside a JSON frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON value, sent on as it came: `"data":{"hi":1}`.
    Json,
    /// Other UTF-8, as a JSON string: `"data":"hi"`.
    Text,
    /// Other bytes, in base64: `"data_b64":"…"`.
    Binary,
}

impl Payload {
    /// Classifies a plain body: valid JSON, other UTF-8, or bytes.
    pub fn from_plain(bytes: Bytes) -> Self {
        let form = match simdutf8::basic::from_utf8(&bytes) {
            Ok(text) if is_json(text) => Form::Json,
            Ok(_) => Form::Text,
            Err(_) => Form::Binary,
        };
        Self { bytes, form }
    }

    /// Whether a raw line gets it as a text frame; otherwise it goes out as a binary one.
    pub fn is_text(&self) -> bool {
        self.form != Form::Binary || simdutf8::basic::from_utf8(&self.bytes).is_ok()
    }

    /// Appends the `"data":…` or `"data_b64":…` member of a JSON object.
    pub fn encode_member(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Json => {
                out.extend_from_slice(b"\"data\":");
                out.extend_from_slice(&self.bytes);
            }
            Form::Text => {
                out.extend_from_slice(b"\"data\":");
                encode_string(&String::from_utf8_lossy(&self.bytes), out);
            }
            Form::Binary => {
                out.extend_from_slice(b"\"data_b64\":\"");
                encode_base64(&self.bytes, out);
                out.push(b'"');
            }
        }
    }
}

/// Appends a JSON string literal, quotes included.
pub fn encode_string(text: &str, out: &mut Vec<u8>) {
    // Writing a string into a Vec has no way to fail.
    serde_json::to_writer(out, text).ok();
}

/// Appends a number.
pub fn encode_number(number: u64, out: &mut Vec<u8>) {
    // Writing a number into a Vec has no way to fail.
    serde_json::to_writer(out, &number).ok();
}

fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice has exactly the room that padded base64 takes.
    STANDARD.encode_slice(bytes, &mut out[start..]).ok();
}

/// Whether the text is one JSON value, checked without building it and without recursing past serde_json's 128.
fn is_json(text: &str) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    IgnoredAny::deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(bytes: &'static [u8]) -> String {
        let mut out = Vec::new();
        Payload::from_plain(Bytes::from_static(bytes)).encode_member(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_body_is_classified_by_what_it_is() {
        assert_eq!(member(br#"{"hi": 1}"#), r#""data":{"hi": 1}"#);
        assert_eq!(member(b"17"), r#""data":17"#);
        assert_eq!(member(b"hello \"you\"\n"), r#""data":"hello \"you\"\n""#);
        assert_eq!(member(b"\xff\x00"), r#""data_b64":"/wA=""#);
        assert_eq!(member(b""), r#""data":"""#);
        assert_eq!(member(b"{} {}"), r#""data":"{} {}""#);
    }

    #[test]
    fn deep_nesting_is_text_and_costs_no_stack() {
        let deep = Bytes::from("[".repeat(100_000));
        assert_eq!(Payload::from_plain(deep).form, Form::Text);
    }
}
