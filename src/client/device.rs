//! A device on its line, which behaves as a good device should.
//!
//! It answers pings, comes back after a random wait when its line breaks, and when the node asks it to go away it opens
//! the new line, where the node says if it does, before it leaves the old one, so that nothing is lost in between.
//!
//! ```no_run
//! use tautline::client::device::{Device, DeviceEvent, DeviceOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = DeviceOptions::new("ws://127.0.0.1:7400/ws").named("tv-1", None);
//! let mut device = Device::connect(options).await?;
//! loop {
//!     // An error is the end: the node does not want this device back, and says why.
//!     if let DeviceEvent::Message(message) = device.receive().await? {
//!         println!("{}", message.frame["data"]);
//!     }
//! }
//! # }
//! ```

use std::path::PathBuf;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tungstenite::Message;

use super::backoff::Backoff;
use super::error::ClientError;
use super::seen::Seen;
use super::socket::{
    CLOSE_TIMEOUT, Opening, Received, Socket, Target, is_final, now, opened, parse_url, receive,
    receive_welcome, reconnect_after, silence_max,
};

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    url: String,
    device_id: Option<String>,
    user_id: Option<String>,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    is_raw: bool,
}

impl DeviceOptions {
    /// Connects to this address: `ws://host:7400/ws`, or `wss://`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            device_id: None,
            user_id: None,
            token: None,
            ca_file: None,
            is_raw: false,
        }
    }

    /// The device names itself and its account, in dev mode.
    #[must_use]
    pub fn named(mut self, device_id: impl Into<String>, user_id: Option<String>) -> Self {
        self.device_id = Some(device_id.into());
        self.user_id = user_id;
        self
    }

    /// The device shows this token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// With `wss://`, the authorities in this file vouch for the node instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Payloads as they are instead of JSON frames.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.is_raw = true;
        self
    }

    fn target(&self) -> Result<Target, ClientError> {
        let protocol = if self.is_raw { RAW } else { JSON };
        let url = self.named_url(&self.url)?;
        Target::new(&url, protocol, self.token.clone(), self.ca_file.as_deref())
    }

    /// Where a go-away points to; never from an encrypted line to a plain one.
    fn elsewhere(&self, goaway: &Value, known: &Target) -> Option<Target> {
        let url = goaway["url"].as_str()?;
        let is_downgrade = self.url.starts_with("wss:") && !url.starts_with("wss:");
        let url = self.named_url(url).ok().filter(|_| !is_downgrade)?;
        known.at(&url, self.ca_file.as_deref()).ok()
    }

    /// The address with what the device says of itself.
    fn named_url(&self, url: &str) -> Result<url::Url, ClientError> {
        let mut url = parse_url(url)?;
        let names = [("device_id", &self.device_id), ("user_id", &self.user_id)];
        for (name, value) in names {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        Ok(url)
    }
}

/// A device. Its lines are read by a task of their own, which stops reading while nobody takes what came.
#[derive(Debug)]
pub struct Device {
    events: mpsc::Receiver<Result<DeviceEvent, ClientError>>,
    acks: mpsc::Sender<Ack>,
    task: JoinHandle<()>,
}

/// What happens to a device.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceEvent {
    /// It has a line, the first or another one: here is the `welcome`, null on a raw line.
    Connected(Value),
    /// A message on a JSON line. One that asks for it has been acknowledged.
    Message(DeviceMessage),
    /// A payload on a raw line.
    Payload(Vec<u8>),
    /// The node asks the device to open another line, which it will after the wait: here is the `goaway`.
    Leaving(Value, Duration),
    /// Its line broke, or could not be opened, for this cause; it will try again after the wait.
    Disconnected(String, Duration),
    /// Another frame of the device protocol.
    Frame(Value),
}

/// A message, taken by [`Device::receive`] at most once however many lines it came on.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMessage {
    /// The frame as it came: `message_id`, `from`, `data` or `data_b64`.
    pub frame: Value,
    /// The line it came on, for the acknowledgement.
    line: u64,
}

/// A message that is to be acknowledged, on the line it came on.
#[derive(Debug)]
struct Ack {
    line: u64,
    message_id: Value,
}

impl Device {
    /// Connects and waits for the welcome. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the first line cannot be opened: whoever mistyped an address wants to know at once. Later ones are tried
    /// again.
    pub async fn connect(options: DeviceOptions) -> Result<Self, ClientError> {
        let target = options.target()?;
        let (line, welcome) = Line::open(&target, options.is_raw, 0).await?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (acks, receiver) = mpsc::channel(EVENTS_MAX);
        let keeper = Keeper {
            target,
            is_elsewhere: false,
            options,
            events: sender,
            acks: receiver,
            seen: Seen::default(),
            current: Some(line),
            old: None,
            next: None,
            backoff: Backoff::default(),
            opened: 1,
        };
        let task = tokio::spawn(keeper.run(welcome));
        Ok(Self { events, acks, task })
    }

    /// Waits for what happens next, and acknowledges a message that asks for it: who takes it has it. Nothing is lost
    /// when the future is dropped.
    ///
    /// # Errors
    /// The end: the node does not want the device back.
    pub async fn receive(&mut self) -> Result<DeviceEvent, ClientError> {
        let event = self.events.recv().await.unwrap_or_else(|| {
            Err(ClientError::Protocol {
                place: "the device".into(),
                cause: "has ended before".into(),
            })
        })?;
        if let DeviceEvent::Message(message) = &event
            && message.frame["ack"] == true
        {
            let ack = Ack {
                line: message.line,
                message_id: message.frame["message_id"].clone(),
            };
            // When the task is gone, so is the line that the answer is for.
            self.acks.send(ack).await.ok();
        }
        Ok(event)
    }

    /// Says goodbye, and waits until what was acknowledged has been told.
    pub async fn close(self) {
        let Self { events, acks, task } = self;
        drop((events, acks));
        // A panic in the task was reported where it happened.
        task.await.ok();
    }
}

/// One line.
struct Line {
    socket: Socket,
    number: u64,
    opened: Instant,
    heard: Instant,
    silence_max: Duration,
}

impl Line {
    /// Connects; a JSON line is open when its welcome has come.
    async fn open(
        target: &Target,
        is_raw: bool,
        number: u64,
    ) -> Result<(Self, Value), ClientError> {
        let socket = target.open().await?;
        let mut line = Self {
            socket,
            number,
            opened: now(),
            heard: now(),
            silence_max: silence_max(&Value::Null),
        };
        if is_raw {
            return Ok((line, Value::Null));
        }
        let place = target.place();
        let welcome = receive_welcome(&mut line.socket, &mut line.heard, &place).await?;
        line.silence_max = silence_max(&welcome);
        Ok((line, welcome))
    }

    async fn receive(&mut self) -> Received {
        receive(&mut self.socket, &mut self.heard, self.silence_max).await
    }

    async fn say(&mut self, frame: &Value) {
        // A line that broke says so when it is read.
        self.socket
            .send(Message::text(frame.to_string()))
            .await
            .ok();
    }

    /// Says goodbye. What is still on its way can be received for a while.
    async fn say_goodbye(&mut self) {
        let goodbye = self.socket.close(None);
        tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await.ok();
        self.silence_max = CLOSE_TIMEOUT;
    }
}

/// A line, and the welcome on it.
type Welcomed = (Line, Value);

/// Keeps a device on the line.
struct Keeper {
    target: Target,
    options: DeviceOptions,
    events: mpsc::Sender<Result<DeviceEvent, ClientError>>,
    acks: mpsc::Receiver<Ack>,
    seen: Seen,
    current: Option<Line>,
    /// The line before, until it is closed.
    old: Option<Line>,
    /// The line that is to be the next.
    next: Option<Opening<Welcomed>>,
    /// It is opened where a go-away has pointed to.
    is_elsewhere: bool,
    backoff: Backoff,
    /// Lines ever opened.
    opened: u64,
}

/// What woke the keeper up.
enum Wake {
    Current(u64, Received),
    Old(u64, Received),
    Opened(Box<Result<Welcomed, ClientError>>),
    Ack(Option<Ack>),
}

impl Keeper {
    async fn run(mut self, welcome: Value) {
        if !self.tell(DeviceEvent::Connected(welcome)).await {
            return self.part().await;
        }
        loop {
            let wake = tokio::select! {
                // Acknowledgements first: whoever gives one must not wait for what it has yet to take.
                biased;
                ack = self.acks.recv() => Wake::Ack(ack),
                opened = opened(&mut self.next) => Wake::Opened(Box::new(opened)),
                (line, received) = receive_on(&mut self.old) => Wake::Old(line, received),
                (line, received) = receive_on(&mut self.current) => Wake::Current(line, received),
            };
            let goes_on = match wake {
                Wake::Current(_, Received::Closed(code, reason)) => self.lost(code, reason).await,
                Wake::Old(_, Received::Closed(..)) => {
                    self.old = None;
                    true
                }
                Wake::Current(line, received) | Wake::Old(line, received) => {
                    self.handle(received, line).await
                }
                Wake::Opened(opened) => self.change(*opened).await,
                Wake::Ack(Some(ack)) => {
                    self.acknowledge(ack.line, &ack.message_id).await;
                    true
                }
                Wake::Ack(None) => false,
            };
            if !goes_on {
                return self.part().await;
            }
        }
    }

    /// Hands an event on; false when nobody takes it any more.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the line that is being opened is not Sync, so a shared reference could not wait"
    )]
    async fn tell(&mut self, event: DeviceEvent) -> bool {
        self.events.send(Ok(event)).await.is_ok()
    }

    /// The end, and why.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the line that is being opened is not Sync, so a shared reference could not wait"
    )]
    async fn end(&mut self, error: ClientError) -> bool {
        // Who has dropped the device needs no reason.
        self.events.send(Err(error)).await.ok();
        false
    }

    async fn handle(&mut self, received: Received, line: u64) -> bool {
        let payload = match received {
            Received::Text(text) if !self.options.is_raw => {
                match serde_json::from_str::<Value>(&text) {
                    Ok(frame) => return self.handle_frame(frame, line).await,
                    Err(_) => text.into_bytes(),
                }
            }
            Received::Text(text) => text.into_bytes(),
            Received::Binary(bytes) => bytes,
            Received::Closed(..) => return true,
        };
        self.tell(DeviceEvent::Payload(payload)).await
    }

    async fn handle_frame(&mut self, frame: Value, line: u64) -> bool {
        match frame["type"].as_str().unwrap_or_default() {
            "message" if self.seen.is_new(&frame["message_id"]) => {
                self.tell(DeviceEvent::Message(DeviceMessage { frame, line }))
                    .await
            }
            // It came on the other line already; if that one broke before the answer, this one carries it.
            "message" => {
                if frame["ack"] == true {
                    self.acknowledge(line, &frame["message_id"]).await;
                }
                true
            }
            "goaway" => {
                let wait = reconnect_after(frame["reconnect_after_ms"].as_u64());
                if self.next.is_none() && self.current.as_ref().is_some_and(|l| l.number == line) {
                    let elsewhere = self.options.elsewhere(&frame, &self.target);
                    self.is_elsewhere = elsewhere.is_some();
                    let target = elsewhere.unwrap_or_else(|| self.target.clone());
                    self.open_at(target, wait);
                }
                self.tell(DeviceEvent::Leaving(frame, wait)).await
            }
            _ => self.tell(DeviceEvent::Frame(frame)).await,
        }
    }

    async fn acknowledge(&mut self, line: u64, id: &Value) {
        let lines = [&mut self.current, &mut self.old].into_iter().flatten();
        for found in lines.filter(|found| found.number == line) {
            found.say(&json!({"type": "ack", "message_id": id})).await;
        }
    }

    /// The line has ended without having been left.
    async fn lost(&mut self, code: u16, reason: String) -> bool {
        let lasted = self.current.take().map(|line| line.opened.elapsed());
        if is_final(code) {
            let place = self.target.place();
            return self
                .end(ClientError::Closed {
                    place,
                    code,
                    reason,
                })
                .await;
        }
        if self.next.is_some() {
            // It was asked to leave, and another line is on its way.
            return true;
        }
        let wait = self
            .backoff
            .next(lasted.unwrap_or_default(), rand::random());
        self.open_after(wait);
        let cause = format!("closed with {code} {reason}");
        self.tell(DeviceEvent::Disconnected(cause, wait)).await
    }

    fn open_after(&mut self, wait: Duration) {
        self.is_elsewhere = false;
        self.open_at(self.target.clone(), wait);
    }

    fn open_at(&mut self, target: Target, wait: Duration) {
        let (is_raw, number) = (self.options.is_raw, self.opened);
        self.opened += 1;
        self.next = Some(Box::pin(async move {
            tokio::time::sleep(wait).await;
            Line::open(&target, is_raw, number).await
        }));
    }

    /// Takes the new line, and leaves the old one: first the one, then the other.
    async fn change(&mut self, opened: Result<Welcomed, ClientError>) -> bool {
        self.next = None;
        match opened {
            Ok((line, welcome)) => {
                if let Some(mut old) = self.current.replace(line) {
                    old.say_goodbye().await;
                    self.old = Some(old);
                }
                self.tell(DeviceEvent::Connected(welcome)).await
            }
            // Where a go-away pointed to may be wrong; where the device came from was not.
            Err(error) if error.is_retryable() || self.is_elsewhere => {
                let wait = self.backoff.next(Duration::ZERO, rand::random());
                self.open_after(wait);
                self.tell(DeviceEvent::Disconnected(error.to_string(), wait))
                    .await
            }
            Err(error) => self.end(error).await,
        }
    }

    /// Leaves all lines.
    async fn part(mut self) {
        while let Ok(ack) = self.acks.try_recv() {
            self.acknowledge(ack.line, &ack.message_id).await;
        }
        for mut line in [self.current.take(), self.old.take()].into_iter().flatten() {
            line.say_goodbye().await;
            let ended = async { while !matches!(line.receive().await, Received::Closed(..)) {} };
            // A far end that does not answer is not waited for.
            tokio::time::timeout(CLOSE_TIMEOUT, ended).await.ok();
        }
    }
}

/// What comes on a line, and its number; never, if there is none.
async fn receive_on(line: &mut Option<Line>) -> (u64, Received) {
    match line {
        Some(line) => (line.number, line.receive().await),
        None => std::future::pending().await,
    }
}

const JSON: &str = "tautline.v1.json";
const RAW: &str = "tautline.v1.raw";
/// Events that may wait to be taken; then the line is not read any further.
const EVENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_away_may_point_elsewhere_but_not_out_of_encryption() {
        let of = |own: &str, url: Value| {
            let options = DeviceOptions::new(own).named("tv-1", None);
            let known = options.target().unwrap();
            let target = options.elsewhere(&json!({"type": "goaway", "url": url}), &known);
            target.map(|target| target.place())
        };
        let plain = "ws://a.example/ws";
        assert_eq!(
            of(plain, json!("ws://b.example:7400/ws")).as_deref(),
            Some("b.example:7400")
        );
        for useless in [Value::Null, json!("b.example"), json!("http://b.example/")] {
            assert_eq!(of(plain, useless), None);
        }
        let secure = "wss://a.example/ws";
        assert_eq!(of(secure, json!("ws://b.example/ws")), None);
        assert_eq!(
            of(secure, json!("wss://b.example/ws")).as_deref(),
            Some("b.example:443")
        );
    }
}
