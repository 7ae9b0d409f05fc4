//! Small complete answers on the devices port: refusals, mostly.

use std::borrow::Cow;
use std::io::Write as _;

use http::StatusCode;

/// An answer that ends its connection.
#[derive(Clone, Debug)]
pub struct Response<'a> {
    status: StatusCode,
    headers: Vec<(&'static str, Cow<'a, str>)>,
    body: &'a str,
}

impl<'a> Response<'a> {
    /// An answer with a JSON body; an empty body is left out.
    pub fn new(status: StatusCode, body: &'a str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        let value = value.into();
        debug_assert!(
            !value.contains(['\r', '\n', '\0']),
            "a header value is one line"
        );
        self.headers.push((name, value));
        self
    }

    /// Asks to come back after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header("Retry-After", seconds.to_string())
    }

    /// Appends the bytes for the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        #[expect(clippy::expect_used, reason = "writing to a Vec cannot fail")]
        self.write(out).expect("a Vec takes every byte");
    }

    fn write(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        write!(out, "HTTP/1.1 {} {reason}\r\n", self.status.as_u16())?;
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n")?;
        }
        if !self.body.is_empty() {
            out.extend_from_slice(b"Content-Type: application/json\r\n");
        }
        let length = self.body.len();
        write!(
            out,
            "Content-Length: {length}\r\nConnection: close\r\n\r\n{}",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response<'_>) -> String {
        let mut out = Vec::new();
        response.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refusal_is_complete_and_closes() {
        let refusal = Response::new(StatusCode::METHOD_NOT_ALLOWED, "{}").header("Allow", "GET");
        assert_eq!(
            encoded(&refusal),
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        );
    }

    #[test]
    fn a_full_node_says_when_to_come_back() {
        let refusal = Response::new(StatusCode::SERVICE_UNAVAILABLE, "").retry_after(7);
        assert_eq!(
            encoded(&refusal),
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
    }
}
