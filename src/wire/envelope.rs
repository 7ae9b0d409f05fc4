//! What a sender asks for: the message with its options.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::base::id::is_valid_id;
use crate::wire::api::{Level, decode_object};
use crate::wire::batch::Target;
use crate::wire::error::ErrorCode;
use crate::wire::payload::{Form, Payload};

/// What a sender asks for, whether it came as an envelope or as a plain body with a query.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// What to deliver.
    pub payload: Payload,
    /// The level to wait for.
    pub wait: Level,
    /// How long to wait for it, in milliseconds; `None` is the server's default.
    pub timeout_ms: Option<u64>,
    /// Deliver only on this line, and answer 410 when it is gone.
    pub connection_id: Option<String>,
    /// For how long after acceptance it may still be written, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// A newer message with this key may take its place while it waits.
    pub collapse_key: Option<String>,
    /// Carries the request out once, however often it is made.
    pub idempotency_key: Option<String>,
}

/// What holds for the messages that say nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendDefaults {
    /// The level to wait for.
    pub wait: Level,
    /// How long to wait for it.
    pub timeout_ms: Option<u64>,
}

/// A message with its options: the body of type `application/json`. One of `data` and `data_b64` is required.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Envelope<'a> {
    /// Any JSON value; it arrives as it was sent.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Bytes, in base64.
    #[serde(default)]
    data_b64: Option<String>,
    /// How far the message must have come before the answer.
    #[serde(default)]
    wait: Option<Level>,
    /// How long to wait for it, in milliseconds.
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// Deliver only on this line.
    #[serde(default)]
    connection_id: Option<String>,
    /// For how long after acceptance the message may still be written, in milliseconds.
    #[serde(default)]
    ttl_ms: Option<u64>,
    /// `[A-Za-z0-9._:-]{1,128}`: while it waits, a newer message of the same sender with this key takes its place.
    #[serde(default)]
    collapse_key: Option<String>,
    /// 1 to 255 visible ASCII characters: the same request with the same key is carried out once.
    #[serde(default)]
    idempotency_key: Option<String>,
    /// Whom it is for, in a batch.
    #[serde(default)]
    #[schema(ignore)]
    to: Option<Target>,
}

/// Keeps `"data":null` apart from no `data` at all.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl SendRequest {
    /// A payload, and nothing said of what to do with it.
    pub fn plain(payload: Payload) -> Self {
        Self {
            payload,
            wait: Level::default(),
            timeout_ms: None,
            connection_id: None,
            ttl_ms: None,
            collapse_key: None,
            idempotency_key: None,
        }
    }

    /// Decodes the body of type `application/json`: always the envelope.
    ///
    /// # Errors
    /// `invalid_body` or `unknown_field`, with what is wrong and where.
    pub fn from_envelope(body: &Bytes) -> Result<Self, (ErrorCode, String)> {
        let envelope: Envelope<'_> = decode_object(body).map_err(|(code, cause)| {
            let hint = "the body of type application/json is the envelope, and any other type is the payload itself";
            (code, format!("{cause}; {hint}"))
        })?;
        if envelope.to.is_some() {
            let cause = "unknown field `to`: the path names the device";
            return Err((ErrorCode::UnknownField, cause.into()));
        }
        Self::from_fields(body, envelope, SendDefaults::default())
    }

    /// Decodes a message of a batch: whom it is for, and what.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_batch(
        message: &Bytes,
        defaults: SendDefaults,
    ) -> Result<(String, Self), (ErrorCode, String)> {
        let mut envelope: Envelope<'_> = decode_object(message)?;
        let Some(Target { device }) = envelope.to.take() else {
            let cause = "`to` is required: {\"device\": \"…\"}";
            return Err((ErrorCode::InvalidBody, cause.into()));
        };
        if !is_valid_id(device.as_bytes()) {
            return Err((ErrorCode::InvalidId, INVALID_DEVICE_ID.into()));
        }
        let request = Self::from_fields(message, envelope, defaults)?;
        Ok((device, request))
    }

    fn from_fields(
        body: &Bytes,
        envelope: Envelope<'_>,
        defaults: SendDefaults,
    ) -> Result<Self, (ErrorCode, String)> {
        let wrong = |cause: &str| (ErrorCode::InvalidBody, cause.to_owned());
        if let Some(key) = &envelope.collapse_key {
            check_collapse_key(key).map_err(wrong)?;
        }
        if let Some(key) = &envelope.idempotency_key {
            check_idempotency_key(key).map_err(wrong)?;
        }
        let copy = |data: &[u8]| body.slice_ref(data);
        let payload = payload(envelope.data, envelope.data_b64.as_deref(), copy)?;
        Ok(Self {
            payload,
            wait: envelope.wait.unwrap_or(defaults.wait),
            timeout_ms: envelope.timeout_ms.or(defaults.timeout_ms),
            connection_id: envelope.connection_id,
            ttl_ms: envelope.ttl_ms,
            collapse_key: envelope.collapse_key,
            idempotency_key: envelope.idempotency_key,
        })
    }
}

/// The payload of an envelope or a record: exactly one of its two members. `copy` takes the bytes of JSON out of what
/// was read.
pub(super) fn payload(
    data: Option<&RawValue>,
    data_b64: Option<&str>,
    copy: impl FnOnce(&[u8]) -> Bytes,
) -> Result<Payload, (ErrorCode, String)> {
    let fault = |cause: String| Err((ErrorCode::InvalidBody, cause));
    match (data, data_b64) {
        (Some(data), None) => Ok(Payload {
            bytes: copy(data.get().as_bytes()),
            form: Form::Json,
        }),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Payload {
                bytes: bytes.into(),
                form: Form::Binary,
            }),
            Err(error) => fault(format!("data_b64 is not base64: {error}")),
        },
        (Some(_), Some(_)) => fault("give data or data_b64, not both".into()),
        (None, None) => fault("data or data_b64 is required".into()),
    }
}

/// Whether a collapse key is one.
///
/// # Errors
/// What a key looks like.
pub fn check_collapse_key(key: &str) -> Result<(), &'static str> {
    let fault = "a collapse key is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
    is_valid_id(key.as_bytes()).then_some(()).ok_or(fault)
}

/// Whether an idempotency key is one.
///
/// # Errors
/// What a key looks like.
pub fn check_idempotency_key(key: &str) -> Result<(), &'static str> {
    let fault = "an idempotency key is 1 to 255 visible ASCII characters";
    let is_key = (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    is_key.then_some(()).ok_or(fault)
}

/// What a device id looks like.
pub const INVALID_DEVICE_ID: &str = "a device id is 1 to 128 characters of A-Z a-z 0-9 . _ : -";

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(text: &str) -> Result<SendRequest, ErrorCode> {
        SendRequest::from_envelope(&Bytes::copy_from_slice(text.as_bytes()))
            .map_err(|(code, _)| code)
    }

    #[test]
    fn data_arrives_as_it_was_sent() {
        let request =
            envelope(r#"{"data": {"b":1, "a": 1e400},"wait":"queued","timeout_ms":5}"#).unwrap();
        assert_eq!(&request.payload.bytes[..], br#"{"b":1, "a": 1e400}"#);
        assert_eq!((request.wait, request.timeout_ms), (Level::Queued, Some(5)));
        let request = envelope(r#"{"data_b64":"/wA="}"#).unwrap();
        assert_eq!(
            (&request.payload.bytes[..], request.payload.form),
            (&b"\xff\x00"[..], Form::Binary)
        );
    }

    #[test]
    fn a_wrong_envelope_names_its_fault() {
        assert_eq!(
            envelope(r#"{"data":1,"dat":2}"#).unwrap_err(),
            ErrorCode::UnknownField
        );
        assert_eq!(
            envelope(r#"{"data":1,"to":{"device":"tv-1"}}"#).unwrap_err(),
            ErrorCode::UnknownField
        );
        for bad in [
            "",
            "{}",
            "[1]",
            r#"{"data":1,"data_b64":""}"#,
            r#"{"data_b64":"*"}"#,
            r#"{"data":1,"wait":"soon"}"#,
            r#"{"data":1,"ttl_ms":-1}"#,
            r#"{"data":1,"ttl_ms":"1s"}"#,
            r#"{"data":1,"collapse_key":""}"#,
            r#"{"data":1,"collapse_key":"a b"}"#,
            r#"{"data":1,"idempotency_key":"a\nb"}"#,
        ] {
            assert_eq!(envelope(bad).unwrap_err(), ErrorCode::InvalidBody, "{bad}");
        }
        assert_eq!(
            envelope(&format!("{{\"data\":{}", "[".repeat(100_000))).unwrap_err(),
            ErrorCode::InvalidBody
        );
    }

    #[test]
    fn null_is_data() {
        // `"data":null` is a JSON value like any other; only its absence is an error.
        assert_eq!(
            &envelope(r#"{"data":null}"#).unwrap().payload.bytes[..],
            b"null"
        );
    }

    #[test]
    fn a_message_of_a_batch_names_its_device_and_what_it_leaves_out_is_the_batchs() {
        let defaults = SendDefaults {
            wait: Level::Acked,
            timeout_ms: Some(9),
        };
        let decode = |text: &str| {
            let message = Bytes::copy_from_slice(text.as_bytes());
            SendRequest::from_batch(&message, defaults).map_err(|(code, _)| code)
        };
        let (device, request) = decode(r#"{"to":{"device":"tv-1"},"data":1}"#).unwrap();
        assert_eq!(device, "tv-1");
        assert_eq!((request.wait, request.timeout_ms), (Level::Acked, Some(9)));
        let own = r#"{"to":{"device":"tv-1"},"data":1,"wait":"queued","timeout_ms":1,"ttl_ms":2,
            "collapse_key":"k","idempotency_key":"i"}"#;
        let (_, request) = decode(own).unwrap();
        assert_eq!((request.wait, request.timeout_ms), (Level::Queued, Some(1)));
        assert_eq!(request.ttl_ms, Some(2));
        assert_eq!(request.collapse_key.as_deref(), Some("k"));
        assert_eq!(request.idempotency_key.as_deref(), Some("i"));
        for (text, code) in [
            (r#"{"data":1}"#, ErrorCode::InvalidBody),
            (r#"{"to":"tv-1","data":1}"#, ErrorCode::InvalidBody),
            (r#"{"to":{"device":"a b"},"data":1}"#, ErrorCode::InvalidId),
            (r#"{"to":{"user":"ann"},"data":1}"#, ErrorCode::UnknownField),
            (r#"{"to":{"device":"tv-1"}}"#, ErrorCode::InvalidBody),
            ("7", ErrorCode::InvalidBody),
        ] {
            assert_eq!(decode(text).unwrap_err(), code, "{text}");
        }
    }
}
