//! The JSON frames of `tautline.v1.stream.json`: what a back end pipelines, and what it learns first. Answers are
//! `reply` frames ([`super::reply`]).

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::id::is_valid_id;
use crate::wire::api::{Level, decode_fault};
use crate::wire::device::{REQUEST_ID_BYTES_MAX, append};
use crate::wire::envelope::{
    INVALID_DEVICE_ID, SendRequest, check_collapse_key, check_idempotency_key, payload, present,
};
use crate::wire::error::ErrorCode;
use crate::wire::send::Name;

/// A message to one device, and the id under which its fate is to be told.
#[derive(Debug)]
pub struct Record<'a> {
    /// The id that the reply carries, as the raw JSON it came as.
    pub id: &'a str,
    /// The device it is for.
    pub device_id: Cow<'a, str>,
    /// What to deliver, copied out of the frame, and how far to wait.
    pub request: SendRequest,
}

/// Why a text frame is no record. The stream stays.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// The record's id, if that much could be made out.
    pub id: Option<&'a str>,
    /// The word of the error table.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub cause: Cow<'static, str>,
}

impl<'a> Record<'a> {
    /// Decodes one text message.
    ///
    /// # Errors
    /// [`RecordError`]; the text may be anything.
    pub fn decode(text: &'a str) -> Result<Self, RecordError<'a>> {
        // serde would take arrays for the structs as well.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(RecordError {
                id: None,
                code: ErrorCode::InvalidBody,
                cause: "a record is one JSON object".into(),
            });
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| {
            let (code, cause) = decode_fault(&error);
            RecordError {
                id: salvage_id(text),
                code,
                cause: cause.into(),
            }
        })?;
        fields.into_record()
    }
}

/// A record as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(default)]
    r#type: Option<Name<'a>>,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    to: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_b64: Option<Name<'a>>,
    #[serde(default)]
    wait: Option<Level>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    connection_id: Option<String>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    collapse_key: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// Where a record is to go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To<'a> {
    #[serde(borrow)]
    device: Name<'a>,
}

impl<'a> Fields<'a> {
    fn into_record(self) -> Result<Record<'a>, RecordError<'a>> {
        let id = self.id.get();
        let is_echoed = id.len() <= REQUEST_ID_BYTES_MAX;
        let fault = |code, cause: Cow<'static, str>| RecordError {
            id: is_echoed.then_some(id),
            code,
            cause,
        };
        if !is_echoed {
            let cause = "an id has at most 256 bytes";
            return Err(fault(ErrorCode::InvalidBody, cause.into()));
        }
        if self.r#type.is_some_and(|name| name.0 != "send") {
            let cause = "a record needs no type, or the type send";
            return Err(fault(ErrorCode::UnknownType, cause.into()));
        }
        let to: Option<To<'a>> = Some(self.to.get())
            .filter(|to| to.starts_with('{'))
            .and_then(|to| serde_json::from_str(to).ok());
        let Some(To { device }) = to else {
            let cause = "to is an object with a device, {\"device\":\"tv-1\"}";
            return Err(fault(ErrorCode::InvalidBody, cause.into()));
        };
        if !is_valid_id(device.0.as_bytes()) {
            return Err(fault(ErrorCode::InvalidId, INVALID_DEVICE_ID.into()));
        }
        let keys = [
            self.collapse_key.as_deref().map(check_collapse_key),
            self.idempotency_key.as_deref().map(check_idempotency_key),
        ];
        if let Some(Err(cause)) = keys.into_iter().flatten().find(Result::is_err) {
            return Err(fault(ErrorCode::InvalidBody, cause.into()));
        }
        let data_b64 = self.data_b64.as_ref().map(|text| &*text.0);
        let payload = payload(self.data, data_b64, Bytes::copy_from_slice)
            .map_err(|(code, cause)| fault(code, cause.into()))?;
        Ok(Record {
            id,
            device_id: device.0,
            request: SendRequest {
                payload,
                wait: self.wait.unwrap_or_default(),
                timeout_ms: self.timeout_ms,
                connection_id: self.connection_id,
                ttl_ms: self.ttl_ms,
                collapse_key: self.collapse_key,
                idempotency_key: self.idempotency_key,
            },
        })
    }
}

/// The id of a record that is otherwise not understood.
fn salvage_id(text: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let found: Id<'_> = serde_json::from_str(text).ok()?;
    Some(found.id.get()).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)
}

/// What a back end learns first.
#[derive(Clone, Copy, Debug)]
pub struct StreamWelcome<'a> {
    /// The stream's public name.
    pub connection_id: &'a str,
    /// The node it landed on.
    pub node_id: &'a str,
    /// Records that may be unanswered; the node reads no further beyond.
    pub window: u32,
    /// After how much silence the node pings, in milliseconds.
    pub ping_ms: u64,
    /// After how long without a record the node closes the stream, in milliseconds.
    pub idle_ms: u64,
    /// Longest payload of a record, in bytes.
    pub message_bytes_max: u64,
    /// Longest record, in bytes.
    pub record_bytes_max: u64,
    /// The node's wall clock, milliseconds since the Unix epoch.
    pub server_time_ms: u64,
}

/// Appends a `welcome`.
pub fn encode_welcome(welcome: &StreamWelcome<'_>, out: &mut Vec<u8>) {
    // Ids need no escaping: their alphabet is checked.
    let StreamWelcome {
        connection_id,
        node_id,
        window,
        ping_ms,
        idle_ms,
        message_bytes_max,
        record_bytes_max,
        server_time_ms,
    } = welcome;
    append(
        out,
        format_args!(
            r#"{{"type":"welcome","connection_id":"{connection_id}","node_id":"{node_id}","window":{window},"ping_ms":{ping_ms},"idle_ms":{idle_ms},"max_message_bytes":{message_bytes_max},"max_record_bytes":{record_bytes_max},"server_time_ms":{server_time_ms}}}"#
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::Form;

    #[test]
    fn a_record_is_taken_apart_and_its_payload_is_left_as_it_is() {
        let record = Record::decode(
            r#"{"id":7,"to":{"device":"tv-1"},"data":{"b": 1, "a":2},"wait":"acked","timeout_ms":250}"#,
        )
        .unwrap();
        assert_eq!((record.id, &*record.device_id), ("7", "tv-1"));
        assert_eq!(&record.request.payload.bytes[..], br#"{"b": 1, "a":2}"#);
        assert_eq!(record.request.wait, Level::Acked);
        assert_eq!(record.request.timeout_ms, Some(250));

        let text = r#" {"type":"send","id":"a","to":{"device":"tv\u002d1"},"data_b64":"\/wA="}"#;
        let record = Record::decode(text).unwrap();
        assert_eq!((record.id, &*record.device_id), ("\"a\"", "tv-1"));
        assert_eq!(record.request.payload.form, Form::Binary);
        assert_eq!(&record.request.payload.bytes[..], b"\xff\0");
    }

    #[test]
    fn a_wrong_record_names_its_fault_and_keeps_its_id() {
        let table = [
            (r#""to":{"device":"a"}"#, ErrorCode::InvalidBody),
            (r#""data":1"#, ErrorCode::InvalidBody),
            (r#""to":"a","data":1"#, ErrorCode::InvalidBody),
            (r#""to":["a"],"data":1"#, ErrorCode::InvalidBody),
            (r#""to":{"user":"a"},"data":1"#, ErrorCode::InvalidBody),
            (r#""to":{"device":"a b"},"data":1"#, ErrorCode::InvalidId),
            (
                r#""to":{"device":"a"},"data":1,"data_b64":"""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data_b64":"*""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"wait":"soon""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"collapse_key":"a b""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"idempotency_key":"""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"ttl":1"#,
                ErrorCode::UnknownField,
            ),
            (
                r#""to":{"device":"a"},"data":1,"type":"dance""#,
                ErrorCode::UnknownType,
            ),
        ];
        for (rest, code) in table {
            let text = format!(r#"{{"id":"x",{rest}}}"#);
            let error = Record::decode(&text).unwrap_err();
            assert_eq!((error.id, error.code), (Some(r#""x""#), code), "{rest}");
        }
    }

    #[test]
    fn what_has_no_id_is_answered_without_one() {
        let long = format!(
            r#"{{"id":"{}","to":{{"device":"a"}},"data":1}}"#,
            "x".repeat(300)
        );
        let deep = "[".repeat(100_000);
        let in_object = format!("{{\"id\":{deep}");
        for text in [
            "",
            "nonsense",
            "[]",
            "{}",
            "{\"id\":1",
            &long,
            &deep,
            &in_object,
        ] {
            let error = Record::decode(text).unwrap_err();
            assert_eq!((error.id, error.code), (None, ErrorCode::InvalidBody));
        }
    }

    #[test]
    fn a_welcome_is_json() {
        let welcome = StreamWelcome {
            connection_id: "c",
            node_id: "n",
            window: 4,
            ping_ms: 1,
            idle_ms: 2,
            message_bytes_max: 3,
            record_bytes_max: 6,
            server_time_ms: 5,
        };
        let mut out = Vec::new();
        encode_welcome(&welcome, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["window"], 4);
    }
}
