//! A small HTTP/1.1 client that can also say what no client should.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::deadline::PATIENCE;

/// One connection.
#[derive(Debug)]
pub(crate) struct Http(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        Self::over(stream)
    }

    /// Over a connection that is there already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends bytes as they are; false when the other side no longer takes them.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_ref().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a request and reads its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(encode(method, path, headers, body));
        let answer = self.answer_to(method);
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Reads the next answer; `None` when the connection ends first.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    /// Reads the head of the answer to an upgrade, which may be a 101.
    pub(crate) fn answer_to_upgrade(&mut self) -> Option<Answer> {
        self.answer_to("HEAD")
    }

    fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let has_body = method != "HEAD" && status >= 200 && status != 204 && status != 304;
        if has_body {
            answer.body = self.body_of(&answer)?;
        }
        Some(answer)
    }

    fn body_of(&mut self, answer: &Answer) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).ok()?;
                let start = body.len();
                body.resize(start + size, 0);
                self.0.read_exact(&mut body[start..]).ok()?;
                self.line()?;
                if size == 0 {
                    return Some(body);
                }
            }
        }
        let length = answer.header("content-length");
        match length.and_then(|length| length.parse().ok()) {
            Some(length) => {
                body.resize(length, 0);
                self.0.read_exact(&mut body).ok()?;
            }
            None => drop(self.0.read_to_end(&mut body).ok()?),
        }
        Some(body)
    }

    /// Takes over a connection.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next chunk of an answer that has no end; `None` when it had one, or the connection.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut chunk = vec![0; size];
        self.0.read_exact(&mut chunk).ok()?;
        self.line()?;
        (size > 0).then_some(chunk)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end_matches("\r\n").to_owned())
    }

    /// Says that nothing more comes from here.
    pub(crate) fn shut_down_writing(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let linger = Some(Duration::ZERO);
        SockRef::from(self.0.get_ref()).set_linger(linger).unwrap();
    }

    /// Everything until the other side closes, and whether it did before nothing had come for this long.
    pub(crate) fn read_to_close(&mut self, patience: Duration) -> (Vec<u8>, bool) {
        self.0.get_ref().set_read_timeout(Some(patience)).unwrap();
        let mut rest = Vec::new();
        let end = self.0.read_to_end(&mut rest);
        // A reset ends it as well.
        let is_open = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        (rest, !is_open)
    }

    /// Everything until the other side closes. Panics when it does not close.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("not closed: {:?}", String::from_utf8_lossy(&rest))
            }
            // A reset ends it as well.
            _ => rest,
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        let json = serde_json::from_slice(&self.body);
        json.unwrap_or_else(|_| panic!("not JSON: {} {:?}", self.status, self.text()))
    }

    /// Checks that it is this error, in the one shape errors have.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{}", self.text());
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
        assert!(error["retryable"].is_boolean(), "{}", self.text());
        assert!(
            error["request_id"]
                .as_str()
                .is_some_and(|id| !id.is_empty()),
            "no request_id: {}",
            self.text()
        );
    }
}

/// The bytes of a request.
pub(crate) fn encode(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}
