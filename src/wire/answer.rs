//! Finished HTTP answers: what every listener that speaks HTTP says, whichever thread it says it on.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::wire::api::ErrorBody;
use crate::wire::error::ErrorCode;

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // Our own structs of strings and numbers always serialise.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The answer for an error: its status and body, and the headers that tell the caller what to do about it.
pub fn error(code: ErrorCode, cause: &str, request_id: &str) -> Response<Bytes> {
    failed(code, &ErrorBody::new(code, cause, request_id))
}

/// The answer for an error whose body says more than its cause.
pub fn failed(code: ErrorCode, body: &ErrorBody) -> Response<Bytes> {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    let advice = match code.status() {
        401 => Some((WWW_AUTHENTICATE, "Bearer")),
        429 | 503 => Some((RETRY_AFTER, "1")),
        409 if code.is_retryable() => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = advice {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// The header that says that an answer was given before, to the same request.
pub const REPLAYED: &str = "idempotent-replayed";
/// The header that names a request in answers and logs.
pub const REQUEST_ID: &str = "x-request-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_about_it() {
        for code in ErrorCode::ALL {
            let response = error(code, "because", "r-1");
            let headers = response.headers();
            assert_eq!(response.status().as_u16(), code.status());
            assert_eq!(
                headers.contains_key(RETRY_AFTER),
                matches!(code.status(), 429 | 503) || code == ErrorCode::IdempotencyPending
            );
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), code.status() == 401);
            let body: ErrorBody = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body, ErrorBody::new(code, "because", "r-1"));
        }
    }
}
