//! A batch of messages: bodies in and out.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::wire::api::{ErrorDetail, SendResult, decode_object};
use crate::wire::envelope::Envelope;
use crate::wire::error::ErrorCode;

/// Messages to be sent in this order, each to its own target.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch<'a> {
    /// The messages. One that is wrong fails alone.
    #[serde(borrow)]
    #[schema(value_type = Vec<BatchMessage<'_>>)]
    messages: Vec<&'a RawValue>,
}

/// A message of a batch: an envelope with its target.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "the envelope reads `to`; this is its documentation"
)]
pub struct BatchMessage<'a> {
    /// Whom it is for.
    to: Target,
    #[schema(inline)]
    #[serde(flatten)]
    envelope: Envelope<'a>,
}

/// Whom a message is for.
#[derive(Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A device's id.
    pub device: String,
}

/// The answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResult {
    /// What each message would have been answered by itself, in the order of the batch.
    pub results: Vec<BatchReply>,
}

/// What became of one message of a batch: the fields of a result, or `error`.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchReply {
    /// The HTTP status the message would have been answered with by itself.
    pub status: u16,
    /// The result, when there is one.
    #[serde(flatten)]
    pub result: Option<SendResult>,
    /// What went wrong otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

impl Batch<'_> {
    /// Cuts the body of a batch into its messages, which are not looked into yet.
    ///
    /// # Errors
    /// What is wrong with the batch as a whole.
    pub fn split(body: &Bytes, messages_max: u32) -> Result<Vec<Bytes>, (ErrorCode, String)> {
        let batch: Batch<'_> = decode_object(body)?;
        let messages = batch.messages;
        if messages.len() > messages_max as usize {
            let count = messages.len();
            let cause =
                format!("{count} messages are over api.batch_messages_max ({messages_max})");
            return Err((ErrorCode::PayloadTooLarge, cause));
        }
        let slice = |message: &RawValue| body.slice_ref(message.get().as_bytes());
        Ok(messages.into_iter().map(slice).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &'static str) -> Result<Vec<Bytes>, ErrorCode> {
        Batch::split(&Bytes::from_static(text.as_bytes()), 2).map_err(|(code, _)| code)
    }

    #[test]
    fn a_batch_is_cut_without_a_look_into_its_messages() {
        assert_eq!(split(r#"{"messages":[]}"#).unwrap(), [""; 0]);
        assert_eq!(
            split(r#"{"messages":[{"to": 7}, "no"]}"#).unwrap(),
            [r#"{"to": 7}"#, r#""no""#]
        );
    }

    #[test]
    fn a_batch_that_makes_no_sense_names_its_fault() {
        for (text, code) in [
            ("", ErrorCode::InvalidBody),
            ("{}", ErrorCode::InvalidBody),
            ("[1]", ErrorCode::InvalidBody),
            (r#"{"messages":{}}"#, ErrorCode::InvalidBody),
            (r#"{"messages":[1}"#, ErrorCode::InvalidBody),
            (r#"{"messages":[],"wait":"acked"}"#, ErrorCode::UnknownField),
            (r#"{"messages":[1,2,3]}"#, ErrorCode::PayloadTooLarge),
        ] {
            assert_eq!(split(text).unwrap_err(), code, "{text}");
        }
    }
}
