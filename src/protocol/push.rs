//! The sending API's hot calls as pure functions: a request's parts in, a decision out.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;

use crate::base::id::is_valid_id;
use crate::protocol::field::Fields;
use crate::protocol::header::{apply_headers, refuse_headers};
use crate::wire::api::Level;
use crate::wire::batch::Batch;
use crate::wire::envelope::{INVALID_DEVICE_ID, SendDefaults, SendRequest};
use crate::wire::error::ErrorCode;
use crate::wire::payload::Payload;

/// What a request asks for, told by its method and path.
#[derive(Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `POST /v1/devices/{device_id}/messages`.
    Send(Cow<'a, str>),
    /// `POST /v1/users/{user_id}/messages`.
    SendToUser(Cow<'a, str>),
    /// `POST /v1/messages:batch`.
    Batch,
    /// `GET` or `HEAD /v1/devices/{device_id}`.
    Inspect(Cow<'a, str>),
    /// Anything else: for the control plane.
    Other,
}

/// A refusal: the word of the error table, and the cause for people.
pub type Refused = (ErrorCode, Cow<'static, str>);

impl<'a> Call<'a> {
    /// Recognises the hot calls.
    ///
    /// # Errors
    /// `invalid_id` when the path names a device or an account that none can be called.
    pub fn of(method: &Method, path: &'a str) -> Result<Self, Refused> {
        if path == "/v1/messages:batch" && *method == Method::POST {
            return Ok(Self::Batch);
        }
        if let Some(rest) = path.strip_prefix("/v1/users/") {
            return match (rest.strip_suffix("/messages"), method) {
                (Some(user), &Method::POST) => user_id(user).map(Self::SendToUser),
                _ => Ok(Self::Other),
            };
        }
        let Some(rest) = path.strip_prefix("/v1/devices/") else {
            return Ok(Self::Other);
        };
        match (rest.strip_suffix("/messages"), method) {
            (Some(device), &Method::POST) => device_id(device).map(Self::Send),
            (None, &Method::GET | &Method::HEAD) if !rest.contains('/') => {
                device_id(rest).map(Self::Inspect)
            }
            _ => Ok(Self::Other),
        }
    }
}

/// Reads what a send asks for from its headers, query and body.
///
/// A body of type `application/json` is the envelope, any other type is the payload itself.
///
/// # Errors
/// The code and cause to answer with.
pub fn send_request(
    headers: &impl Fields,
    query: Option<&str>,
    body: &Bytes,
) -> Result<SendRequest, Refused> {
    check_encoding(headers)?;
    let mut request = if is_envelope(headers) {
        SendRequest::from_envelope(body).map_err(|(code, cause)| (code, cause.into()))?
    } else {
        SendRequest::plain(Payload::from_plain(body.clone()))
    };
    apply_headers(&mut request, headers)?;
    let (wait, timeout_ms) = options(query.unwrap_or_default())?;
    request.wait = wait.unwrap_or(request.wait);
    request.timeout_ms = timeout_ms.or(request.timeout_ms);
    Ok(request)
}

/// Reads what a batch asks for: its messages, not looked into yet, and what holds for those that say nothing else.
///
/// # Errors
/// The code and cause to answer the batch as a whole with.
pub fn batch_request(
    headers: &impl Fields,
    query: Option<&str>,
    body: &Bytes,
    messages_max: u32,
) -> Result<(Vec<Bytes>, SendDefaults), Refused> {
    check_encoding(headers)?;
    refuse_headers(headers)?;
    let (wait, timeout_ms) = options(query.unwrap_or_default())?;
    let messages =
        Batch::split(body, messages_max).map_err(|(code, cause)| (code, cause.into()))?;
    let defaults = SendDefaults {
        wait: wait.unwrap_or_default(),
        timeout_ms,
    };
    Ok((messages, defaults))
}

fn check_encoding(headers: &impl Fields) -> Result<(), Refused> {
    if headers.has("content-encoding") {
        let cause = "a content encoding is not taken; send the body as it is";
        return Err((ErrorCode::UnsupportedMediaType, cause.into()));
    }
    Ok(())
}

pub(super) fn is_envelope(headers: &impl Fields) -> bool {
    let Some(content_type) = headers.text("content-type") else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// The options of a query: the level and the deadline.
fn options(query: &str) -> Result<(Option<Level>, Option<u64>), Refused> {
    let (mut wait, mut timeout_ms) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "wait" => {
                let fault = "wait is queued, written or acked";
                let level = Level::from_word(value);
                wait = Some(level.ok_or_else(|| (ErrorCode::BadRequest, fault.into()))?);
            }
            "timeout_ms" => {
                let fault = "timeout_ms is a number of milliseconds";
                let timeout = value.parse().ok();
                timeout_ms = Some(timeout.ok_or_else(|| (ErrorCode::BadRequest, fault.into()))?);
            }
            _ => {
                let cause = "the query takes wait and timeout_ms, and nothing else";
                return Err((ErrorCode::BadRequest, cause.into()));
            }
        }
    }
    Ok((wait, timeout_ms))
}

fn device_id(segment: &str) -> Result<Cow<'_, str>, Refused> {
    id(segment).ok_or((ErrorCode::InvalidId, Cow::Borrowed(INVALID_DEVICE_ID)))
}

fn user_id(segment: &str) -> Result<Cow<'_, str>, Refused> {
    let cause = "a user id is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
    id(segment).ok_or((ErrorCode::InvalidId, Cow::Borrowed(cause)))
}

fn id(segment: &str) -> Option<Cow<'_, str>> {
    let id = percent_decode_str(segment).decode_utf8();
    id.ok().filter(|id| is_valid_id(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::*;

    fn call(method: Method, path: &str) -> Result<Call<'_>, ErrorCode> {
        Call::of(&method, path).map_err(|(code, _)| code)
    }

    #[test]
    fn hot_calls_are_told_from_the_rest() {
        assert_eq!(
            call(Method::POST, "/v1/devices/tv-1/messages"),
            Ok(Call::Send("tv-1".into()))
        );
        assert_eq!(
            call(Method::POST, "/v1/devices/a%3Ab/messages"),
            Ok(Call::Send("a:b".into()))
        );
        assert_eq!(
            call(Method::HEAD, "/v1/devices/tv-1"),
            Ok(Call::Inspect("tv-1".into()))
        );
        assert_eq!(
            call(Method::POST, "/v1/users/ann/messages"),
            Ok(Call::SendToUser("ann".into()))
        );
        assert_eq!(call(Method::POST, "/v1/messages:batch"), Ok(Call::Batch));
        for (method, path) in [
            (Method::GET, "/v1/messages:batch"),
            (Method::POST, "/v1/messages"),
            (Method::GET, "/v1/users/ann/devices"),
            (Method::GET, "/v1/users/ann/messages"),
            (Method::GET, "/v1/devices/tv-1/messages"),
            (Method::DELETE, "/v1/devices/tv-1"),
            (Method::GET, "/v1/devices/tv-1/inbox"),
            (Method::GET, "/v1/connections"),
        ] {
            assert_eq!(call(method, path), Ok(Call::Other), "{path}");
        }
    }

    #[test]
    fn ids_outside_the_alphabet_are_named() {
        for bad in ["", "a%20b", "a%00", "%ff", "a%2Fb", &"x".repeat(129)] {
            let path = format!("/v1/devices/{bad}/messages");
            assert_eq!(
                call(Method::POST, &path),
                Err(ErrorCode::InvalidId),
                "{bad:?}"
            );
            let path = format!("/v1/users/{bad}/messages");
            assert_eq!(call(Method::POST, &path), Err(ErrorCode::InvalidId));
        }
    }

    #[test]
    fn the_content_type_tells_the_envelope_from_the_payload() {
        let body = Bytes::from_static(br#"{"data":1}"#);
        let mut headers = HeaderMap::new();
        assert_eq!(
            send_request(&headers, None, &body).unwrap().payload.bytes,
            body
        );
        headers.insert(
            header::CONTENT_TYPE,
            "Application/JSON; charset=utf-8".parse().unwrap(),
        );
        assert_eq!(
            &send_request(&headers, None, &body).unwrap().payload.bytes[..],
            b"1"
        );
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(
            send_request(&headers, None, &body).unwrap_err().0,
            ErrorCode::UnsupportedMediaType
        );
    }

    #[test]
    fn the_query_sets_the_level_and_the_deadline_and_nothing_else() {
        let send = |query| send_request(&HeaderMap::new(), Some(query), &Bytes::new());
        let request = send("wait=queued&timeout_ms=250").unwrap();
        assert_eq!(
            (request.wait, request.timeout_ms),
            (Level::Queued, Some(250))
        );
        for bad in ["wait=soon", "timeout_ms=-1", "timeout_ms=", "ttl=3", "wait"] {
            assert_eq!(send(bad).unwrap_err().0, ErrorCode::BadRequest, "{bad}");
        }
    }

    #[test]
    fn a_batch_has_defaults_in_its_query_and_no_options_in_its_headers() {
        let body = Bytes::from_static(br#"{"messages":[1,2]}"#);
        let batch = |headers: &HeaderMap, query| batch_request(headers, Some(query), &body, 2);
        let (messages, defaults) = batch(&HeaderMap::new(), "wait=acked&timeout_ms=7").unwrap();
        assert_eq!(messages, ["1", "2"]);
        assert_eq!(
            (defaults.wait, defaults.timeout_ms),
            (Level::Acked, Some(7))
        );
        for name in ["ttl", "topic", "idempotency-key"] {
            let mut headers = HeaderMap::new();
            headers.insert(name, "1".parse().unwrap());
            let (code, cause) = batch(&headers, "").unwrap_err();
            assert_eq!(code, ErrorCode::BadRequest);
            assert!(cause.starts_with(name), "{cause}");
        }
        let too_many = batch_request(&HeaderMap::new(), None, &body, 1).unwrap_err();
        assert_eq!(too_many.0, ErrorCode::PayloadTooLarge);
    }
}
