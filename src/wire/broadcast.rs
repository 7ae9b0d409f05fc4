//! Bodies of the broadcast calls: one message for all lines of a node, and how far it has come.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::wire::api::decode_object;
use crate::wire::envelope::{SendRequest, check_idempotency_key, payload, present};
use crate::wire::error::ErrorCode;
use crate::wire::payload::Payload;

/// A message and whom it is for: the body of type `application/json`. One of `data` and `data_b64` is required.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BroadcastEnvelope<'a> {
    /// Any JSON value; it arrives as it was sent.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Bytes, in base64.
    #[serde(default)]
    data_b64: Option<String>,
    /// Only lines whose token has all of these labels: at most 8.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Only lines of this sub-protocol.
    #[serde(default)]
    protocol: Option<LineProtocol>,
    /// For how long after acceptance the message may still be written, in milliseconds.
    #[serde(default)]
    ttl_ms: Option<u64>,
    /// 1 to 255 visible ASCII characters: the same request with the same key is carried out once.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A sub-protocol of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum LineProtocol {
    /// Messages in JSON frames.
    #[serde(rename = "tautline.v1.json")]
    Json,
    /// Payloads as frames.
    #[serde(rename = "tautline.v1.raw")]
    Raw,
}

/// Which of a node's lines a broadcast is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audience {
    /// Lines that have all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    /// Lines of this sub-protocol.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protocol: Option<LineProtocol>,
}

/// What a back end asks to be sent to all lines.
#[derive(Clone, Debug)]
pub struct BroadcastRequest {
    /// The message with its options.
    pub message: SendRequest,
    /// Whom it is for.
    pub audience: Audience,
}

impl BroadcastRequest {
    /// Decodes the body of type `application/json`: always the envelope.
    ///
    /// # Errors
    /// `invalid_body` or `unknown_field`, with what is wrong and where.
    pub fn from_envelope(body: &Bytes) -> Result<Self, (ErrorCode, String)> {
        let envelope: BroadcastEnvelope<'_> = decode_object(body)?;
        let wrong = |cause: &str| Err((ErrorCode::InvalidBody, cause.to_owned()));
        if envelope.labels.len() > LABELS_MAX {
            return wrong("a line has at most 8 labels");
        }
        if let Some(key) = &envelope.idempotency_key
            && let Err(fault) = check_idempotency_key(key)
        {
            return wrong(fault);
        }
        let copy = |data: &[u8]| body.slice_ref(data);
        let payload = payload(envelope.data, envelope.data_b64.as_deref(), copy)?;
        let message = SendRequest {
            ttl_ms: envelope.ttl_ms,
            idempotency_key: envelope.idempotency_key,
            ..SendRequest::plain(payload)
        };
        let audience = Audience {
            labels: envelope.labels,
            protocol: envelope.protocol,
        };
        Ok(Self { message, audience })
    }

    /// A body of any other type is the payload, for everybody.
    pub fn from_plain(body: &Bytes) -> Self {
        Self {
            message: SendRequest::plain(Payload::from_plain(body.clone())),
            audience: Audience::default(),
        }
    }
}

impl Audience {
    /// Whether a line is meant, by its labels and its sub-protocol.
    pub fn includes<'a>(
        &self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        protocol: LineProtocol,
    ) -> bool {
        if self.protocol.is_some_and(|wanted| wanted != protocol) {
            return false;
        }
        let wanted = |(key, value): &(&str, &str)| {
            let label = self.labels.get(*key);
            label.is_some_and(|label| label == value)
        };
        // A key stands once in an identity.
        self.labels.is_empty() || labels.filter(wanted).count() == self.labels.len()
    }
}

/// How far a broadcast has come. At its end `lines` is the sum of the other numbers, but for `waiting`, which is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BroadcastStatus {
    /// Its id, which is the `message_id` that devices see.
    pub broadcast_id: String,
    /// The node whose lines it is for.
    pub node_id: String,
    /// The name of the back end's key.
    pub service: String,
    /// Whom it is for.
    #[serde(flatten)]
    pub audience: Audience,
    /// Where it stands.
    pub state: BroadcastState,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When the last line was dealt with, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_ms: Option<u64>,
    /// Lines that were open when it began.
    pub lines: u64,
    /// Lines whose socket took it.
    pub written: u64,
    /// Lines in whose outbox it waits.
    pub waiting: u64,
    /// Lines left out because they do not read what they have been sent already.
    pub slow: u64,
    /// Lines that ended before it was written.
    pub gone: u64,
    /// Lines that are not meant.
    pub unmatched: u64,
    /// Lines whose turn had not come when its time was over or it was cancelled.
    pub unreached: u64,
}

/// Where a broadcast stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BroadcastState {
    /// Not all lines have had their turn.
    Running,
    /// All lines have.
    Done,
    /// Its time was over first.
    Expired,
    /// It was cancelled first.
    Cancelled,
}

/// The broadcasts that a node remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BroadcastList {
    /// The newest first.
    pub broadcasts: Vec<BroadcastStatus>,
}

/// Labels that a token may have.
const LABELS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &'static str) -> Result<BroadcastRequest, ErrorCode> {
        let body = Bytes::from_static(text.as_bytes());
        BroadcastRequest::from_envelope(&body).map_err(|(code, _)| code)
    }

    #[test]
    fn an_envelope_says_what_and_for_whom() {
        let whole = r#"{"data": {"a":1},"labels":{"model":"X1"},"protocol":"tautline.v1.raw","ttl_ms":5,"idempotency_key":"k"}"#;
        let request = decode(whole).unwrap();
        assert_eq!(&request.message.payload.bytes[..], br#"{"a":1}"#);
        assert_eq!(request.message.ttl_ms, Some(5));
        assert_eq!(request.audience.labels["model"], "X1");
        assert_eq!(request.audience.protocol, Some(LineProtocol::Raw));
        let nine = r#"{"data":1,"labels":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":""}}"#;
        for (bad, code) in [
            ("{}", ErrorCode::InvalidBody),
            (r#"{"data":1,"data_b64":""}"#, ErrorCode::InvalidBody),
            (r#"{"data":1,"labels":["a"]}"#, ErrorCode::InvalidBody),
            (r#"{"data":1,"protocol":"mqtt"}"#, ErrorCode::InvalidBody),
            (r#"{"data":1,"idempotency_key":""}"#, ErrorCode::InvalidBody),
            (nine, ErrorCode::InvalidBody),
            (
                r#"{"data":1,"to":{"device":"tv-1"}}"#,
                ErrorCode::UnknownField,
            ),
            (r#"{"data":1,"wait":"acked"}"#, ErrorCode::UnknownField),
        ] {
            assert_eq!(decode(bad).unwrap_err(), code, "{bad}");
        }
    }

    #[test]
    fn a_line_is_meant_if_it_has_every_label_and_the_protocol() {
        let audience = |text| decode(text).unwrap().audience;
        let line = [("model", "X1"), ("region", "eu")];
        let includes =
            |audience: &Audience| audience.includes(line.into_iter(), LineProtocol::Json);
        for yes in [
            r#"{"data":1}"#,
            r#"{"data":1,"labels":{"region":"eu"}}"#,
            r#"{"data":1,"labels":{"region":"eu","model":"X1"},"protocol":"tautline.v1.json"}"#,
        ] {
            assert!(includes(&audience(yes)), "{yes}");
        }
        for no in [
            r#"{"data":1,"labels":{"region":"us"}}"#,
            r#"{"data":1,"labels":{"region":"eu","os":"tv"}}"#,
            r#"{"data":1,"labels":{"eu":"region"}}"#,
            r#"{"data":1,"protocol":"tautline.v1.raw"}"#,
        ] {
            assert!(!includes(&audience(no)), "{no}");
        }
    }
}
