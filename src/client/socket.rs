//! One WebSocket to a node, and what its end means.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::error::ProtocolError;
use tungstenite::http::Uri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message};

use super::error::ClientError;
use super::trust::Trust;

/// A WebSocket of ours.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection that is being opened.
pub(super) type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;

/// Where a socket leads, and what is asked for there.
#[derive(Clone, Debug)]
pub(super) struct Target {
    uri: Uri,
    protocol: &'static str,
    bearer: Option<String>,
    /// With `wss://`: whose word is good for who the node is.
    tls: Option<Arc<ClientConfig>>,
}

/// What comes out of a socket, without its heartbeat.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The end, with the close code (1006 when the connection was cut) and reason.
    Closed(u16, String),
}

impl Target {
    /// A `ws://` or `wss://` address, the sub-protocol to offer there, the secret to show, and the authorities that vouch
    /// for the node instead of the system's.
    pub(super) fn new(
        url: &url::Url,
        protocol: &'static str,
        bearer: Option<String>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        Self::trusting(url, protocol, bearer, || Trust::load(ca_file)?.for_line())
    }

    /// The same at another address. What was read of the authorities for the first is good for the second.
    pub(super) fn at(&self, url: &url::Url, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let trust = || match &self.tls {
            Some(tls) => Ok(Arc::clone(tls)),
            None => Trust::load(ca_file)?.for_line(),
        };
        Self::trusting(url, self.protocol, self.bearer.clone(), trust)
    }

    fn trusting(
        url: &url::Url,
        protocol: &'static str,
        bearer: Option<String>,
        trust: impl FnOnce() -> Result<Arc<ClientConfig>, ClientError>,
    ) -> Result<Self, ClientError> {
        let bad = |cause: &str| ClientError::BadUrl {
            url: url.to_string(),
            cause: cause.into(),
        };
        let tls = match url.scheme() {
            "ws" => None,
            "wss" => Some(trust()?),
            _ => return Err(bad("only ws:// and wss:// are spoken here")),
        };
        let uri: Uri = url.as_str().parse().map_err(|_| bad("no URL"))?;
        if uri.host().is_none() {
            return Err(bad("no host"));
        }
        Ok(Self {
            uri,
            protocol,
            bearer,
            tls,
        })
    }

    /// Host and port.
    pub(super) fn place(&self) -> String {
        let host = self.uri.host().unwrap_or_default();
        let default = if self.tls.is_some() { 443 } else { 80 };
        format!("{host}:{}", self.uri.port_u16().unwrap_or(default))
    }

    /// Connects and upgrades.
    pub(super) async fn open(&self) -> Result<Socket, ClientError> {
        let place = self.place();
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.upgrade(&place)).await;
        opened.unwrap_or_else(|_| {
            let late = io::ErrorKind::TimedOut.into();
            Err(ClientError::network(&place, late))
        })
    }

    async fn upgrade(&self, place: &str) -> Result<Socket, ClientError> {
        let network = |error| ClientError::network(place, error);
        let stream = TcpStream::connect(place).await.map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        let stream = self.secure(stream).await.map_err(network)?;
        let request = ClientRequestBuilder::new(self.uri.clone()).with_sub_protocol(self.protocol);
        let request = match &self.bearer {
            Some(secret) => request.with_header("Authorization", format!("Bearer {secret}")),
            None => request,
        };
        // The library's buffers are for servers of files.
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let opened = client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = opened.map_err(|error| refusal(place, error))?;
        Ok(socket)
    }
}

impl Target {
    /// Agrees on TLS with the node, so that one nobody vouches for is told from one that refuses a request.
    async fn secure(&self, stream: TcpStream) -> io::Result<MaybeTlsStream<TcpStream>> {
        let Some(config) = &self.tls else {
            return Ok(MaybeTlsStream::Plain(stream));
        };
        // An IPv6 address stands in brackets.
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await?;
        Ok(MaybeTlsStream::Rustls(stream))
    }
}

/// Waits for what comes next. Silence beyond `silence_max` since `heard` means that the connection was cut; whatever
/// comes, heartbeats too, moves `heard` on. Nothing is lost when the future is dropped.
pub(super) async fn receive<S>(
    socket: &mut S,
    heard: &mut Instant,
    silence_max: Duration,
) -> Received
where
    S: StreamExt<Item = Result<Message, Error>> + Unpin,
{
    loop {
        let Ok(message) = tokio::time::timeout_at(*heard + silence_max, socket.next()).await else {
            return Received::Closed(1006, "silent for too long".into());
        };
        *heard = now();
        match message {
            Some(Ok(Message::Text(text))) => return Received::Text(text.as_str().to_owned()),
            Some(Ok(Message::Binary(bytes))) => return Received::Binary(bytes.into()),
            // Pings are answered by the library while it is read.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                let (code, reason) = frame.unwrap_or((1005, String::new()));
                return Received::Closed(code, reason);
            }
            None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                return Received::Closed(1006, "closed".into());
            }
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return Received::Closed(1006, "cut without a close frame".into());
            }
            Some(Err(error)) => return Received::Closed(1006, error.to_string()),
        }
    }
}

/// Waits for the `welcome`, which comes first.
pub(super) async fn receive_welcome<S>(
    socket: &mut S,
    heard: &mut Instant,
    place: &str,
) -> Result<Value, ClientError>
where
    S: StreamExt<Item = Result<Message, Error>> + Unpin,
{
    let place = place.to_owned();
    let first = match receive(socket, heard, HANDSHAKE_TIMEOUT).await {
        Received::Text(text) => serde_json::from_str(&text).unwrap_or_default(),
        Received::Binary(_) => Value::Null,
        Received::Closed(code, reason) => {
            return Err(ClientError::Closed {
                place,
                code,
                reason,
            });
        }
    };
    if first["type"] == "welcome" {
        return Ok(first);
    }
    let cause = "no welcome came first".into();
    Err(ClientError::Protocol { place, cause })
}

/// The connection that is being opened; never, if none is.
pub(super) async fn opened<T>(opening: &mut Option<Opening<T>>) -> Result<T, ClientError> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// How long to wait before another connection: as a go-away asks, within reason.
pub(super) fn reconnect_after(asked_ms: Option<u64>) -> Duration {
    Duration::from_millis(asked_ms.unwrap_or_default().min(WAIT_MS_MAX))
}

/// An address as it was given.
pub(super) fn parse_url(url: &str) -> Result<url::Url, ClientError> {
    url::Url::parse(url).map_err(|error| ClientError::BadUrl {
        url: url.into(),
        cause: error.to_string(),
    })
}

/// Whether a close code says that coming back would not help: RFC codes of mistakes, and our own from 4500 on.
pub(super) fn is_final(code: u16) -> bool {
    matches!(code, 1002 | 1003 | 1007 | 1008 | 1009 | 1010 | 4500..)
}

/// After how much silence a connection is taken for dead, by what its `welcome` says of pings.
pub(super) fn silence_max(welcome: &Value) -> Duration {
    let ping_ms = welcome["ping_ms"].as_u64();
    ping_ms.map_or(SILENCE_MAX, |ms| {
        Duration::from_millis(ms.saturating_mul(2)).max(HANDSHAKE_TIMEOUT)
    })
}

/// The clock of a client, which has no loop that reads it for it.
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a WebSocket has a dozen errors, and three of them say something else"
)]
fn refusal(place: &str, error: Error) -> ClientError {
    match error {
        Error::Io(source) => ClientError::network(place, source),
        Error::Http(response) => ClientError::Refused {
            place: place.into(),
            status: response.status().as_u16(),
            message: explanation(response.body().as_deref().unwrap_or_default()),
        },
        error => ClientError::Protocol {
            place: place.into(),
            cause: error.to_string(),
        },
    }
}

/// The message of an error answer, or its text.
fn explanation(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

/// From dialling to the first frame that may be sent.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait that a node may ask for.
const WAIT_MS_MAX: u64 = 60_000;
/// For connections that are not told how often they will be pinged.
const SILENCE_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        for url in ["http://a.example/ws", "file:///ws"] {
            let url = url::Url::parse(url);
            let target = url.map(|url| Target::new(&url, "p", None, None));
            assert!(!matches!(target, Ok(Ok(_))), "{target:?}");
        }
    }

    #[test]
    fn what_was_read_of_the_authorities_is_good_for_another_address() {
        let url = |url: &str| url::Url::parse(url).unwrap();
        let first = Target::new(&url("wss://a.example/ws"), "p", None, None).unwrap();
        let second = first.at(&url("wss://b.example/ws"), None).unwrap();
        assert_eq!(second.place(), "b.example:443");
        let [Some(known), Some(used)] = [&first.tls, &second.tls] else {
            panic!("both are encrypted");
        };
        assert!(Arc::ptr_eq(known, used), "read again");
        let plain = first.at(&url("ws://b.example/ws"), None).unwrap();
        assert!(plain.tls.is_none());
        let secured = plain.at(&url("wss://b.example/ws"), None).unwrap();
        assert!(secured.tls.is_some());
    }

    #[tokio::test]
    async fn an_address_where_nobody_is_says_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        drop(listener);
        let target = Target::new(&url.parse().unwrap(), "p", None, None).unwrap();
        let error = target.open().await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("start it with `tautline serve`"),
            "{error}"
        );
        assert!(error.is_retryable());
    }
}
