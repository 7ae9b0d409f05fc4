//! The JSON frames of `tautline.v1.json`: what a device says and what it is told.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::close::CloseReason;
use crate::base::id::MessageId;
use crate::wire::cursor::Cursor;
use crate::wire::envelope::present;
use crate::wire::error::ErrorCode;
use crate::wire::payload::{Payload, encode_string};
use crate::wire::send::{SendFields, SendFrame};

/// A frame from a device. Unknown fields are ignored, because devices in the field cannot be updated.
#[derive(Debug, PartialEq, Eq)]
pub enum DeviceFrame<'a> {
    /// The first message of a line that brought no token: here it is.
    Hello {
        /// The JWT.
        token: &'a str,
    },
    /// A new token on a live line.
    Refresh {
        /// The JWT.
        token: &'a str,
    },
    /// One message arrived and was understood.
    Ack {
        /// Which one.
        message_id: MessageId,
        /// What the sender is told with it, as the raw JSON it came as.
        data: Option<&'a str>,
    },
    /// A message to other devices.
    Send(SendFrame<'a>),
    /// A page of the account's devices, please.
    List(ListFrame<'a>),
    /// The account's devices, please, and from then on their coming and going.
    Watch {
        /// What the answer carries, as the raw JSON it came as.
        id: &'a str,
    },
    /// No more of that.
    Unwatch {
        /// What the reply carries, as the raw JSON it came as.
        id: &'a str,
    },
    /// A heartbeat from a client that cannot send WebSocket pings.
    Ping {
        /// Echoed in the `pong`, as the raw JSON it came as.
        id: Option<&'a str>,
    },
    /// A type that is not known here.
    Unknown {
        /// The request id to answer to, as raw JSON.
        id: Option<&'a str>,
    },
}

/// What a device asks of its account's list.
#[derive(Debug, PartialEq, Eq)]
pub struct ListFrame<'a> {
    /// What the answer carries, as the raw JSON it came as.
    pub id: &'a str,
    /// Where the page begins.
    pub cursor: Option<Cursor>,
    /// Most devices in it.
    pub limit: usize,
}

/// Why a text frame is not a device frame. The line stays: a broken message is answered, not punished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError<'a> {
    /// Not JSON, not an object, nested too deep, or a field has the wrong type.
    InvalidBody,
    /// A field that the type needs is missing or malformed.
    MissingField(&'static str),
    /// A request that has an id, and so gets a `reply`, makes no sense.
    Refused {
        /// The request id, as raw JSON.
        id: &'a str,
        /// What is wrong.
        code: ErrorCode,
        /// What is wrong, for people.
        cause: &'static str,
    },
}

impl<'a> DeviceFrame<'a> {
    /// Decodes one text message.
    ///
    /// # Errors
    /// [`FrameError`] when it is no frame of ours; the text may be anything.
    pub fn decode(text: &'a str) -> Result<Self, FrameError<'a>> {
        // serde would take an array for the struct as well.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(FrameError::InvalidBody);
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|_| FrameError::InvalidBody)?;
        let id = fields
            .id
            .map(RawValue::get)
            .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
        match fields.r#type {
            "hello" => Ok(Self::Hello {
                token: fields.token.ok_or(FrameError::MissingField("token"))?,
            }),
            "refresh" => Ok(Self::Refresh {
                token: fields.token.ok_or(FrameError::MissingField("token"))?,
            }),
            "ack" => {
                let message_id = fields.message_id.and_then(MessageId::parse);
                Ok(Self::Ack {
                    message_id: message_id.ok_or(FrameError::MissingField("message_id"))?,
                    data: fields.data.map(RawValue::get),
                })
            }
            "send" => {
                let id = id.ok_or(FrameError::MissingField("id"))?;
                let send = fields.send().decode(id);
                send.map(Self::Send)
                    .map_err(|(code, cause)| FrameError::Refused { id, code, cause })
            }
            "list" => fields.list(id.ok_or(FrameError::MissingField("id"))?),
            "watch" | "unwatch" => {
                let id = id.ok_or(FrameError::MissingField("id"))?;
                Ok(match fields.r#type {
                    "watch" => Self::Watch { id },
                    _ => Self::Unwatch { id },
                })
            }
            "ping" => Ok(Self::Ping { id }),
            _ => Ok(Self::Unknown { id }),
        }
    }
}

/// The union of all frames' fields; borrowed, so decoding allocates nothing.
#[derive(Deserialize)]
struct Fields<'a> {
    r#type: &'a str,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    token: Option<&'a str>,
    #[serde(default)]
    message_id: Option<&'a str>,
    #[serde(borrow, default)]
    to: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_b64: Option<&'a RawValue>,
    #[serde(borrow, default)]
    wait: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    collapse_key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    limit: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn list(&self, id: &'a str) -> Result<DeviceFrame<'a>, FrameError<'a>> {
        let refused = |cause| FrameError::Refused {
            id,
            code: ErrorCode::BadRequest,
            cause,
        };
        let cursor = self.cursor.map(|cursor| {
            let text = serde_json::from_str(cursor.get()).ok();
            text.and_then(Cursor::parse)
                .ok_or_else(|| refused("`cursor` is not one of ours"))
        });
        let limit = self.limit.map(|limit| {
            let limit = limit.get().parse().ok();
            limit
                .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
                .ok_or_else(|| refused("`limit` is 1 to 500"))
        });
        Ok(DeviceFrame::List(ListFrame {
            id,
            cursor: cursor.transpose()?,
            limit: limit.transpose()?.unwrap_or(LIST_LIMIT),
        }))
    }

    fn send(&self) -> SendFields<'a> {
        SendFields {
            to: self.to,
            data: self.data,
            data_b64: self.data_b64,
            wait: self.wait,
            timeout_ms: self.timeout_ms,
            ttl_ms: self.ttl_ms,
            collapse_key: self.collapse_key,
        }
    }
}

/// What a device learns first.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The line's public name.
    pub connection_id: &'a str,
    /// Who the node takes the device for.
    pub device_id: &'a str,
    /// The node it landed on.
    pub node_id: &'a str,
    /// After how much silence the node pings, in milliseconds.
    pub ping_ms: u64,
    /// Largest message the node takes, in bytes.
    pub message_bytes_max: u64,
    /// When the node will ask the device to come anew, in milliseconds.
    pub age_max_ms: u64,
    /// The node's wall clock, milliseconds since the Unix epoch.
    pub server_time_ms: u64,
}

/// Appends a `welcome`.
pub fn encode_welcome(welcome: &Welcome<'_>, out: &mut Vec<u8>) {
    // The session is the line itself until lines can be resumed. Ids need no escaping: their alphabet is checked.
    let Welcome {
        connection_id,
        device_id,
        node_id,
        ping_ms,
        message_bytes_max,
        age_max_ms,
        server_time_ms,
    } = welcome;
    append(
        out,
        format_args!(
            r#"{{"type":"welcome","connection_id":"{connection_id}","device_id":"{device_id}","node_id":"{node_id}","session":"{connection_id}","resumed":false,"ping_ms":{ping_ms},"max_message_bytes":{message_bytes_max},"max_age_ms":{age_max_ms},"server_time_ms":{server_time_ms}}}"#
        ),
    );
}

/// Who a message is from, as its receiver is told.
#[derive(Clone, Copy, Debug)]
pub enum MessageFrom<'a> {
    /// A back end, by the name of its key.
    Service(&'a str),
    /// Another device.
    Device(&'a str),
}

/// Appends a `message`.
pub fn encode_message(
    id: MessageId,
    from: MessageFrom<'_>,
    payload: &Payload,
    wants_ack: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"type":"message","message_id":""#);
    out.extend_from_slice(&id.to_text());
    let (kind, name) = match from {
        MessageFrom::Service(name) => (br#"","from":{"service":"#.as_slice(), name),
        MessageFrom::Device(name) => (br#"","from":{"device":"#.as_slice(), name),
    };
    out.extend_from_slice(kind);
    encode_string(name, out);
    out.extend_from_slice(b"},");
    payload.encode_member(out);
    out.extend_from_slice(if wants_ack { br#","ack":true}"# } else { b"}" });
}

/// Appends a `goaway`: the device should come back after `reconnect_after_ms`, to `url` if there is one, and leave by
/// `deadline_ms` from now.
pub fn encode_goaway(
    reason: CloseReason,
    reconnect_after_ms: u64,
    deadline_ms: u64,
    url: Option<&str>,
    out: &mut Vec<u8>,
) {
    append(
        out,
        format_args!(
            r#"{{"type":"goaway","reason":"{reason}","reconnect_after_ms":{reconnect_after_ms},"deadline_ms":{deadline_ms}"#
        ),
    );
    if let Some(url) = url {
        out.extend_from_slice(br#","url":"#);
        encode_string(url, out);
    }
    out.push(b'}');
}

/// Appends a `pong`, with the raw JSON id of the ping if it had one.
pub fn encode_pong(id: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"pong""#);
    append_id(id, out);
    out.push(b'}');
}

/// Appends an `error`; `id` is the raw JSON id of the request it answers, if there was one.
pub fn encode_error(id: Option<&str>, code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"error""#);
    append_id(id, out);
    append(
        out,
        format_args!(r#","error":{{"code":"{}","message":"#, code.word()),
    );
    encode_string(message, out);
    append(
        out,
        format_args!(r#","retryable":{}}}}}"#, code.is_retryable()),
    );
}

fn append_id(id: Option<&str>, out: &mut Vec<u8>) {
    if let Some(id) = id {
        append(out, format_args!(r#","id":{id}"#));
    }
}

/// Appends formatted text.
pub(super) fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    out.write_fmt(text).ok();
}

/// Devices in a page of a `list` when the device names no limit.
const LIST_LIMIT: usize = 100;
/// The most it may ask for: with the longest ids, 80 KiB.
const LIST_LIMIT_MAX: usize = 500;
/// A request id is echoed, so it is bounded; a longer one is treated as absent.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        encode(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn frames_decode_and_unknown_fields_are_ignored() {
        assert_eq!(
            DeviceFrame::decode(r#"{"type":"hello","token":"a.b.c","later":[1]}"#),
            Ok(DeviceFrame::Hello { token: "a.b.c" })
        );
        assert_eq!(
            DeviceFrame::decode(r#"{"id":"7","type":"ping"}"#),
            Ok(DeviceFrame::Ping { id: Some("\"7\"") })
        );
        let ack =
            r#"{"type":"ack","message_id":"00000000000000000000000007","data": {"n": 1e400} }"#;
        assert_eq!(
            DeviceFrame::decode(ack),
            Ok(DeviceFrame::Ack {
                message_id: MessageId(7),
                data: Some(r#"{"n": 1e400}"#)
            })
        );
        assert_eq!(
            DeviceFrame::decode(&ack.replace(r#"{"n": 1e400}"#, "null")),
            Ok(DeviceFrame::Ack {
                message_id: MessageId(7),
                data: Some("null")
            })
        );
        assert_eq!(
            DeviceFrame::decode(r#"{"type":"dance","id":3}"#),
            Ok(DeviceFrame::Unknown { id: Some("3") })
        );
    }

    #[test]
    fn broken_frames_are_errors_not_panics() {
        for bad in [
            "",
            "nonsense",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"ping"} x"#,
            r#"{"type":"hel\u006co"}"#,
        ] {
            assert_eq!(
                DeviceFrame::decode(bad),
                Err(FrameError::InvalidBody),
                "{bad:?}"
            );
        }
        assert_eq!(
            DeviceFrame::decode(&"[".repeat(100_000)),
            Err(FrameError::InvalidBody)
        );
        assert_eq!(
            DeviceFrame::decode(r#"{"type":"refresh"}"#),
            Err(FrameError::MissingField("token"))
        );
        assert_eq!(
            DeviceFrame::decode(r#"{"type":"ack","message_id":"x"}"#),
            Err(FrameError::MissingField("message_id"))
        );
    }

    #[test]
    fn a_long_request_id_is_not_echoed() {
        let frame = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(300));
        assert_eq!(
            DeviceFrame::decode(&frame),
            Ok(DeviceFrame::Ping { id: None })
        );
    }

    #[test]
    fn what_is_encoded_is_json() {
        let payload = Payload::from_plain(Bytes::from_static(b"{\"a\":[1,2]}"));
        let message = encoded(|out| {
            encode_message(
                MessageId(7),
                MessageFrom::Service("back\"end"),
                &payload,
                true,
                out,
            )
        });
        assert_eq!(
            message,
            json!({"type":"message","message_id":MessageId(7).to_string(),"from":{"service":"back\"end"},"data":{"a":[1,2]},"ack":true})
        );
        let message = encoded(|out| {
            encode_message(
                MessageId(7),
                MessageFrom::Device("tv-1"),
                &payload,
                false,
                out,
            )
        });
        assert_eq!(
            message,
            json!({"type":"message","message_id":MessageId(7).to_string(),"from":{"device":"tv-1"},"data":{"a":[1,2]}})
        );
        assert_eq!(
            encoded(|out| encode_goaway(CloseReason::Drain, 5, 6, None, out)),
            json!({"type":"goaway","reason":"drain","reconnect_after_ms":5,"deadline_ms":6})
        );
        assert_eq!(
            encoded(|out| encode_goaway(CloseReason::Drain, 5, 6, Some("ws://b/\""), out)),
            json!({"type":"goaway","reason":"drain","reconnect_after_ms":5,"deadline_ms":6,"url":"ws://b/\""})
        );
        assert_eq!(
            encoded(|out| encode_error(Some("3"), ErrorCode::UnknownType, "no\nsuch", out)),
            json!({"type":"error","id":3,"error":{"code":"unknown_type","message":"no\nsuch","retryable":false}})
        );
        assert_eq!(
            encoded(|out| encode_pong(None, out)),
            json!({"type":"pong"})
        );
    }
}
