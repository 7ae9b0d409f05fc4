//! Answers as hyper writes them, for those that do not come from it: byte for byte, so that nobody can tell.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use httpdate::HttpDate;

/// The time of day as answers tell it, made once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Date {
    second: Option<u64>,
    text: [u8; DATE_BYTES],
}

impl Date {
    /// The date of this moment.
    pub(super) fn at(self, wall_ms: u64) -> Self {
        let second = (wall_ms / 1_000).min(LAST_SECOND);
        if self.second == Some(second) {
            return self;
        }
        let mut text = [b' '; DATE_BYTES];
        let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        let written = write!(&mut text[..], "{date}");
        debug_assert!(written.is_ok(), "a date is of {DATE_BYTES} bytes");
        Self {
            second: Some(second),
            text,
        }
    }
}

/// Appends the answer to a request of HTTP/1.1 whose connection stays.
pub(super) fn write(response: &Response<Bytes>, date: &Date, out: &mut Vec<u8>) {
    let (status, body) = (response.status(), response.body());
    out.reserve(HEAD_BYTES + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = status.canonical_reason().unwrap_or("<none>");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let written = write!(out, "content-length: {}\r\ndate: ", body.len());
    debug_assert!(written.is_ok(), "a Vec takes every byte");
    out.extend_from_slice(&date.text);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Of `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;
/// The last second of the year 9999, after which dates have no such form.
const LAST_SECOND: u64 = 253_402_300_799;
/// Room for a usual head.
const HEAD_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::wire::answer;

    #[test]
    fn an_answer_is_whole() {
        let mut response = answer::json(StatusCode::ACCEPTED, &7);
        let value = http::HeaderValue::from_static("r");
        response.headers_mut().insert("x-request-id", value);
        let mut out = Vec::new();
        write(&response, &Date::default().at(784_111_777_999), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nx-request-id: r\r\n\
             content-length: 1\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n7"
        );
    }

    #[test]
    fn the_date_moves_with_the_second() {
        let date = Date::default().at(784_111_777_000);
        assert_eq!(date.at(784_111_777_999).text, date.text);
        assert_eq!(
            &date.at(784_111_778_000).text,
            b"Sun, 06 Nov 1994 08:49:38 GMT"
        );
    }
}
