//! Just enough HTTP/1.1 to read answers to pushes.

use thiserror::Error;

/// An answer at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// Its status.
    pub(super) status: u16,
    /// Bytes of head and body.
    pub(super) length: usize,
    /// Whether the server will close the connection after it.
    pub(super) is_last: bool,
}

/// An answer a push cannot go on after.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ResponseError {
    /// It is no HTTP.
    #[error("answer is not HTTP: {0}")]
    Malformed(#[from] httparse::Error),
    /// Its length is not known in advance.
    #[error("answer without Content-Length")]
    Unsized,
}

const HEADERS_MAX: usize = 64;

impl Response {
    /// Reads the answer at the front of `buf`, or `None` while it is incomplete.
    pub(super) fn parse(buf: &[u8]) -> Result<Option<Self>, ResponseError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_length) = head.parse(buf)? else {
            return Ok(None);
        };
        let status = head.code.unwrap_or(0);
        let length = head_length + body_length(status, head.headers)?;
        let is_last =
            header(head.headers, "Connection").is_some_and(|v| v.eq_ignore_ascii_case(b"close"));
        Ok((buf.len() >= length).then_some(Self {
            status,
            length,
            is_last,
        }))
    }
}

fn body_length(status: u16, headers: &[httparse::Header<'_>]) -> Result<usize, ResponseError> {
    if matches!(status, 204 | 304) {
        return Ok(0);
    }
    let text = header(headers, "Content-Length").and_then(|value| str::from_utf8(value).ok());
    text.and_then(|text| text.trim().parse().ok())
        .ok_or(ResponseError::Unsized)
}

fn header<'h>(headers: &'h [httparse::Header<'_>], name: &str) -> Option<&'h [u8]> {
    headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case(name))
        .map(|h| h.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        for cut in 0..ANSWER.len() {
            assert_eq!(Response::parse(&ANSWER[..cut]), Ok(None), "{cut}");
        }
        let whole = Response {
            status: 200,
            length: ANSWER.len(),
            is_last: false,
        };
        assert_eq!(Response::parse(ANSWER), Ok(Some(whole)));
        assert_eq!(Response::parse(&[ANSWER, ANSWER].concat()), Ok(Some(whole)));
    }

    #[test]
    fn odd_answers_are_told_apart() {
        let last = b"HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert!(Response::parse(last).unwrap().unwrap().is_last);
        assert_eq!(
            Response::parse(b"HTTP/1.1 204 x\r\n\r\n")
                .unwrap()
                .unwrap()
                .length,
            18
        );
        assert_eq!(
            Response::parse(b"HTTP/1.1 200 x\r\n\r\n"),
            Err(ResponseError::Unsized)
        );
        assert!(matches!(
            Response::parse(b"SSH-2.0-x\r\n"),
            Err(ResponseError::Malformed(_))
        ));
    }
}
