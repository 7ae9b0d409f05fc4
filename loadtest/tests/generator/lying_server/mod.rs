//! A small push server that lies on request: WebSocket lines through tungstenite, pushes and broadcasts through plain
//! HTTP, records from lines and on streams.
//!
//! It exists so that the generator and its oracle are tested without the server they were written for.

mod broadcast;
mod record;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

use crate::request::HttpRequest;

/// What the server does wrong: to every tenth line or message, or where lines come back, to devices whose name ends
/// with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// Answers an upgrade with 503.
    RefuseLine,
    /// Closes a line it has welcomed.
    CloseLine,
    /// Promises a message and forgets it.
    Drop,
    /// The same with some long messages in a row, a second after the first if they are fifty in a second.
    Lapse,
    /// Delivers a message twice.
    Duplicate,
    /// Delivers a message after the next one for its device.
    Reorder,
    /// Delivers a message to another device.
    Misdeliver,
    /// Refuses a message although the device is there.
    Refuse,
    /// Refuses a message and delivers it.
    RefuseAndDeliver,
    /// Delivers a message with a changed byte.
    Damage,
    /// Delivers a message and does not answer, where answers have ids.
    Silence,
    /// Answers a message twice, where answers have ids.
    AnswerTwice,
    /// Answers the first attempt to come back with 503, and says when to try again.
    RefuseReturn,
    /// The same without a word about when.
    RefuseReturnBluntly,
    /// Never takes a line back.
    BarReturn,
    /// Takes a line back, and delivers to the former one.
    IgnoreReturn,
    /// Delivers the latest message of a device again on the line that takes the place of another.
    RepeatOnReturn,
}

/// The running server; it ends with the test's process.
pub(crate) struct LyingServer {
    /// Where lines connect.
    pub(crate) devices: SocketAddr,
    /// Where messages are posted.
    pub(crate) api: SocketAddr,
    /// Where streams are opened.
    pub(crate) peer: SocketAddr,
    state: Arc<Mutex<State>>,
}

const PING: &str = "taut";
const GOAWAY: &str =
    r#"{"type":"goaway","reason":"max_age","reconnect_after_ms":20,"deadline_ms":1000}"#;
const LONG: usize = 100;
const LAPSE: Range<u32> = 50..70;

/// The writing end of a line, and whose it is.
struct Line {
    socket: WebSocket<TcpStream>,
    account: String,
    /// Which of all lines that ever were.
    number: u32,
}

struct State {
    lie: Lie,
    /// Whether every message is followed by a go-away.
    asks_to_leave: bool,
    lines: BTreeMap<String, Line>,
    pongs: u64,
    opened: u32,
    /// Devices that ever had a line, and how often each was refused one later.
    known: BTreeMap<String, u32>,
    /// What was delivered to each last.
    latest: BTreeMap<String, String>,
    posted: u32,
    long_posted: u32,
    held: Option<(String, String)>,
    /// What became of each, by its id.
    broadcasts: BTreeMap<String, Value>,
}

impl LyingServer {
    /// Starts it on free ports.
    pub(crate) fn start(lie: Lie) -> io::Result<Self> {
        Self::start_at(lie, Ipv4Addr::LOCALHOST.into())
    }

    /// The same with lines at this address.
    pub(crate) fn start_at(lie: Lie, address: IpAddr) -> io::Result<Self> {
        let devices = TcpListener::bind((address, 0))?;
        let api = TcpListener::bind("127.0.0.1:0")?;
        let peer = TcpListener::bind("127.0.0.1:0")?;
        let state = State {
            lie,
            asks_to_leave: false,
            lines: BTreeMap::new(),
            pongs: 0,
            opened: 0,
            known: BTreeMap::new(),
            latest: BTreeMap::new(),
            posted: 0,
            long_posted: 0,
            held: None,
            broadcasts: BTreeMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let server = Self {
            devices: devices.local_addr()?,
            api: api.local_addr()?,
            peer: peer.local_addr()?,
            state: state.clone(),
        };
        let lines_state = state.clone();
        thread::spawn(move || {
            devices
                .incoming()
                .flatten()
                .for_each(|s| welcome(&lines_state, s))
        });
        let streams_state = state.clone();
        thread::spawn(move || {
            for stream in peer.incoming().flatten() {
                let state = streams_state.clone();
                thread::spawn(move || record::serve_stream(&state, stream));
            }
        });
        thread::spawn(move || {
            for stream in api.incoming().flatten() {
                let state = state.clone();
                thread::spawn(move || answer_all(&state, stream));
            }
        });
        Ok(server)
    }

    /// The same for lines that are asked to leave with every message they get.
    pub(crate) fn start_asking(lie: Lie) -> io::Result<Self> {
        let server = Self::start(lie)?;
        server.state.lock().asks_to_leave = true;
        Ok(server)
    }

    /// Pings that lines have answered.
    pub(crate) fn pongs(&self) -> u64 {
        self.state.lock().pongs
    }

    /// The names of all devices that ever had a line.
    pub(crate) fn device_names(&self) -> Vec<String> {
        self.state.lock().known.keys().cloned().collect()
    }
}

/// Upgrades a line, pings it once, and serves it.
fn welcome(state: &Arc<Mutex<State>>, stream: TcpStream) {
    let (number, lie) = state.lock().next_line();
    let (mut device, mut account) = (String::new(), String::new());
    let writing = stream.try_clone().unwrap();
    // From before a line is answered until it is entered: who knows of it gets messages on it.
    let mut locked = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let callback = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default();
        (device, account) = (parameter(query, "device_id"), parameter(query, "user_id"));
        let state = locked.insert(state.lock());
        match state.refuse_return(&device) {
            _ if lie == Lie::RefuseLine => Err(refusal(None)),
            Some(retry_after) => Err(refusal(retry_after)),
            None => {
                state.replace(&device);
                Ok(response)
            }
        }
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, callback) else {
        return;
    };
    let Some(mut locked) = locked else {
        return;
    };
    let welcome = Message::text(r#"{"type":"welcome"}"#);
    let greeted = socket
        .send(welcome)
        .and_then(|()| socket.send(Message::Ping(PING.into())));
    if greeted.is_err() {
        // It has hung up, as those do that are coming back when a run ends.
        return;
    }
    if lie == Lie::CloseLine {
        let frame = CloseFrame {
            code: 4000.into(),
            reason: "drain".into(),
        };
        socket.close(Some(frame)).unwrap();
    }
    let line = Line {
        socket: WebSocket::from_raw_socket(writing, Role::Server, None),
        account,
        number,
    };
    locked.enter(&device, line);
    drop(locked);
    let state = state.clone();
    thread::spawn(move || {
        record::serve_line(&state, socket, &device, number);
        state.lock().leave(&device, number);
    });
}

/// Serves one keep-alive connection to its end.
fn answer_all(state: &Mutex<State>, mut stream: TcpStream) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = HttpRequest::read(&mut input) {
        let (status, said) = state.lock().handle_request(&request.path, &request.body);
        let said = said.to_string();
        let length = said.len();
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{said}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl State {
    fn next_line(&mut self) -> (u32, Lie) {
        self.opened += 1;
        let is_chosen = self.opened.is_multiple_of(10);
        let lie = if is_chosen { self.lie } else { Lie::None };
        (self.opened, lie)
    }

    /// Whether a line that comes back is refused, and what it is told.
    fn refuse_return(&mut self, device: &str) -> Option<Option<&'static str>> {
        let refusals = self.known.get_mut(device)?;
        let is_first = *refusals == 0;
        let answer = if self.lie == Lie::RefuseReturn && is_first {
            Some(Some("1"))
        } else {
            let is_blunt = self.lie == Lie::RefuseReturnBluntly && is_first;
            (is_blunt || self.lie == Lie::BarReturn).then_some(None)
        };
        let answer = answer.filter(|_| device.ends_with('0'));
        *refusals += u32::from(answer.is_some());
        answer
    }

    /// Closes the line that another one takes the place of, before that is answered: whose device hears of it first is up
    /// to the network.
    fn replace(&mut self, device: &str) {
        let frame = CloseFrame {
            code: 4502.into(),
            reason: "replaced".into(),
        };
        if !self.is_ignored(device)
            && let Some(line) = self.lines.get_mut(device)
        {
            drop(line.socket.close(Some(frame)));
        }
    }

    fn enter(&mut self, device: &str, line: Line) {
        if !self.is_ignored(device) {
            let former = self.lines.insert(device.to_owned(), line);
            let repeated = self
                .latest
                .get(device)
                .cloned()
                .filter(|_| former.is_some());
            if let Some(body) = repeated.filter(|_| self.lie == Lie::RepeatOnReturn) {
                self.deliver(device, &body);
            }
        }
        self.known.entry(device.to_owned()).or_default();
    }

    fn is_ignored(&self, device: &str) -> bool {
        let is_meant = self.lie == Lie::IgnoreReturn && device.ends_with('0');
        is_meant && self.known.contains_key(device)
    }

    /// A newer line may have taken its place.
    fn leave(&mut self, device: &str, number: u32) {
        let is_current = self
            .lines
            .get(device)
            .is_some_and(|line| line.number == number);
        if is_current && self.lie != Lie::IgnoreReturn {
            self.lines.remove(device);
        }
    }

    fn next_push_lie(&mut self, body: &str) -> Lie {
        self.posted += 1;
        self.long_posted += u32::from(body.len() > LONG);
        let is_chosen = if self.lie == Lie::Lapse {
            body.len() > LONG && LAPSE.contains(&self.long_posted)
        } else {
            self.posted.is_multiple_of(10)
        };
        if is_chosen { self.lie } else { Lie::None }
    }

    fn handle_request(&mut self, path: &str, body: &str) -> (u16, Value) {
        if path.starts_with(broadcast::PATH) {
            return self.handle_broadcast(path, body);
        }
        let device = path.split('/').nth(3).unwrap_or_default();
        (self.handle_push(device.to_owned(), body), json!({}))
    }

    fn handle_push(&mut self, device: String, body: &str) -> u16 {
        let lie = self.next_push_lie(body);
        self.obey(lie, device, body)
    }

    /// Does with a message what the lie says; the status to answer with.
    fn obey(&mut self, lie: Lie, device: String, body: &str) -> u16 {
        match lie {
            _ if !self.lines.contains_key(&device) => return 404,
            Lie::None
            | Lie::RefuseLine
            | Lie::CloseLine
            | Lie::Silence
            | Lie::AnswerTwice
            | Lie::RefuseReturn
            | Lie::RefuseReturnBluntly
            | Lie::BarReturn
            | Lie::IgnoreReturn
            | Lie::RepeatOnReturn => self.deliver(&device, body),
            Lie::Drop | Lie::Lapse => {}
            Lie::Duplicate => {
                self.deliver(&device, body);
                self.deliver(&device, body);
            }
            Lie::Reorder if self.held.is_none() => self.held = Some((device, body.to_owned())),
            Lie::Reorder => self.deliver(&device, body),
            Lie::Misdeliver => {
                let other = self
                    .lines
                    .keys()
                    .find(|key| **key != device)
                    .unwrap()
                    .clone();
                self.deliver(&other, body);
            }
            Lie::Refuse => return 404,
            Lie::RefuseAndDeliver => {
                self.deliver(&device, body);
                return 404;
            }
            Lie::Damage => self.deliver(&device, &body.replacen('A', "B", 1)),
        }
        200
    }

    fn deliver(&mut self, device: &str, body: &str) {
        let message = Message::text(format!(r#"{{"type":"message","data":{body}}}"#));
        self.send_to(device, message);
        if self.asks_to_leave {
            self.send_to(device, Message::text(GOAWAY));
        }
        self.latest.insert(device.to_owned(), body.to_owned());
        if let Some((_, late)) = self.held.take_if(|(held, _)| held == device) {
            self.deliver(device, &late);
        }
    }

    /// A device that has hung up gets nothing.
    fn send_to(&mut self, device: &str, message: Message) {
        if let Some(line) = self.lines.get_mut(device) {
            drop(line.socket.send(message));
        }
    }
}

fn parameter(query: &str, name: &str) -> String {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(key, _)| *key == name);
    value.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

fn refusal(retry_after: Option<&str>) -> ErrorResponse {
    let mut builder = Response::builder().status(503);
    if let Some(seconds) = retry_after {
        builder = builder.header("Retry-After", seconds);
    }
    builder.body(None).unwrap()
}
