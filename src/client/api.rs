//! A back end: the sending API over HTTP.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, RequestBuilder};

use super::error::ClientError;
use super::event::Events;
use super::trust::Trust;

/// A node's API, with one connection kept alive.
#[derive(Debug)]
pub struct ApiClient {
    agent: Agent,
    base: String,
    place: String,
    key: Option<String>,
}

/// An answer, whatever it says.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when there was none.
    pub body: Value,
}

impl ApiAnswer {
    /// Whether the node did, or accepted, what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The code and message of an error answer.
    pub fn error(&self) -> (&str, &str) {
        let text = |name| self.body["error"][name].as_str().unwrap_or_default();
        (text("code"), text("message"))
    }
}

impl ApiClient {
    /// A client of the node at `url` (`http://` may be left out), with its key when it wants one; over https the
    /// authorities in `ca_file` vouch for it, or the system's.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn new(
        url: &str,
        key: Option<String>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let bad = |cause: &str| ClientError::BadUrl {
            url: url.into(),
            cause: cause.into(),
        };
        let full = if url.contains("://") {
            url.into()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full.parse().map_err(|_| bad("no URL"))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("only http:// and https:// are spoken here")),
        };
        let host = uri.host().ok_or_else(|| bad("no host"))?;
        let place = format!(
            "{host}:{}",
            uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 })
        );
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT));
        let config = if is_secure {
            config.tls_config(Trust::load(ca_file)?.for_api())
        } else {
            config
        };
        let agent = config.build().new_agent();
        Ok(Self {
            agent,
            base: format!("{}://{place}", if is_secure { "https" } else { "http" }),
            place,
            key,
        })
    }

    /// Whether and where a device is online.
    ///
    /// # Errors
    /// When no answer came.
    pub fn device(&self, device_id: &str) -> Result<ApiAnswer, ClientError> {
        self.get(&format!("/v1/devices/{device_id}"), "")
    }

    /// One page of an account's devices. `query` has cursor and limit.
    ///
    /// # Errors
    /// When no answer came.
    pub fn user_devices(&self, user_id: &str, query: &str) -> Result<ApiAnswer, ClientError> {
        self.get(&format!("/v1/users/{user_id}/devices"), query)
    }

    /// One page of the node's connections. `query` has cursor, limit and filters.
    ///
    /// # Errors
    /// When no answer came.
    pub fn connections(&self, query: &str) -> Result<ApiAnswer, ClientError> {
        self.get("/v1/connections", query)
    }

    /// What happens to the node's lines from now on. `query` has filters; `last_id` is the last event seen before.
    ///
    /// # Errors
    /// When there is no such answer.
    pub fn events(&self, query: &str, last_id: &str) -> Result<Events, ClientError> {
        let request = self.with_key(self.agent.get(self.url("/v1/connections/events", query)));
        let request = if last_id.is_empty() {
            request
        } else {
            request.header("last-event-id", last_id)
        };
        let request = request.config().timeout_global(None).build();
        let response = request.call().map_err(|error| self.failure(error))?;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body().into_reader(), &self.place));
        }
        let answer = self.answer(Ok(response))?;
        Err(ClientError::Refused {
            place: self.place.clone(),
            status: answer.status,
            message: answer.error().1.into(),
        })
    }

    /// Closes a connection.
    ///
    /// # Errors
    /// When no answer came.
    pub fn kick(&self, connection_id: &str) -> Result<ApiAnswer, ClientError> {
        self.delete(&format!("/v1/connections/{connection_id}"))
    }

    /// Begins to send a message to all lines of the node. `envelope` is the body.
    ///
    /// # Errors
    /// When no answer came.
    pub fn begin_broadcast(&self, envelope: &Value) -> Result<ApiAnswer, ClientError> {
        let post = self.with_key(self.agent.post(self.url("/v1/broadcasts", "")));
        let post = post.header("content-type", "application/json");
        self.answer(post.send(envelope.to_string()))
    }

    /// The broadcasts that the node remembers.
    ///
    /// # Errors
    /// When no answer came.
    pub fn broadcasts(&self) -> Result<ApiAnswer, ClientError> {
        self.get("/v1/broadcasts", "")
    }

    /// How far a broadcast has come.
    ///
    /// # Errors
    /// When no answer came.
    pub fn broadcast(&self, broadcast_id: &str) -> Result<ApiAnswer, ClientError> {
        self.get(&format!("/v1/broadcasts/{broadcast_id}"), "")
    }

    /// Ends a broadcast.
    ///
    /// # Errors
    /// When no answer came.
    pub fn cancel_broadcast(&self, broadcast_id: &str) -> Result<ApiAnswer, ClientError> {
        self.delete(&format!("/v1/broadcasts/{broadcast_id}"))
    }

    /// Begins to drain a node, or asks how that would go. `request` is the body.
    ///
    /// # Errors
    /// When no answer came.
    pub fn begin_drain(&self, node_id: &str, request: &Value) -> Result<ApiAnswer, ClientError> {
        let url = self.url(&drain_path(node_id), "");
        let post = self.with_key(self.agent.post(url));
        self.answer(post.send(request.to_string()))
    }

    /// How far a node has come with its drain.
    ///
    /// # Errors
    /// When no answer came.
    pub fn drain(&self, node_id: &str) -> Result<ApiAnswer, ClientError> {
        self.get(&drain_path(node_id), "")
    }

    /// Takes a drain back.
    ///
    /// # Errors
    /// When no answer came.
    pub fn cancel_drain(&self, node_id: &str) -> Result<ApiAnswer, ClientError> {
        self.delete(&drain_path(node_id))
    }

    /// Whether the node at this address, its ops listener, wants devices.
    ///
    /// # Errors
    /// When no answer came.
    pub fn ready(&self) -> Result<ApiAnswer, ClientError> {
        self.answer(self.agent.get(&self.url("/readyz", "")).call())
    }

    fn get(&self, path: &str, query: &str) -> Result<ApiAnswer, ClientError> {
        let get = self.agent.get(self.url(path, query));
        self.answer(self.with_key(get).call())
    }

    fn delete(&self, path: &str) -> Result<ApiAnswer, ClientError> {
        let delete = self.agent.delete(self.url(path, ""));
        self.answer(self.with_key(delete).call())
    }

    fn url(&self, path: &str, query: &str) -> String {
        let separator = if query.is_empty() { "" } else { "?" };
        format!("{}{path}{separator}{query}", self.base)
    }

    fn with_key<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    fn answer(
        &self,
        result: Result<Response<Body>, ureq::Error>,
    ) -> Result<ApiAnswer, ClientError> {
        let mut response = result.map_err(|error| self.failure(error))?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec();
        let body = body.map_err(|error| self.failure(error))?;
        let body = match serde_json::from_slice(&body) {
            Err(_) if !body.is_empty() => {
                Value::String(String::from_utf8_lossy(&body).into_owned())
            }
            parsed => parsed.unwrap_or_default(),
        };
        Ok(ApiAnswer { status, body })
    }

    fn failure(&self, error: ureq::Error) -> ClientError {
        let place = self.place.clone();
        if let ureq::Error::Io(source) = error {
            return ClientError::network(&place, source);
        }
        if let ureq::Error::Rustls(error) = &error {
            let cause = error.to_string();
            return ClientError::Tls { place, cause };
        }
        if matches!(error, ureq::Error::ConnectionFailed) {
            return ClientError::NothingListens { place };
        }
        ClientError::Protocol {
            place,
            cause: error.to_string(),
        }
    }
}

fn drain_path(node_id: &str) -> String {
    format!("/v1/nodes/{node_id}/drain")
}

/// Longer than any answer is waited for by the node itself.
const TIMEOUT: Duration = Duration::from_secs(90);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_call_is_made_with_its_key_and_the_answer_is_read_whatever_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let node = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                let mut bytes = [0; 1_024];
                let count = stream.read(&mut bytes).unwrap();
                request.push_str(str::from_utf8(&bytes[..count]).unwrap());
            }
            let body = "{\"error\":{\"code\":\"device_offline\",\"message\":\"no line\"}}";
            write!(
                stream,
                "HTTP/1.1 404 x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            request.to_ascii_lowercase()
        });
        let client = ApiClient::new(&addr.to_string(), Some("k1".into()), None).unwrap();
        let answer = client.connections("limit=3").unwrap();
        assert_eq!((answer.status, answer.is_success()), (404, false));
        assert_eq!(answer.error(), ("device_offline", "no line"));
        let request = node.join().unwrap();
        assert!(
            request.starts_with("get /v1/connections?limit=3 http/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("authorization: bearer k1\r\n"),
            "{request}"
        );
    }

    #[test]
    fn an_address_where_nobody_is_says_what_to_do() {
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let client = ApiClient::new(&format!("http://{addr}"), None, None).unwrap();
        let error = client.device("tv-1").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("nothing listens on {addr}; start it with `tautline serve`")
        );
        assert!(matches!(
            ApiClient::new("ftp://a.example", None, None),
            Err(ClientError::BadUrl { .. })
        ));
    }
}
