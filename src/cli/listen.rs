//! `tautline listen`: a device in the terminal, which behaves as a good device should.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::error::{CliError, check_id};
use super::terminal::{now, sleep};
use super::{Options, terminal};
use crate::client::backoff::Backoff;
use crate::client::line::{Line, LineEvent, LineOptions};

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// The device's id; with a token, the token says it.
    #[arg(required_unless_present = "token")]
    device: Option<String>,
    /// Where to connect.
    #[arg(long, env = "TAUTLINE_URL", default_value = "ws://127.0.0.1:7400/ws")]
    url: String,
    /// A file with the certificates of the authorities that vouch for the node; for wss:// and instead of the system's.
    #[arg(long, value_name = "FILE", env = "TAUTLINE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The device's token.
    #[arg(long, env = "TAUTLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The account that owns the device, in dev mode.
    #[arg(long)]
    user: Option<String>,
    /// Prints payloads as they come, without frames around them on the line.
    #[arg(long)]
    raw: bool,
    /// Ends after the first message.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Ends after so many messages.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Listen {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let mut listener = Listener {
            line_options: self.line_options()?,
            left: if self.once { Some(1) } else { self.count },
            json: options.json,
        };
        listener.listen()?;
        Ok(ExitCode::SUCCESS)
    }

    fn line_options(&self) -> Result<LineOptions, CliError> {
        for (what, id) in [("device id", &self.device), ("user id", &self.user)] {
            id.as_deref().map_or(Ok(()), |id| check_id(what, id))?;
        }
        let names_itself = self.token.is_none();
        Ok(LineOptions {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            device_id: self.device.clone().filter(|_| names_itself),
            user_id: self.user.clone().filter(|_| names_itself),
            token: self.token.clone(),
            raw: self.raw,
        })
    }
}

struct Listener {
    line_options: LineOptions,
    /// Messages to come before the end; `None` for ever.
    left: Option<u64>,
    json: bool,
}

/// Why a line is no longer read.
enum Ending {
    /// All messages that were wanted have come.
    Satisfied,
    /// The node asked the device to open another line, after a wait.
    GoAway(Duration),
    /// It closed, with code and reason.
    Closed(u16, String),
}

impl Listener {
    /// Reconnects until it has seen enough or is told not to come back.
    fn listen(&mut self) -> Result<(), CliError> {
        let mut backoff = Backoff::default();
        // Who mistyped an address wants to know at once.
        let mut line = Line::open(&self.line_options)?;
        let mut opened = now();
        loop {
            match self.receive(&mut line)? {
                Ending::Satisfied => return Ok(line.close()?),
                Ending::GoAway(wait) => {
                    sleep(wait);
                    let next = self.reopen(&mut backoff)?;
                    self.leave(std::mem::replace(&mut line, next))?;
                }
                Ending::Closed(code, reason) if is_final(code) => {
                    return Err(CliError::ClosedForGood {
                        code,
                        reason: terminal::printable(&reason),
                    });
                }
                Ending::Closed(code, reason) => {
                    let wait = backoff.next(opened.elapsed(), rand::random());
                    terminal::note(&format!(
                        "closed with {code} {}; back in {wait:.1?}",
                        terminal::printable(&reason)
                    ));
                    sleep(wait);
                    line = self.reopen(&mut backoff)?;
                }
            }
            opened = now();
            if self.left == Some(0) {
                return Ok(());
            }
        }
    }

    /// Opens another line, as often as it takes.
    fn reopen(&self, backoff: &mut Backoff) -> Result<Line, CliError> {
        loop {
            match Line::open(&self.line_options) {
                Err(error) if error.is_retryable() => {
                    let wait = backoff.next(Duration::ZERO, rand::random());
                    terminal::note(&format!("{error}; again in {wait:.1?}"));
                    sleep(wait);
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// Prints messages until the line ends or is to be left.
    fn receive(&mut self, line: &mut Line) -> Result<Ending, CliError> {
        loop {
            match line.receive()? {
                LineEvent::Frame(frame) => {
                    if let Some(wait) = self.handle_frame(&frame)? {
                        return Ok(Ending::GoAway(wait));
                    }
                }
                LineEvent::Payload(payload) => self.handle_payload(&payload)?,
                LineEvent::Closed(code, reason) => return Ok(Ending::Closed(code, reason)),
            }
            if self.left == Some(0) {
                return Ok(Ending::Satisfied);
            }
        }
    }

    /// Leaves the old line once the new one stands: nothing that is still on its way gets lost.
    fn leave(&mut self, mut old: Line) -> Result<(), CliError> {
        old.close()?;
        while self.left != Some(0) {
            match old.receive()? {
                LineEvent::Frame(frame) => drop(self.handle_frame(&frame)?),
                LineEvent::Payload(payload) => self.handle_payload(&payload)?,
                LineEvent::Closed(..) => break,
            }
        }
        Ok(())
    }

    /// Prints a frame; for a go-away, the wait it asks for.
    fn handle_frame(&mut self, frame: &Value) -> Result<Option<Duration>, CliError> {
        if self.json {
            terminal::print_json(frame)?;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "welcome" if !self.json => {
                let device = terminal::plain(&frame["device_id"]);
                terminal::note(&format!(
                    "listening as {device} on {}",
                    self.line_options.url
                ));
            }
            "message" => {
                if !self.json {
                    let data = if frame["data_b64"].is_null() {
                        &frame["data"]
                    } else {
                        &frame["data_b64"]
                    };
                    let from = &frame["from"]["device"];
                    terminal::print(&match from.is_null() {
                        true => data.to_string(),
                        false => format!("{}: {data}", terminal::plain(from)),
                    })?;
                }
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            "goaway" => {
                let wait = frame["reconnect_after_ms"]
                    .as_u64()
                    .unwrap_or_default()
                    .min(GOAWAY_WAIT_MS_MAX);
                terminal::note(&format!(
                    "asked to go away: {}",
                    terminal::plain(&frame["reason"])
                ));
                return Ok(Some(Duration::from_millis(wait)));
            }
            _ => {}
        }
        Ok(None)
    }

    fn handle_payload(&mut self, payload: &[u8]) -> Result<(), CliError> {
        let text = String::from_utf8_lossy(payload);
        if self.json {
            terminal::print_json(&json!({ "payload": text }))?;
        } else {
            terminal::print(&terminal::printable(&text))?;
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }
}

/// The node does not want this device back; RFC codes for what trying again would not mend.
fn is_final(code: u16) -> bool {
    matches!(code, 1002 | 1003 | 1007 | 1008 | 1009 | 1010 | 4500..)
}

const GOAWAY_WAIT_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use tungstenite::handshake::server::{Request, Response};
    use tungstenite::{WebSocket, accept_hdr};

    use super::*;

    #[expect(
        clippy::result_large_err,
        reason = "the shape of the library's callback"
    )]
    fn accept(node: &TcpListener) -> WebSocket<TcpStream> {
        let respond = |_: &Request, mut response: Response| {
            let protocol = "tautline.v1.json".parse().unwrap();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        accept_hdr(node.accept().unwrap().0, respond).unwrap()
    }

    #[test]
    fn on_a_go_away_the_new_line_comes_first_and_nothing_is_lost() {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", node.local_addr().unwrap());
        let node = thread::spawn(move || {
            let mut first = accept(&node);
            let goaway = json!({"type": "goaway", "reason": "max_age", "reconnect_after_ms": 1});
            first.send(goaway.to_string().into()).unwrap();
            let mut second = accept(&node);
            let message = json!({"type": "message", "data": "late"}).to_string();
            first.send(message.clone().into()).unwrap();
            assert!(first.read().unwrap().is_close());
            first.flush().unwrap_or_default();
            second.send(message.into()).unwrap();
            second.read().unwrap().is_close()
        });
        let line_options = LineOptions {
            url,
            ..LineOptions::default()
        };
        let mut listener = Listener {
            line_options,
            left: Some(2),
            json: false,
        };
        listener.listen().unwrap();
        assert!(node.join().unwrap());
    }

    #[test]
    fn codes_of_mistakes_and_above_4500_are_final() {
        for (code, expected) in [
            (1001, false),
            (1006, false),
            (1012, false),
            (4002, false),
            (1003, true),
            (4502, true),
        ] {
            assert_eq!(is_final(code), expected, "{code}");
        }
    }
}
