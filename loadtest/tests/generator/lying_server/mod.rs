//! A small push server that lies on request: WebSocket lines through tungstenite, pushes and broadcasts through plain
//! HTTP, records from lines and on streams.
//!
//! It exists so that the generator and its oracle are tested without the server they were written for.

mod broadcast;
mod drain;
mod heartbeat;
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
    /// Delivers a message to its device and to another one.
    Copy,
    /// Refuses a message although the device is there.
    Refuse,
    /// Refuses a message and delivers it.
    RefuseAndDeliver,
    /// Delivers a message with a changed byte in its mark.
    Damage,
    /// The same behind its mark.
    DamageRest,
    /// Delivers a message and does not answer; where answers have no ids, nothing on that connection any more.
    Silence,
    /// Answers a message twice.
    AnswerTwice,
    /// Answers the first attempt to come back with 503, and says when to try again.
    RefuseReturn,
    /// The same without a word about when.
    RefuseReturnBluntly,
    /// Never takes a line back.
    BarReturn,
    /// Takes a line back, and delivers to the former one.
    IgnoreReturn,
    /// Lets a line stay when it drains.
    KeepLine,
    /// Promises messages to lines it has asked to leave, and forgets them.
    ForgetAsked,
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

/// What is done with a connection.
type Serve = fn(&Mutex<State>, TcpStream);

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
    /// Since the last heartbeat.
    has_answered: bool,
    is_asked_to_leave: bool,
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
    /// What comes to each device after its next message.
    held: BTreeMap<String, String>,
    /// With which message it begins to drain by itself.
    drain_at: Option<u32>,
    /// With which message it closes the lines that have not left.
    close_at: Option<u32>,
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
            held: BTreeMap::new(),
            drain_at: None,
            close_at: None,
            broadcasts: BTreeMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let server = Self {
            devices: devices.local_addr()?,
            api: api.local_addr()?,
            peer: peer.local_addr()?,
            state: state.clone(),
        };
        // Each in a thread of its own: one whose request is late keeps nobody waiting.
        let ends: [(TcpListener, Serve); 3] = [
            (devices, welcome),
            (peer, record::serve_stream),
            (api, answer_all),
        ];
        for (listener, serve) in ends {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || serve(&state, stream));
                }
            });
        }
        Ok(server)
    }

    /// Has it ping lines at intervals, and give up those that do not answer.
    pub(crate) fn with_heartbeats(self) -> Self {
        let state = self.state.clone();
        thread::spawn(move || heartbeat::beat_forever(&state));
        self
    }

    /// Has it drain by itself once so many messages were posted.
    pub(crate) fn draining_at(self, posted: u32) -> Self {
        self.state.lock().drain_at = Some(posted);
        self
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
fn welcome(state: &Mutex<State>, stream: TcpStream) {
    let (number, lie) = state.lock().next_line();
    let (mut device, mut account) = (String::new(), String::new());
    // Locked from before the 101 until the line is entered: whoever knows of the line gets messages on it.
    let mut entering = None;
    let writing = stream.try_clone().unwrap();
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let callback = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default();
        (device, account) = (parameter(query, "device_id"), parameter(query, "user_id"));
        let state = entering.insert(state.lock());
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
    let Some(mut entering) = entering else {
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
        has_answered: true,
        is_asked_to_leave: false,
    };
    entering.enter(&device, line);
    drop(entering);
    record::serve_line(state, socket, &device, number);
    state.lock().leave(&device, number);
}

/// Serves one keep-alive connection to its end.
fn answer_all(state: &Mutex<State>, mut stream: TcpStream) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut is_silent = false;
    while let Some(request) = HttpRequest::read(&mut input) {
        let (lie, status, said) = state.lock().handle_request(&request);
        is_silent |= lie == Lie::Silence;
        let said = said.to_string();
        let length = said.len();
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{said}");
        let times = if is_silent {
            0
        } else {
            1 + usize::from(lie == Lie::AnswerTwice)
        };
        if stream.write_all(answer.repeat(times).as_bytes()).is_err() {
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

    /// How it lies about the answer, and what that is.
    fn handle_request(&mut self, request: &HttpRequest) -> (Lie, u16, Value) {
        let (path, body) = (&*request.path, &*request.body);
        if path.starts_with(broadcast::PATH) {
            let (status, said) = self.handle_broadcast(path, body);
            return (Lie::None, status, said);
        }
        if path == drain::PATH {
            self.handle_drain(&request.method);
            return (Lie::None, 200, json!({}));
        }
        let device = path.split('/').nth(3).unwrap_or_default();
        let (lie, status) = self.handle_push(device.to_owned(), body);
        (lie, status, json!({}))
    }

    fn handle_push(&mut self, device: String, body: &str) -> (Lie, u16) {
        let lie = self.next_push_lie(body);
        self.drain_if_due();
        (lie, self.obey(lie, device, body))
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
            | Lie::KeepLine
            | Lie::ForgetAsked
            | Lie::RepeatOnReturn => self.deliver(&device, body),
            Lie::Drop | Lie::Lapse => {}
            Lie::Duplicate => {
                self.deliver(&device, body);
                self.deliver(&device, body);
            }
            Lie::Reorder if !self.held.contains_key(&device) => {
                self.held.insert(device, body.to_owned());
            }
            Lie::Reorder => self.deliver(&device, body),
            Lie::Misdeliver => self.deliver_to_another(&device, body),
            Lie::Copy => {
                self.deliver(&device, body);
                self.deliver_to_another(&device, body);
            }
            Lie::Refuse => return 404,
            Lie::RefuseAndDeliver => {
                self.deliver(&device, body);
                return 404;
            }
            Lie::Damage => self.deliver(&device, &body.replacen('A', "B", 1)),
            Lie::DamageRest => self.deliver(&device, &body.replacen(".\"", ",\"", 1)),
        }
        200
    }

    fn deliver_to_another(&mut self, device: &str, body: &str) {
        let other = self.lines.keys().find(|other| *other != device);
        if let Some(other) = other.cloned() {
            self.deliver(&other, body);
        }
    }

    fn deliver(&mut self, device: &str, body: &str) {
        let line = self.lines.get(device);
        if self.lie == Lie::ForgetAsked && line.is_some_and(|line| line.is_asked_to_leave) {
            return;
        }
        let message = Message::text(format!(r#"{{"type":"message","data":{body}}}"#));
        self.send_to(device, message);
        if self.asks_to_leave {
            self.send_to(device, Message::text(GOAWAY));
        }
        self.latest.insert(device.to_owned(), body.to_owned());
        if let Some(late) = self.held.remove(device) {
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
