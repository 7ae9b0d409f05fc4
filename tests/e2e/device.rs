//! A well-behaved device: tungstenite's client, with small buffers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::deadline::PATIENCE;
use crate::node::Node;

/// A device on its line.
#[derive(Debug)]
pub(crate) struct Device<S = TcpStream> {
    socket: WebSocket<S>,
    /// The `welcome`; null on a raw line.
    pub(crate) welcome: Value,
}

impl Device {
    /// Connects a device to a node in `dev` mode and waits for its welcome.
    pub(crate) fn connect(node: &Node, device_id: &str) -> Self {
        Self::connect_anywhere(node.ready.devices, device_id)
    }

    /// Connects a device of an account.
    pub(crate) fn connect_of(node: &Node, device_id: &str, account: &str) -> Self {
        Self::connect(node, &format!("{device_id}&user_id={account}"))
    }

    /// Connects a device of an account that takes payloads as frames.
    pub(crate) fn connect_raw_of(node: &Node, device_id: &str, account: &str) -> Self {
        let path = format!("/ws?device_id={device_id}&user_id={account}");
        Self::open_raw(node, &path, device_id)
    }

    /// Connects a device to whichever node listens there.
    pub(crate) fn connect_anywhere(addr: SocketAddr, device_id: &str) -> Self {
        let path = format!("/ws?device_id={device_id}");
        let mut device = Self::open(addr, &path, &[]).expect("upgraded");
        device.await_welcome();
        device
    }

    /// Connects a device that takes payloads as frames.
    pub(crate) fn connect_raw(node: &Node, device_id: &str) -> Self {
        Self::open_raw(node, &format!("/ws?device_id={device_id}"), device_id)
    }

    fn open_raw(node: &Node, path: &str, device_id: &str) -> Self {
        let protocol = [("Sec-WebSocket-Protocol", "tautline.v1.raw")];
        let device = Self::open(node.ready.devices, path, &protocol).expect("upgraded");
        // The device is there when the API says so: a raw line has no welcome.
        crate::deadline::eventually("the raw device is online", || {
            (node.device_status(device_id) == 200).then_some(())
        });
        device
    }

    /// Upgrades a connection, or returns the status it was refused with.
    pub(crate) fn open(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        Self::try_open(addr, path, headers).map_err(|status| status.expect("an answer, no reset"))
    }

    /// Like [`Device::open`], where a reset (`None`) is an answer too: of a node without room even to refuse.
    pub(crate) fn try_open(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Option<u16>> {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream, path, headers)
    }

    /// How long a read may take from now on.
    pub(crate) fn set_patience(&self, patience: Duration) {
        let stream = self.socket.get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
    }
}

impl<S: Read + Write> Device<S> {
    /// Upgrades a connection that is there already; `None` when it was reset.
    pub(crate) fn over(
        stream: S,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Option<u16>> {
        let mut request = format!("ws://test{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            let value = HeaderValue::try_from(*value).unwrap();
            request.headers_mut().insert(name, value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(4_096)
            .write_buffer_size(0);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(Self {
                socket,
                welcome: Value::Null,
            }),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                Err(Some(response.status().as_u16()))
            }
            Err(HandshakeError::Failure(Error::Io(error)))
                if error.kind() == ErrorKind::ConnectionReset =>
            {
                Err(None)
            }
            Err(HandshakeError::Failure(error)) => panic!("neither upgraded nor refused: {error}"),
            Err(HandshakeError::Interrupted(_)) => panic!("neither upgraded nor refused in time"),
        }
    }

    /// Reads the welcome that must come first.
    pub(crate) fn await_welcome(&mut self) {
        let welcome = self.next();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        self.welcome = welcome;
    }

    /// The name the node gave the line.
    pub(crate) fn connection_id(&self) -> String {
        self.welcome["connection_id"].as_str().unwrap().to_owned()
    }

    /// The next data frame. Pings are answered on the way.
    pub(crate) fn receive(&mut self) -> Message {
        loop {
            match self.socket.read().expect("a data frame") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next JSON frame as it came.
    pub(crate) fn next_text(&mut self) -> String {
        match self.receive() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The next JSON frame.
    pub(crate) fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).expect("a frame is JSON")
    }

    /// Sends a JSON frame.
    pub(crate) fn say(&mut self, frame: &Value) {
        self.send(Message::text(frame.to_string()));
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// Acknowledges a message.
    pub(crate) fn acknowledge(&mut self, message: &Value) {
        self.say(&json!({"type": "ack", "message_id": message["message_id"]}));
    }

    /// Starts the close handshake.
    pub(crate) fn close(&mut self) {
        self.socket.close(None).unwrap();
        self.socket.flush().unwrap();
    }

    /// Reads until the line ends: the frames before, and the code and reason of the close frame (1006 without one).
    pub(crate) fn ending(&mut self) -> (Vec<Message>, u16, String) {
        let mut before = Vec::new();
        loop {
            match self.socket.read() {
                Ok(Message::Close(close)) => {
                    self.socket.flush().ok();
                    let (code, reason) = close
                        .map_or((CloseCode::Status, String::new()), |close| {
                            (close.code, close.reason.as_str().to_owned())
                        });
                    return (before, code.into(), reason);
                }
                Ok(message) => before.push(message),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the line is still open; so far: {before:?}")
                }
                Err(_) => return (before, 1006, String::new()),
            }
        }
    }

    /// Reads until the line ends and returns the close code.
    pub(crate) fn close_code(&mut self) -> u16 {
        self.ending().1
    }

    /// Asks for a sign of life in the device protocol.
    pub(crate) fn assert_alive(&mut self) {
        self.say(&json!({"type": "ping", "id": "alive?"}));
        let pong = self.next();
        assert_eq!(pong["type"], "pong", "{pong}");
        assert_eq!(pong["id"], "alive?");
    }

    /// What carries the line.
    pub(crate) fn stream(&mut self) -> &mut S {
        self.socket.get_mut()
    }

    /// One read: `None` when nothing came in time.
    pub(crate) fn poll(&mut self) -> Option<Message> {
        match self.socket.read() {
            Ok(message) => Some(message),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the line ended: {error}"),
        }
    }
}
