//! The `send` frame: a message from a device to others, whose payload nobody here looks into.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::id::is_valid_id;
use crate::wire::api::Level;
use crate::wire::envelope::check_collapse_key;
use crate::wire::error::ErrorCode;
use crate::wire::payload::{Form, Payload};

/// What a device asks to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct SendFrame<'a> {
    /// The id that its reply carries, as the raw JSON it came as.
    pub id: &'a str,
    /// Who is to get it.
    pub to: Target<'a>,
    /// What it carries, copied out of the frame.
    pub payload: Payload,
    /// The level to wait for.
    pub wait: Level,
    /// How long to wait for it, in milliseconds; `None` is the node's default.
    pub timeout_ms: Option<u64>,
    /// For how long after acceptance it may still be written, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// A newer message with this key may take its place while it waits.
    pub collapse_key: Option<Cow<'a, str>>,
}

/// Who a message from a device is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// One device.
    Device(Cow<'a, str>),
    /// All devices of an account, but the one that sends.
    User(Cow<'a, str>),
    /// The subscribers of a topic, of which this node knows none.
    Topic,
}

/// The fields of a `send` as they came; each is looked at only once the type is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendFields<'a> {
    pub(super) to: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) data_b64: Option<&'a RawValue>,
    pub(super) wait: Option<&'a RawValue>,
    pub(super) timeout_ms: Option<&'a RawValue>,
    pub(super) ttl_ms: Option<&'a RawValue>,
    pub(super) collapse_key: Option<&'a RawValue>,
}

/// Why a `send` was not understood, for its reply.
pub(super) type Fault = (ErrorCode, &'static str);

impl<'a> SendFields<'a> {
    pub(super) fn decode(self, id: &'a str) -> Result<SendFrame<'a>, Fault> {
        Ok(SendFrame {
            id,
            to: self.target()?,
            payload: self.payload()?,
            wait: optional(self.wait, "`wait` is queued, written or acked")?.unwrap_or_default(),
            timeout_ms: optional(
                self.timeout_ms,
                "`timeout_ms` is a whole number of milliseconds",
            )?,
            ttl_ms: optional(self.ttl_ms, "`ttl_ms` is a whole number of milliseconds")?,
            collapse_key: self.collapse_key()?,
        })
    }

    fn collapse_key(self) -> Result<Option<Cow<'a, str>>, Fault> {
        let fault = "`collapse_key` is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
        let key: Option<Name<'a>> = optional(self.collapse_key, fault)?;
        match key {
            Some(Name(key)) if check_collapse_key(&key).is_err() => {
                Err((ErrorCode::InvalidBody, fault))
            }
            key => Ok(key.map(|Name(key)| key)),
        }
    }

    fn target(self) -> Result<Target<'a>, Fault> {
        let fault = (
            ErrorCode::InvalidBody,
            "`to` is an object with one of device, user and topic",
        );
        let to = self.to.ok_or(fault)?;
        // serde would take an array for the struct as well.
        if !to.get().starts_with('{') {
            return Err(fault);
        }
        let To {
            device,
            user,
            topic,
        } = serde_json::from_str(to.get()).map_err(|_| fault)?;
        let id = |name: Name<'a>| {
            let is_valid = is_valid_id(name.0.as_bytes());
            is_valid.then_some(name.0).ok_or((
                ErrorCode::InvalidId,
                "an id is 1 to 128 characters of A-Z a-z 0-9 . _ : -",
            ))
        };
        match (device, user, topic) {
            (Some(device), None, None) => id(device).map(Target::Device),
            (None, Some(user), None) => id(user).map(Target::User),
            (None, None, Some(topic)) => id(topic).map(|_| Target::Topic),
            _ => Err(fault),
        }
    }

    fn payload(self) -> Result<Payload, Fault> {
        match (self.data, self.data_b64) {
            (Some(data), None) => Ok(Payload {
                bytes: Bytes::copy_from_slice(data.get().as_bytes()),
                form: Form::Json,
            }),
            (None, Some(text)) => {
                let fault = (ErrorCode::InvalidBody, "`data_b64` is not base64");
                let text: Name<'_> = serde_json::from_str(text.get()).map_err(|_| fault)?;
                let bytes = STANDARD.decode(text.0.as_bytes()).map_err(|_| fault)?;
                Ok(Payload {
                    bytes: bytes.into(),
                    form: Form::Binary,
                })
            }
            (Some(_), Some(_)) => Err((
                ErrorCode::InvalidBody,
                "give `data` or `data_b64`, not both",
            )),
            (None, None) => Err((ErrorCode::InvalidBody, "`data` or `data_b64` is required")),
        }
    }
}

/// Where a message is to go.
#[derive(Deserialize)]
struct To<'a> {
    #[serde(borrow, default)]
    device: Option<Name<'a>>,
    #[serde(borrow, default)]
    user: Option<Name<'a>>,
    #[serde(borrow, default)]
    topic: Option<Name<'a>>,
}

/// A string, borrowed unless it has escapes. Serde borrows a `Cow` only as a field of its own.
#[derive(Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

fn optional<'a, V: Deserialize<'a>>(
    value: Option<&'a RawValue>,
    fault: &'static str,
) -> Result<Option<V>, Fault> {
    let Some(value) = value else {
        return Ok(None);
    };
    let value = serde_json::from_str(value.get());
    value.map_err(|_| (ErrorCode::InvalidBody, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::device::{DeviceFrame, FrameError};

    fn decode(text: &str) -> Result<SendFrame<'_>, ErrorCode> {
        match DeviceFrame::decode(text) {
            Ok(DeviceFrame::Send(send)) => Ok(send),
            Err(FrameError::Refused { code, .. }) => Err(code),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_send_is_taken_apart_and_its_payload_is_left_as_it_is() {
        let send = decode(
            r#"{"type":"send","id":7,"to":{"device":"tv-1"},"data":{"a": [1,2]},"wait":"acked","timeout_ms":250,"later":1}"#,
        )
        .unwrap();
        assert_eq!(
            (send.id, send.wait, send.timeout_ms),
            ("7", Level::Acked, Some(250))
        );
        assert_eq!(send.to, Target::Device("tv-1".into()));
        assert_eq!(&send.payload.bytes[..], br#"{"a": [1,2]}"#);

        let send =
            decode(r#"{"type":"send","id":"a","to":{"user":"ann"},"data_b64":"/wA="}"#).unwrap();
        assert_eq!(send.to, Target::User("ann".into()));
        assert_eq!(
            (&send.payload.bytes[..], send.payload.form),
            (&b"\xff\0"[..], Form::Binary)
        );
        assert_eq!((send.wait, send.timeout_ms), (Level::Written, None));

        let send = decode(r#"{"type":"send","id":1,"to":{"topic":"news"},"data":null}"#).unwrap();
        assert_eq!(
            (send.to, &send.payload.bytes[..]),
            (Target::Topic, &b"null"[..])
        );
        let send =
            decode(r#"{"type":"send","id":1,"to":{"device":"tv\u002d1"},"data":1}"#).unwrap();
        assert_eq!(send.to, Target::Device("tv-1".into()));
    }

    #[test]
    fn a_wrong_send_names_its_fault_and_keeps_its_id() {
        for (rest, code) in [
            (r#""data":1"#, ErrorCode::InvalidBody),
            (r#""to":"tv-1","data":1"#, ErrorCode::InvalidBody),
            (
                r#""to":["tv-1",null,null],"data":1"#,
                ErrorCode::InvalidBody,
            ),
            (r#""to":{},"data":1"#, ErrorCode::InvalidBody),
            (
                r#""to":{"device":"a","user":"b"},"data":1"#,
                ErrorCode::InvalidBody,
            ),
            (r#""to":{"device":7},"data":1"#, ErrorCode::InvalidBody),
            (r#""to":{"device":"a b"},"data":1"#, ErrorCode::InvalidId),
            (r#""to":{"user":""},"data":1"#, ErrorCode::InvalidId),
            (r#""to":{"device":"a"}"#, ErrorCode::InvalidBody),
            (
                r#""to":{"device":"a"},"data":1,"data_b64":"""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data_b64":"*""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data_b64":7"#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"wait":"soon""#,
                ErrorCode::InvalidBody,
            ),
            (
                r#""to":{"device":"a"},"data":1,"timeout_ms":-1"#,
                ErrorCode::InvalidBody,
            ),
        ] {
            let text = format!(r#"{{"type":"send","id":"x",{rest}}}"#);
            assert_eq!(decode(&text).unwrap_err(), code, "{rest}");
            assert!(matches!(
                DeviceFrame::decode(&text),
                Err(FrameError::Refused { id: r#""x""#, .. })
            ));
        }
    }

    #[test]
    fn a_send_without_a_usable_id_has_no_reply() {
        let long = format!(
            r#"{{"type":"send","id":"{}","to":{{"device":"a"}},"data":1}}"#,
            "x".repeat(300)
        );
        for text in [r#"{"type":"send","to":{"device":"a"},"data":1}"#, &long] {
            assert_eq!(
                DeviceFrame::decode(text),
                Err(FrameError::MissingField("id"))
            );
        }
    }
}
