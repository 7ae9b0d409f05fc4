//! A device's line, as a device sees it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tungstenite::client::{ClientRequestBuilder, client_with_config};
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Uri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket};

use super::error::ClientError;
use super::stream::Stream;
use super::trust::Trust;

/// Where and as whom to connect.
#[derive(Clone, Debug, Default)]
pub struct LineOptions {
    /// `ws://host:port/ws` or `wss://`; the query is added to it.
    pub url: String,
    /// Certificates of the authorities that vouch for the node, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name the device gives itself, in dev mode.
    pub device_id: Option<String>,
    /// The account it gives itself, in dev mode.
    pub user_id: Option<String>,
    /// The token it shows instead.
    pub token: Option<String>,
    /// Payloads as they are instead of JSON frames.
    pub raw: bool,
}

/// An open line. While it is read, pings are answered, and messages that ask for it are acknowledged.
#[derive(Debug)]
pub struct Line {
    socket: WebSocket<Stream>,
    place: String,
}

/// What comes down a line.
#[derive(Clone, Debug, PartialEq)]
pub enum LineEvent {
    /// A JSON frame; on a raw line never.
    Frame(Value),
    /// A payload that is no JSON frame.
    Payload(Vec<u8>),
    /// The end, with the close code (1006 when the line was cut) and reason.
    Closed(u16, String),
}

impl Line {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// [`ClientError`]; one that is retryable may go away by itself.
    pub fn open(options: &LineOptions) -> Result<Self, ClientError> {
        let uri = options.uri()?;
        let is_secure = uri.scheme_str() == Some("wss");
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let place = format!("{host}:{port}");
        let trust = is_secure.then(|| Trust::load(options.ca_file.as_deref()));
        let config = trust.transpose()?.map(|trust| trust.for_line());
        let network = |e| ClientError::network(&place, e);
        let stream = connect(&place).map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        stream
            .set_read_timeout(Some(HANDSHAKE_TIMEOUT))
            .map_err(network)?;
        let stream = match config {
            Some(config) => Stream::secure(stream, &host, config?).map_err(network)?,
            None => Stream::Plain(stream),
        };
        let (socket, _) = client_with_config(options.request(uri), stream, Some(socket_config()))
            .map_err(|e| refusal(&place, e))?;
        let line = Self { socket, place };
        line.set_read_timeout(SILENCE_MAX)?;
        Ok(line)
    }

    /// Waits for what comes next. Silence beyond two heartbeats means that the line was cut.
    ///
    /// # Errors
    /// When the node does not speak WebSocket as it should.
    pub fn receive(&mut self) -> Result<LineEvent, ClientError> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return self.handle_text(text.as_str()),
                Ok(Message::Binary(bytes)) => return Ok(LineEvent::Payload(bytes.into())),
                Ok(Message::Close(frame)) => return Ok(self.handle_close(frame)),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(tungstenite::Error::Io(error)) => return Ok(cut(&error.to_string())),
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    return Ok(cut("closed"));
                }
                Err(tungstenite::Error::Protocol(
                    tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                )) => return Ok(cut("cut without a close frame")),
                Err(error) => {
                    let place = self.place.clone();
                    return Err(ClientError::Protocol {
                        place,
                        cause: error.to_string(),
                    });
                }
            }
        }
    }

    /// Says goodbye. What is still on its way can be received until the line is closed, for a few seconds.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn close(&mut self) -> Result<(), ClientError> {
        self.set_read_timeout(CLOSE_TIMEOUT)?;
        // A line that is gone already needs no goodbye.
        self.socket.close(None).unwrap_or_default();
        Ok(())
    }

    /// Where the line leads.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn handle_text(&mut self, text: &str) -> Result<LineEvent, ClientError> {
        let frame: Option<Value> = serde_json::from_str(text).ok();
        let is_frame = |frame: &Value| frame["type"].is_string();
        let Some(frame) = frame.filter(is_frame) else {
            return Ok(LineEvent::Payload(text.as_bytes().to_vec()));
        };
        if frame["ack"] == true {
            let ack = serde_json::json!({"type": "ack", "message_id": frame["message_id"]});
            // A line that broke meanwhile says so at the next read.
            self.socket.send(Message::text(ack.to_string())).ok();
        }
        if let Some(ping_ms) = frame["ping_ms"].as_u64() {
            self.set_read_timeout(
                Duration::from_millis(ping_ms.saturating_mul(2)).max(HANDSHAKE_TIMEOUT),
            )?;
        }
        Ok(LineEvent::Frame(frame))
    }

    fn handle_close(&mut self, frame: Option<CloseFrame>) -> LineEvent {
        // The answer to the close frame leaves with this; that the other side may be gone is no news.
        self.socket.flush().unwrap_or_default();
        frame.map_or(LineEvent::Closed(1005, String::new()), |frame| {
            LineEvent::Closed(frame.code.into(), frame.reason.to_string())
        })
    }

    fn set_read_timeout(&self, timeout: Duration) -> Result<(), ClientError> {
        let set = self.socket.get_ref().set_read_timeout(timeout);
        set.map_err(|source| ClientError::network(&self.place, source))
    }
}

impl LineOptions {
    fn uri(&self) -> Result<Uri, ClientError> {
        let bad = |cause: String| ClientError::BadUrl {
            url: self.url.clone(),
            cause,
        };
        let mut url = url::Url::parse(&self.url).map_err(|e| bad(e.to_string()))?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(bad("only ws:// and wss:// are spoken here".into()));
        }
        let names = [("device_id", &self.device_id), ("user_id", &self.user_id)];
        for (name, value) in names {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url.as_str().parse().map_err(|_| bad("no URL".into()))
    }

    fn request(&self, uri: Uri) -> ClientRequestBuilder {
        let protocol = if self.raw {
            "tautline.v1.raw"
        } else {
            "tautline.v1.json"
        };
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        match &self.token {
            Some(token) => request.with_header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

fn connect(place: &str) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for addr in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, HANDSHAKE_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The library's buffers are for servers of files; a line that is nearly always idle needs little.
fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4_096)
        .write_buffer_size(0)
}

fn refusal<S: std::fmt::Debug + tungstenite::handshake::HandshakeRole>(
    place: &str,
    error: HandshakeError<S>,
) -> ClientError {
    let place = place.to_owned();
    match error {
        HandshakeError::Failure(tungstenite::Error::Io(source)) => {
            ClientError::network(&place, source)
        }
        HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            ClientError::Refused {
                place,
                status: response.status().as_u16(),
                message: explanation(body),
            }
        }
        HandshakeError::Failure(error) => ClientError::Protocol {
            place,
            cause: error.to_string(),
        },
        HandshakeError::Interrupted(_) => {
            ClientError::network(&place, io::ErrorKind::TimedOut.into())
        }
    }
}

/// The message of an error answer, or its text.
fn explanation(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

fn cut(reason: &str) -> LineEvent {
    LineEvent::Closed(1006, reason.into())
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For lines that are not told how often they will be pinged.
const SILENCE_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;
    use tungstenite::handshake::server::{Request, Response};
    use tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    /// A node that takes one line, hands its request head to `check` and says three things.
    #[expect(
        clippy::result_large_err,
        reason = "the shape of the library's callback"
    )]
    fn node(check: fn(&Request)) -> (LineOptions, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let respond = |request: &Request, mut response: Response| {
                check(request);
                let protocol = request.headers()["sec-websocket-protocol"].clone();
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", protocol);
                Ok(response)
            };
            let mut socket = tungstenite::accept_hdr(stream, respond).unwrap();
            socket.send(Message::Ping(vec![7].into())).unwrap();
            socket
                .send(json!({"type": "message", "data": 1}).to_string().into())
                .unwrap();
            socket.send(Message::Binary(vec![0xff].into())).unwrap();
            let reason = "replaced".into();
            socket
                .close(Some(CloseFrame {
                    code: CloseCode::Library(4502),
                    reason,
                }))
                .unwrap();
            assert_eq!(socket.read().unwrap(), Message::Pong(vec![7].into()));
        };
        (
            LineOptions {
                url,
                ..LineOptions::default()
            },
            thread::spawn(serve),
        )
    }

    #[test]
    fn a_line_yields_what_comes_down_and_how_it_ended() {
        let (options, node) = node(|request| {
            assert_eq!(request.uri().query(), Some("device_id=tv-1&user_id=ann"));
            assert_eq!(
                request.headers()["sec-websocket-protocol"],
                "tautline.v1.json"
            );
        });
        let names = (Some("tv-1".into()), Some("ann".into()));
        let mut line = Line::open(&LineOptions {
            device_id: names.0,
            user_id: names.1,
            ..options
        })
        .unwrap();
        let frame = json!({"type": "message", "data": 1});
        assert_eq!(line.receive().unwrap(), LineEvent::Frame(frame));
        assert_eq!(line.receive().unwrap(), LineEvent::Payload(vec![0xff]));
        assert_eq!(
            line.receive().unwrap(),
            LineEvent::Closed(4502, "replaced".into())
        );
        node.join().unwrap();
    }

    #[test]
    fn a_token_travels_in_the_header_and_never_in_the_url() {
        let (options, node) = node(|request| {
            assert_eq!(request.headers()["authorization"], "Bearer a.b.c");
            assert_eq!(request.uri().query(), None);
            assert_eq!(
                request.headers()["sec-websocket-protocol"],
                "tautline.v1.raw"
            );
        });
        let mut line = Line::open(&LineOptions {
            token: Some("a.b.c".into()),
            raw: true,
            ..options
        })
        .unwrap();
        while !matches!(line.receive().unwrap(), LineEvent::Closed(..)) {}
        node.join().unwrap();
    }

    #[test]
    fn an_address_where_nobody_is_says_what_to_do() {
        let url = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("ws://{}/ws", listener.local_addr().unwrap())
        };
        let error = Line::open(&LineOptions {
            url,
            ..LineOptions::default()
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("start it with `tautline serve`"),
            "{error}"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        for url in ["", "tv-1", "ftp://a.example/ws", "http://a.example/ws"] {
            let options = LineOptions {
                url: url.into(),
                ..LineOptions::default()
            };
            assert!(
                matches!(Line::open(&options), Err(ClientError::BadUrl { .. })),
                "{url}"
            );
        }
    }
}
