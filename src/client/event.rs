//! Server-sent events, as a reader of them sees them (WHATWG HTML, section 9.2).
//!
//! By hand, because the parsers on offer want an asynchronous stream, and what is read here is lines.

use std::io::{BufRead, BufReader, Read};

use super::error::ClientError;

/// What a node tells about its lines, as it happens. Ends when the connection does.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    place: String,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// What to name when coming back.
    pub id: String,
    /// Its name: `opened`, `renewed`, `closed` or `missed`.
    pub event: String,
    /// Its body, JSON.
    pub data: String,
}

impl Events {
    pub(super) fn new(body: impl Read + Send + 'static, place: &str) -> Self {
        Self {
            lines: BufReader::new(Box::new(body)),
            place: place.into(),
        }
    }

    fn receive(&mut self) -> std::io::Result<Option<ServerEvent>> {
        let mut event = ServerEvent::default();
        loop {
            let mut line = String::new();
            if (&mut self.lines)
                .take(LINE_BYTES_MAX)
                .read_line(&mut line)?
                == 0
            {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() && !event.data.is_empty() {
                return Ok(Some(event));
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => event.id = value.into(),
                "event" => event.event = value.into(),
                "data" => event.data.push_str(value),
                // Comments are heartbeats; other fields are for browsers.
                _ => {}
            }
        }
    }
}

impl Iterator for Events {
    type Item = Result<ServerEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.receive()
            .map_err(|source| ClientError::network(&self.place, source))
            .transpose()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Longer than any line of a node's.
const LINE_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_and_comments_are_passed_over() {
        let text = ":\n\nid: a-1-2\r\nevent: closed\ndata: {\"a\":\ndata:1}\n\n: alive\nretry: 5\n\nevent:opened\ndata: {}\n\nid: cut";
        let events: Vec<_> = Events::new(text.as_bytes(), "n")
            .map(Result::unwrap)
            .collect();
        let event = |id: &str, event: &str, data: &str| ServerEvent {
            id: id.into(),
            event: event.into(),
            data: data.into(),
        };
        assert_eq!(
            events,
            [
                event("a-1-2", "closed", "{\"a\":1}"),
                event("", "opened", "{}")
            ]
        );
    }
}
