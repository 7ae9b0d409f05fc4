//! Doubles of other makes: as much of nchan and Centrifugo as the generator speaks to, and no patience with mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::request::HttpRequest;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Lines at `/line/ID`, messages at `/push/ID`.
    Nchan,
    /// One path for all lines, which connect and subscribe in JSON; a call that names the device in its body.
    Centrifugo,
    /// The same, and nobody may subscribe.
    CentrifugoRefuses,
}

/// The running server; it ends with the test's process.
pub(crate) struct ForeignServer {
    pub(crate) lines: SocketAddr,
    pub(crate) api: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<String, WebSocket<TcpStream>>,
    sources: BTreeSet<String>,
    pongs: usize,
    /// Messages that wait for others, to leave with them as one frame.
    waiting: BTreeMap<String, Vec<String>>,
}

/// Messages for a line within this time leave together, from a server that does so.
const BATCH_TIME: Duration = Duration::from_millis(20);

impl ForeignServer {
    pub(crate) fn start(foreign: Foreign) -> io::Result<Self> {
        let (lines, api) = (
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        );
        let server = Self {
            lines: lines.local_addr()?,
            api: api.local_addr()?,
            state: Arc::default(),
        };
        let state = server.state.clone();
        thread::spawn(move || {
            loop {
                thread::park_timeout(BATCH_TIME);
                send_batches(&mut state.lock());
            }
        });
        for (listener, serve) in [(lines, serve_line as fn(_, _, &_) -> _), (api, serve_api)] {
            let state = server.state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || serve(foreign, stream, &state));
                }
            });
        }
        Ok(server)
    }

    pub(crate) fn lines_seen(&self) -> usize {
        self.state.lock().lines.len()
    }

    /// Pings in JSON that were answered.
    pub(crate) fn pongs(&self) -> usize {
        self.state.lock().pongs
    }

    /// Where lines came from.
    pub(crate) fn sources(&self) -> Vec<String> {
        self.state.lock().sources.iter().cloned().collect()
    }
}

fn serve_line(foreign: Foreign, stream: TcpStream, state: &Arc<Mutex<State>>) -> Option<()> {
    let from = stream.peer_addr().ok()?.ip().to_string();
    let writing = stream.try_clone().ok()?;
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let callback = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let mut line = tungstenite::accept_hdr(stream, callback).ok()?;
    let device = match foreign {
        Foreign::Nchan => path.strip_prefix("/line/")?.to_owned(),
        Foreign::Centrifugo | Foreign::CentrifugoRefuses => {
            assert_eq!(path, "/connection/websocket");
            subscribe(foreign, &mut line)?
        }
    };
    let writing = WebSocket::from_raw_socket(writing, Role::Server, None);
    state.lock().lines.insert(device.clone(), writing);
    state.lock().sources.insert(from);
    if foreign == Foreign::Centrifugo {
        state
            .lock()
            .lines
            .get_mut(&device)?
            .send(Message::text("{}"))
            .ok()?;
    }
    while let Ok(message) = line.read() {
        if foreign == Foreign::Centrifugo && message.is_text() {
            assert_eq!(message, Message::text("{}"));
            state.lock().pongs += 1;
        }
    }
    Some(())
}

/// Documents of one frame have a line each, and a ping can be among them.
fn send_batches(state: &mut State) {
    for (device, mut documents) in std::mem::take(&mut state.waiting) {
        documents.insert(1, "{}".to_owned());
        if let Some(line) = state.lines.get_mut(&device) {
            drop(line.send(Message::text(documents.join("\n"))));
        }
    }
}

/// Both commands come in one frame, and so do the replies.
fn subscribe(foreign: Foreign, line: &mut WebSocket<TcpStream>) -> Option<String> {
    let text = line.read().ok()?;
    let commands: Vec<Value> = text
        .to_text()
        .ok()?
        .lines()
        .map(|command| serde_json::from_str(command).unwrap())
        .collect();
    assert!(
        commands.len() == 2 && commands[0]["connect"].is_object(),
        "{text}"
    );
    let device = commands[1]["subscribe"]["channel"].as_str()?.to_owned();
    let reply = match foreign {
        Foreign::CentrifugoRefuses => json!({"id": 2, "error": {"code": 103}}),
        Foreign::Nchan | Foreign::Centrifugo => json!({"id": 2, "subscribe": {}}),
    };
    let replies = format!("{}\n{reply}", json!({"id": 1, "connect": {}}));
    line.send(Message::text(replies)).ok()?;
    (foreign == Foreign::Centrifugo).then_some(device)
}

fn serve_api(foreign: Foreign, mut stream: TcpStream, state: &Arc<Mutex<State>>) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    loop {
        let HttpRequest {
            method: _,
            path,
            headers,
            body,
        } = HttpRequest::read(&mut input)?;
        let is_sent = match foreign {
            Foreign::Nchan => {
                let line = path.strip_prefix("/push/")?;
                let mut state = state.lock();
                state.lines.get_mut(line)?.send(Message::text(body)).is_ok()
            }
            Foreign::Centrifugo | Foreign::CentrifugoRefuses => {
                assert_eq!(
                    (path.as_str(), headers["x-api-key"].as_str()),
                    ("/api/publish", "k")
                );
                assert_eq!(headers["x-centrifugo-error-mode"], "transport");
                let call: Value = serde_json::from_str(&body).unwrap();
                let device = call["channel"].as_str()?.to_owned();
                let push = json!({"push": {"pub": {"data": call["data"]}}});
                let mut state = state.lock();
                state
                    .waiting
                    .entry(device)
                    .or_default()
                    .push(push.to_string());
                true
            }
        };
        let status = if is_sent { 201 } else { 410 };
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(answer.as_bytes()).ok()?;
    }
}
