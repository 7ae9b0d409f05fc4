//! The broadcast call as a pure function: a request's parts in, what it asks for out.

use bytes::Bytes;
use http::HeaderMap;

use crate::protocol::header::apply_headers;
use crate::protocol::push::{Refused, is_envelope};
use crate::wire::broadcast::BroadcastRequest;
use crate::wire::error::ErrorCode;

/// Reads what a broadcast asks for from its headers and body. A body of type `application/json` is the envelope, any other
/// type is the payload itself.
///
/// # Errors
/// The code and cause to answer with.
pub fn broadcast_request(
    headers: &HeaderMap,
    query: Option<&str>,
    body: &Bytes,
    payload_bytes_max: usize,
) -> Result<BroadcastRequest, Refused> {
    if query.is_some_and(|query| !query.is_empty()) {
        let cause = "a broadcast takes no query; labels stand in the envelope";
        return Err((ErrorCode::BadRequest, cause.into()));
    }
    let mut request = if is_envelope(headers) {
        BroadcastRequest::from_envelope(body).map_err(|(code, cause)| (code, cause.into()))?
    } else {
        BroadcastRequest::from_plain(body)
    };
    apply_headers(&mut request.message, headers)?;
    if request.message.collapse_key.is_some() {
        let cause = "a broadcast takes no collapse key";
        return Err((ErrorCode::BadRequest, cause.into()));
    }
    if request.message.payload.bytes.len() > payload_bytes_max {
        let cause =
            format!("the payload is over limits.message_bytes_max ({payload_bytes_max} bytes)");
        return Err((ErrorCode::PayloadTooLarge, cause.into()));
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)], body: &str) -> Result<BroadcastRequest, ErrorCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        broadcast_request(&map, None, &body, 16).map_err(|(code, _)| code)
    }

    #[test]
    fn any_body_but_an_envelope_is_the_payload_for_everybody() {
        let plain = read(&[("ttl", "3"), ("idempotency-key", "k")], "hello").unwrap();
        assert_eq!(&plain.message.payload.bytes[..], b"hello");
        assert_eq!(plain.message.ttl_ms, Some(3_000));
        assert_eq!(plain.message.idempotency_key.as_deref(), Some("k"));
        assert_eq!(plain.audience, Default::default());
        let json = [("content-type", "application/json; charset=utf-8")];
        let envelope = read(&json, r#"{"data":1,"labels":{"a":"b"}}"#).unwrap();
        assert_eq!(envelope.audience.labels.len(), 1);
        assert_eq!(read(&json, "hello").unwrap_err(), ErrorCode::InvalidBody);
    }

    #[test]
    fn what_makes_no_sense_for_all_is_refused() {
        assert_eq!(
            read(&[("topic", "score")], "1").unwrap_err(),
            ErrorCode::BadRequest
        );
        assert_eq!(
            read(&[], "seventeen letters").unwrap_err(),
            ErrorCode::PayloadTooLarge
        );
        let query = broadcast_request(&HeaderMap::new(), Some("wait=acked"), &Bytes::new(), 16);
        assert_eq!(query.unwrap_err().0, ErrorCode::BadRequest);
    }
}
