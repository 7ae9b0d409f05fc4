//! How a server wants to be spoken to: where a line is opened and where a message for it is posted.
//!
//! Everything that differs between push servers stands here; the swarm and the sender know only these requests.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use thiserror::Error;

use crate::make::Make;
use crate::name::{LineId, Names};
use crate::token::Tokens;

/// The requests one kind of server understands.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    /// Whose it is.
    pub(crate) make: Make,
    /// Who the lines are.
    pub(crate) names: Names,
    /// Path and query of a line's upgrade request.
    pub(crate) line_path: Template,
    /// Path and query of a push.
    pub(crate) push_path: Template,
    /// Offered in `Sec-WebSocket-Protocol`.
    pub(crate) subprotocol: Option<String>,
    /// Sent by each line as its `Authorization`.
    pub(crate) tokens: Option<Tokens>,
    /// More header lines for both, such as an API key: `name: value`.
    pub(crate) headers: Vec<String>,
}

impl Dialect {
    /// Appends the upgrade request of a line, and what the line says first once it stands.
    pub(crate) fn write_upgrade(&self, out: &mut Vec<u8>, host: &str, line: LineId, key: &str) {
        put(
            out,
            format_args!(
                "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
                self.line_path.fill(line, &self.names),
            ),
        );
        if let Some(name) = &self.subprotocol {
            put(out, format_args!("Sec-WebSocket-Protocol: {name}\r\n"));
        }
        let token = self.tokens.as_ref().and_then(|tokens| tokens.of(line));
        if let Some(token) = token {
            put(out, format_args!("Authorization: Bearer {token}\r\n"));
        }
        self.end_head(out, token.is_some());
        if self.make == Make::Centrifugo {
            let token = token.map(|token| format!("\"token\":\"{token}\""));
            let device = self.names.device(line);
            put(
                out,
                format_args!(
                    "{{\"id\":1,\"connect\":{{{}}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{device}\"}}}}",
                    token.unwrap_or_default(),
                ),
            );
        }
    }

    /// Appends the request that pushes `body`, which is a JSON string, to a line.
    pub(crate) fn write_push(&self, out: &mut Vec<u8>, host: &str, line: LineId, body: &[u8]) {
        let (kind, before, after) = match self.make {
            Make::Centrifugo => {
                let device = self.names.device(line);
                let before = format!("{{\"channel\":\"{device}\",\"data\":");
                (CENTRIFUGO_CALL, before, "}")
            }
            Make::Tautline
            | Make::Nchan
            | Make::NchanDefault
            | Make::Axum
            | Make::Bun
            | Make::Raw => ("text/plain", String::new(), ""),
        };
        let length = before.len() + body.len() + after.len();
        put(
            out,
            format_args!(
                "POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n",
                self.push_path.fill(line, &self.names),
            ),
        );
        self.end_head(out, false);
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(after.as_bytes());
    }

    /// A line's own token takes the place of an `Authorization` given for all requests.
    fn end_head(&self, out: &mut Vec<u8>, is_authorized: bool) {
        let is_authorization = |header: &str| {
            let name = header.split(':').next().unwrap_or_default();
            name.eq_ignore_ascii_case("authorization")
        };
        for header in &self.headers {
            if is_authorized && is_authorization(header) {
                continue;
            }
            put(out, format_args!("{header}\r\n"));
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// It answers every call with 200, and errors in the body, unless one asks for a status.
const CENTRIFUGO_CALL: &str = "application/json\r\nX-Centrifugo-Error-Mode: transport";

/// A path with `{device}` and `{account}` left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Device,
    Account,
}

/// A path template that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TemplateError {
    /// It does not start at the root.
    #[error("a path starts with `/`")]
    Relative,
    /// A blank or control byte would break the request line.
    #[error("a path has no blanks and no control characters")]
    Blank,
    /// A brace without its partner.
    #[error("`{{` without `}}`")]
    Unclosed,
    /// Something else than the two known names.
    #[error("`{{{0}}}` is unknown; `{{device}}` and `{{account}}` are known")]
    UnknownName(String),
}

impl Template {
    /// `/`, for servers that are not pushed to.
    pub(crate) fn root() -> Self {
        Self(vec![Part::Text("/".to_owned())])
    }

    /// A path of our own.
    pub(crate) fn fixed(path: &'static str) -> Self {
        let known = path.parse();
        debug_assert!(known.is_ok(), "{path}");
        known.unwrap_or_else(|_| Self::root())
    }

    /// The same path with one more query parameter.
    pub(crate) fn with_query(&self, name: &str, value: &str) -> Self {
        let has_query = self
            .0
            .iter()
            .any(|part| matches!(part, Part::Text(text) if text.contains('?')));
        let joint = if has_query { '&' } else { '?' };
        let mut parts = self.0.clone();
        parts.push(Part::Text(format!("{joint}{name}={value}")));
        Self(parts)
    }

    /// The path of a line, to be written.
    pub(crate) fn fill(&self, line: LineId, names: &Names) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            self.0
                .iter()
                .try_for_each(|part| part.write(f, line, names))
        })
    }
}

impl Part {
    fn write(&self, f: &mut fmt::Formatter<'_>, line: LineId, names: &Names) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Device => f.write_str(&names.device(line)),
            Self::Account => f.write_str(&names.account(line)),
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(path: &str) -> Result<Self, TemplateError> {
        if !path.starts_with('/') {
            return Err(TemplateError::Relative);
        }
        if path
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
        {
            return Err(TemplateError::Blank);
        }
        let mut parts = Vec::new();
        let mut rest = path;
        while let Some((text, tail)) = rest.split_once('{') {
            let (name, tail) = tail.split_once('}').ok_or(TemplateError::Unclosed)?;
            parts.push(Part::Text(text.to_owned()));
            parts.push(Part::named(name)?);
            rest = tail;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl Part {
    fn named(name: &str) -> Result<Self, TemplateError> {
        match name {
            "device" => Ok(Self::Device),
            "account" => Ok(Self::Account),
            other => Err(TemplateError::UnknownName(other.to_owned())),
        }
    }
}

/// Formats into memory, which cannot fail.
fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ACCOUNT_LINES;

    fn dialect() -> Dialect {
        Dialect {
            make: Make::Tautline,
            names: Names::new(0, 100, ACCOUNT_LINES),
            line_path: "/ws?device_id={device}&user_id={account}".parse().unwrap(),
            push_path: "/v1/devices/{device}/messages".parse().unwrap(),
            subprotocol: Some("tautline.v1.raw".to_owned()),
            tokens: None,
            headers: vec!["Authorization: Bearer k".to_owned()],
        }
    }

    #[test]
    fn an_upgrade_names_device_and_account() {
        let mut out = Vec::new();
        dialect().write_upgrade(&mut out, "h:1", LineId(42), "KEY");
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "GET /ws?device_id=dev-000000000042&user_id=u0000010 HTTP/1.1\r\nHost: h:1\r\n"
        ));
        assert!(text.ends_with(
            "Sec-WebSocket-Key: KEY\r\nSec-WebSocket-Protocol: tautline.v1.raw\r\nAuthorization: Bearer k\r\n\r\n"
        ));
    }

    #[test]
    fn a_push_carries_its_body() {
        let mut out = Vec::new();
        dialect().write_push(&mut out, "h", LineId(7), b"abc");
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /v1/devices/dev-000000000007/messages HTTP/1.1\r\n"));
        assert!(text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\nabc"));
    }

    #[test]
    fn a_line_of_centrifugo_connects_and_subscribes_once_it_stands() {
        let mut out = Vec::new();
        let dialect = Dialect {
            make: Make::Centrifugo,
            push_path: Make::Centrifugo.push_path().unwrap(),
            ..dialect()
        };
        dialect.write_upgrade(&mut out, "h", LineId(7), "KEY");
        let text = String::from_utf8(out).unwrap();
        let (_, greeting) = text.split_once("\r\n\r\n").unwrap();
        let commands: Vec<serde_json::Value> = greeting
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(commands[0]["connect"], serde_json::json!({}));
        assert_eq!(commands[1]["subscribe"]["channel"], "dev-000000000007");
        let mut out = Vec::new();
        dialect.write_push(&mut out, "h", LineId(7), b"\"abc\"");
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /api/publish ") && head.contains("Authorization: Bearer k"));
        assert!(
            head.contains(
                "Content-Type: application/json\r\nX-Centrifugo-Error-Mode: transport\r\n"
            )
        );
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"channel": "dev-000000000007", "data": "abc"})
        );
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in ["ws", "/a b", "/{device", "/{user}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
