//! What comes back on a sending WebSocket: a welcome, then replies in any order.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::oracle::Answer;

/// A frame from the server, as far as a sender cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The first one.
    Welcome {
        /// How many messages may wait for their replies, if the server says so.
        window: Option<u32>,
    },
    /// The answer to a message.
    Reply {
        /// The id the message was sent with; `None` for one that was never given.
        id: Option<u64>,
        /// What it says about the message.
        answer: Answer,
        /// How it says it.
        word: Cow<'a, str>,
    },
    /// Something that answers nothing: a go-away, a message.
    Other,
}

impl<'a> Frame<'a> {
    /// Reads a frame; `None` if it is not JSON of the known shapes.
    pub(super) fn decode(text: &'a [u8]) -> Option<Self> {
        let fields: Fields<'a> = serde_json::from_slice(text).ok()?;
        let kind = fields.r#type.as_deref();
        if kind == Some("welcome") {
            return Some(Self::Welcome {
                window: fields.window,
            });
        }
        let (answer, word) = match (fields.error, fields.result) {
            (Some(error), _) => (refusal(&error.code), error.code),
            (None, Some(result)) => (outcome(&result), result),
            (None, None) => return Some(Self::Other),
        };
        let id = fields.id.map_or("", RawValue::get).trim_matches('"');
        Some(Self::Reply {
            id: id.parse().ok(),
            answer,
            word,
        })
    }
}

/// The union of all frames' fields; replies name no type on streams.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<Refusal<'a>>,
    #[serde(default)]
    window: Option<u32>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// What a result promises.
fn outcome(result: &str) -> Answer {
    match result {
        "queued" | "stored" | "written" | "acked" | "enqueued" => Answer::Accepted,
        "timeout" | "unknown" => Answer::Unknown,
        _ => Answer::Refused,
    }
}

/// Some errors come when the message may be on its way already.
fn refusal(code: &str) -> Answer {
    match code {
        "internal" | "timeout" | "ack_timeout" => Answer::Unknown,
        _ => Answer::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u64, answer: Answer, word: &str) -> Option<Frame<'_>> {
        let (id, word) = (Some(id), word.into());
        Some(Frame::Reply { id, answer, word })
    }

    #[test]
    fn replies_are_read_with_and_without_a_type() {
        let device = br#"{"type":"reply","id":"7","message_id":"m","result":"written","level":"written","latency_ms":0}"#;
        assert_eq!(Frame::decode(device), reply(7, Answer::Accepted, "written"));
        let stream = br#"{"id":8,"result":"timeout","level":"queued"}"#;
        assert_eq!(Frame::decode(stream), reply(8, Answer::Unknown, "timeout"));
        assert_eq!(
            Frame::decode(br#"{"id":"9","result":"offline"}"#),
            reply(9, Answer::Refused, "offline")
        );
    }

    #[test]
    fn an_error_refuses_unless_it_came_too_late_for_that() {
        let text = br#"{"type":"error","id":"3","error":{"code":"target_unavailable","message":"","retryable":false}}"#;
        assert_eq!(
            Frame::decode(text),
            reply(3, Answer::Refused, "target_unavailable")
        );
        let text = br#"{"type":"reply","id":"3","result":"written","error":{"code":"internal"}}"#;
        assert_eq!(Frame::decode(text), reply(3, Answer::Unknown, "internal"));
    }

    #[test]
    fn an_answer_to_nothing_has_no_id() {
        for text in [
            r#"{"id":"x","result":"written"}"#,
            r#"{"result":"written"}"#,
        ] {
            let frame = Frame::decode(text.as_bytes());
            assert!(
                matches!(frame, Some(Frame::Reply { id: None, .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_welcome_may_announce_a_window() {
        let welcome = |text: &'static str| Frame::decode(text.as_bytes());
        let window = Some(256);
        assert_eq!(
            welcome(r#"{"type":"welcome","window":256,"node_id":"n"}"#),
            Some(Frame::Welcome { window })
        );
        assert_eq!(
            welcome(r#"{"type":"welcome"}"#),
            Some(Frame::Welcome { window: None })
        );
    }

    #[test]
    fn other_frames_answer_nothing_and_noise_is_no_frame() {
        assert_eq!(Frame::decode(br#"{"type":"goaway"}"#), Some(Frame::Other));
        for noise in ["", "[", "\"~x~\"", r#"{"error":7}"#] {
            assert_eq!(Frame::decode(noise.as_bytes()), None, "{noise}");
        }
    }
}
