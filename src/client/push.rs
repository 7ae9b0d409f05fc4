//! A message on its way to a device, and what became of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::base::time::millis;
use crate::wire::api::{Level, SendOutcome};

/// A message to one device.
#[derive(Clone, Debug)]
pub struct Push {
    device_id: String,
    data: Data,
    wait: Level,
    timeout: Option<Duration>,
    ttl: Option<Duration>,
    collapse_key: Option<String>,
    idempotency_key: Option<String>,
}

#[derive(Clone, Debug)]
enum Data {
    Json(Box<RawValue>),
    Bytes(Vec<u8>),
}

impl Push {
    /// A JSON value.
    ///
    /// # Errors
    /// When the value does not serialise, as a map whose keys are no strings does not.
    pub fn json(
        device_id: impl Into<String>,
        value: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::new(device_id, Data::Json(to_raw_value(value)?)))
    }

    /// Text, which arrives as a JSON string.
    pub fn text(device_id: impl Into<String>, text: &str) -> Self {
        let Ok(text) = to_raw_value(text) else {
            // A string always serialises.
            return Self::bytes(device_id, text.as_bytes().to_vec());
        };
        Self::new(device_id, Data::Json(text))
    }

    /// Bytes, which arrive in base64, or as they are on a raw line.
    pub fn bytes(device_id: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(device_id, Data::Bytes(bytes.into()))
    }

    /// What somebody typed, taken as what it is: JSON, other text, or bytes.
    pub fn plain(device_id: impl Into<String>, bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => match serde_json::from_str::<&RawValue>(&text) {
                Ok(json) => Self::new(device_id, Data::Json(json.to_owned())),
                Err(_) => Self::text(device_id, &text),
            },
            Err(error) => Self::bytes(device_id, error.into_bytes()),
        }
    }

    /// How far the message must have come: [`Level::Written`] unless this says otherwise.
    #[must_use]
    pub fn wait(mut self, level: Level) -> Self {
        self.wait = level;
        self
    }

    /// How long it may take to get there: the pusher's timeout unless this says otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long after the node has accepted it the message may still be written; beyond that it is dropped.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// While it waits for its line, a newer message of this back end with the same key takes its place.
    #[must_use]
    pub fn collapse_key(mut self, key: impl Into<Option<String>>) -> Self {
        self.collapse_key = key.into();
        self
    }

    /// The same message with the same key is sent once, however often it is pushed.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<Option<String>>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    pub(super) fn own_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn new(device_id: impl Into<String>, data: Data) -> Self {
        Self {
            device_id: device_id.into(),
            data,
            wait: Level::default(),
            timeout: None,
            ttl: None,
            collapse_key: None,
            idempotency_key: None,
        }
    }

    /// The record for a stream.
    pub(super) fn encode(&self, id: u64, timeout: Duration) -> Result<String, serde_json::Error> {
        let (data, data_b64) = match &self.data {
            Data::Json(data) => (Some(&**data), None),
            Data::Bytes(bytes) => (None, Some(STANDARD.encode(bytes))),
        };
        serde_json::to_string(&Record {
            id,
            to: To {
                device: &self.device_id,
            },
            data,
            data_b64,
            wait: self.wait,
            timeout_ms: millis(timeout).max(1),
            ttl_ms: self.ttl.map(millis),
            collapse_key: self.collapse_key.as_deref(),
            idempotency_key: self.idempotency_key.as_deref(),
        })
    }
}

#[derive(Serialize)]
struct Record<'a> {
    id: u64,
    to: To<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    wait: Level,
    timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

#[derive(Serialize)]
struct To<'a> {
    device: &'a str,
}

/// What became of a message that reached the level it was to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The message's id, as the device sees it.
    pub message_id: String,
    /// The level reached.
    pub level: Level,
    /// From reading the record to reaching the level, as the node saw it, in milliseconds.
    pub latency_ms: u64,
    /// What the device said with its `ack`, in JSON, if it said something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// A message that was dropped while it waited for its line, as its terms allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The message's id.
    pub message_id: String,
    /// Why: its time was over, or a newer message took its place.
    pub result: SendOutcome,
}

/// What became of a message that did not, as far as this side can tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The node said so.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Refusal),
    /// The device has nothing of it, and was not to have it any more.
    #[error("{}", .0.result.word())]
    Dropped(Dropped),
    /// It was sent, and then the stream was cut or no answer came in time: the device may have it or not. A second
    /// attempt could be a second message.
    #[error("unknown: {0}; the device may have the message")]
    Unknown(String),
    /// It was not sent: no stream was open, or had room, before its time was up. Trying again is safe.
    #[error("not sent in time: {0}")]
    NotSent(String),
    /// There is no stream any more, and there will be none.
    #[error("the pusher has ended: {0}")]
    Ended(String),
    /// The message cannot be written as JSON.
    #[error("the message is no JSON: {0}")]
    Malformed(String),
}

/// A node's no.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// A word from the error table of the sending API.
    pub code: String,
    /// The cause, for people.
    pub message: String,
    /// Whether the same message may succeed later.
    pub retryable: bool,
    /// The message's id, if the node had taken it up: with `ack_timeout` it may still arrive.
    #[serde(default)]
    pub message_id: Option<String>,
    /// The level it had reached.
    #[serde(default)]
    pub level: Option<Level>,
}

/// A frame of a stream, as the node sends it.
#[derive(Debug, Deserialize)]
pub(super) struct Frame {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) id: Option<u64>,
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    result: Option<SendOutcome>,
    #[serde(default)]
    level: Option<Level>,
    #[serde(default)]
    latency_ms: u64,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) reconnect_after_ms: Option<u64>,
}

impl Frame {
    /// What a `reply` says.
    pub(super) fn into_result(self) -> Result<Receipt, PushError> {
        if let Some(refusal) = self.error {
            return Err(PushError::Refused(Refusal {
                message_id: self.message_id,
                level: self.level,
                ..refusal
            }));
        }
        let (Some(message_id), Some(result)) = (self.message_id, self.result) else {
            let cause = "the node's reply makes no sense";
            return Err(PushError::Unknown(cause.into()));
        };
        match (result, self.level) {
            (SendOutcome::Expired | SendOutcome::Superseded, _) => {
                Err(PushError::Dropped(Dropped { message_id, result }))
            }
            (_, Some(level)) => Ok(Receipt {
                message_id,
                level,
                latency_ms: self.latency_ms,
                data: self.data.map(|data| data.get().to_owned()),
            }),
            (_, None) => Err(PushError::Unknown("the node's reply makes no sense".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn encoded(push: &Push) -> Value {
        let text = push.encode(7, Duration::from_millis(250)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_message_is_written_as_what_it_is() {
        let push = Push::plain("tv-1", b"{\"hi\":1}".to_vec()).wait(Level::Acked);
        assert_eq!(
            encoded(&push),
            json!({"id":7,"to":{"device":"tv-1"},"data":{"hi":1},"wait":"acked","timeout_ms":250})
        );
        let terms = Push::text("tv-1", "hi").ttl(Duration::from_secs(2));
        let terms = terms
            .collapse_key("k".to_owned())
            .idempotency_key("i".to_owned());
        let terms = encoded(&terms);
        assert_eq!(
            (
                &terms["ttl_ms"],
                &terms["collapse_key"],
                &terms["idempotency_key"]
            ),
            (&json!(2_000), &json!("k"), &json!("i"))
        );
        assert_eq!(encoded(&Push::plain("a", b"hi".to_vec()))["data"], "hi");
        assert_eq!(
            encoded(&Push::plain("a", vec![0xff, 0]))["data_b64"],
            "/wA="
        );
        assert_eq!(encoded(&Push::text("a", "1"))["data"], "1");
        assert_eq!(encoded(&Push::json("a", &[1]).unwrap())["data"], json!([1]));
    }

    #[test]
    fn a_reply_is_a_receipt_or_a_refusal() {
        let result = |text| serde_json::from_str::<Frame>(text).unwrap().into_result();
        let receipt = result(
            r#"{"type":"reply","id":1,"message_id":"m","result":"written","level":"written","latency_ms":3,"later":[]}"#,
        );
        let expected = Receipt {
            message_id: "m".into(),
            level: Level::Written,
            latency_ms: 3,
            data: None,
        };
        assert_eq!(receipt, Ok(expected));
        let acked = result(
            r#"{"type":"reply","id":1,"message_id":"m","result":"acked","level":"acked","latency_ms":3,"data":{"n": 1e400}}"#,
        );
        assert_eq!(acked.unwrap().data.as_deref(), Some(r#"{"n": 1e400}"#));
        let expired = result(
            r#"{"type":"reply","id":1,"message_id":"m","result":"expired","level":"queued","latency_ms":3}"#,
        );
        let dropped = Dropped {
            message_id: "m".into(),
            result: SendOutcome::Expired,
        };
        assert_eq!(expired, Err(PushError::Dropped(dropped)));
        let refused = result(
            r#"{"type":"reply","id":1,"message_id":"m","level":"written","latency_ms":3,"error":{"code":"ack_timeout","message":"late","retryable":true}}"#,
        );
        let Err(PushError::Refused(refusal)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(refusal.code, "ack_timeout");
        assert_eq!(
            (refusal.message_id, refusal.level),
            (Some("m".into()), Some(Level::Written))
        );
        assert!(matches!(
            result(r#"{"type":"reply"}"#),
            Err(PushError::Unknown(_))
        ));
    }
}
