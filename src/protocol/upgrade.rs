//! From the first byte to an authenticated line, or a back end's stream: the request head, the handshake, the credential.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;

use crate::base::time::{Now, Tick};
use crate::config::section::{ApiRole, AuthMode};
use crate::head::buffer::HeadBuffer;
use crate::head::request::{self, BadHead, Request};
use crate::head::response::Response;
use crate::metrics::Refusal;
use crate::protocol::auth::api_key::{ApiKeys, Shown};
use crate::protocol::auth::authenticator::{AuthError, Authenticated, Authenticator, Credential};
use crate::protocol::auth::origin::OriginPolicy;
use crate::protocol::device::Dialect;
use crate::protocol::intake::{Intake, IntakeLimits};
use crate::wire::api::ErrorBody;
use crate::wire::device::DeviceFrame;
use crate::wire::error::ErrorCode;
use crate::ws::decoder::Event;
use crate::ws::handshake::{self, NoUpgrade};

/// A connection on its way to becoming a line.
#[derive(Debug)]
pub struct Upgrade {
    /// When it was accepted: the one deadline counts from here, however its bytes trickle.
    pub opened: Tick,
    /// The same in microseconds, for the histogram.
    pub opened_us: u64,
    /// Where it comes from: as a load balancer says, if it is one of ours.
    pub from: IpAddr,
    /// Who its client certificate says it is: empty if that does not say, `None` if nobody asks or none was shown.
    pub bearer: Option<Box<str>>,
    /// Where it came in.
    pub door: Door,
    head: HeadBuffer,
    turned_away: Option<Refusal>,
    greeted: Option<Dialect>,
    intake: Intake,
}

/// Where a connection comes in, and so what it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The port of devices: a line.
    Devices,
    /// The port of back ends' streams.
    Peer,
}

/// Who may come in, and how much they may say first.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Bounds on the request head.
    pub head: request::Limits,
    /// Who a device is.
    pub authenticator: &'a Authenticator,
    /// Which browsers' pages may connect.
    pub origins: &'a OriginPolicy,
    /// Which cookie may carry a token.
    pub cookie: Option<&'a str>,
    /// Which back ends may open a stream.
    pub api_keys: &'a ApiKeys,
    /// Lines echo: for conformance tests.
    pub is_echo: bool,
    /// What a refused device should wait, in seconds; spread by the caller.
    pub retry_after_s: u32,
}

/// What came of some bytes.
#[derive(Debug)]
pub enum Step {
    /// The head is not whole.
    Incomplete,
    /// Not a line, and why; these bytes say so.
    Refused(Refusal, Vec<u8>),
    /// These bytes make it a WebSocket, which must bring its token in its first message.
    Greeted(Switch),
    /// These bytes make it a line of this device.
    Authenticated(Switch, Dialect, Authenticated),
    /// These bytes make it a stream of the back end named.
    Streaming(Switch, Arc<str>),
    /// A browser's credential failed. Browsers cannot read a status, so it becomes a WebSocket and is closed.
    Unauthorized(Switch, AuthError),
}

/// A 101, and where in the input the frames begin.
#[derive(Debug)]
pub struct Switch {
    /// The response.
    pub response: Vec<u8>,
    /// Bytes of the input that belonged to the head.
    pub consumed: usize,
}

impl Upgrade {
    /// Makes the state of a socket accepted now; `turned_away` answers whatever it asks with 503.
    pub fn new(door: Door, from: IpAddr, turned_away: Option<Refusal>, now: Now) -> Self {
        Self {
            door,
            from,
            bearer: None,
            opened: now.tick(),
            opened_us: now.us,
            head: HeadBuffer::default(),
            turned_away,
            greeted: None,
            intake: Intake::default(),
        }
    }

    /// Has whatever it asks answered with a refusal.
    pub fn turn_away(&mut self, refusal: Refusal) {
        self.turned_away.get_or_insert(refusal);
    }

    /// Notes that the 101 was sent.
    pub fn note_upgraded(&mut self, dialect: Dialect) {
        self.greeted = Some(dialect);
    }

    /// Whether the 101 was sent, so that frames may be.
    pub fn is_upgraded(&self) -> bool {
        self.greeted.is_some()
    }

    /// The dialect of a WebSocket that has yet to bring its token.
    pub fn greeted(&self) -> Option<Dialect> {
        self.greeted
    }

    /// Whether a WebSocket without its token yet may send so many bytes more in this second.
    pub fn admits_bytes(&mut self, bytes: usize, limits: IntakeLimits, now: Now) -> bool {
        self.intake.admits_bytes(bytes, limits, now.tick())
    }

    /// Whether a WebSocket without its token yet may send a frame more in this second.
    pub fn admits_frame(&mut self, limits: IntakeLimits, now: Now) -> bool {
        self.intake.admits_frame(limits, now.tick())
    }

    /// Takes bytes of the head.
    pub fn handle_input(&mut self, input: &[u8], gate: &Gate<'_>, now: Now) -> Step {
        let head = match self.head.receive(input, &gate.head) {
            Ok(None) => return Step::Incomplete,
            Ok(Some(head)) => head,
            Err(bad) => return refuse_head(bad),
        };
        if let Some(refusal) = self.turned_away {
            return turn_away(refusal, gate.retry_after_s);
        }
        match Request::parse(head.bytes, &gate.head) {
            Ok(request) => {
                let bearer = self.bearer.as_deref();
                let step = match self.door {
                    Door::Devices => answer(&request, head.consumed, bearer, gate, now),
                    Door::Peer => answer_back_end(&request, head.consumed, bearer, gate),
                };
                // A refused browser gets its close frame over the WebSocket it asked for.
                if let Step::Greeted(_) | Step::Unauthorized(..) = &step {
                    self.greeted = Some(Dialect::Json);
                }
                step
            }
            Err(bad) => refuse_head(bad),
        }
    }

    /// Takes the first message of a WebSocket that brought no token.
    ///
    /// # Errors
    /// [`AuthError`] when the message is anything but a `hello` with a good token.
    pub fn handle_hello(
        &self,
        event: &Event<'_>,
        authenticator: &Authenticator,
        now: Now,
    ) -> Result<Authenticated, AuthError> {
        if let Event::Text(text) = event
            && let Ok(DeviceFrame::Hello { token }) = DeviceFrame::decode(text)
        {
            return authenticator
                .authenticate(Credential::Token(token), now.wall_ms)?
                .bound_to(self.bearer.as_deref());
        }
        Err(AuthError::Missing)
    }
}

fn answer(
    request: &Request<'_>,
    consumed: usize,
    bearer: Option<&str>,
    gate: &Gate<'_>,
    now: Now,
) -> Step {
    let elsewhere = "devices connect to /ws; the sending API is on its own port";
    let supported: &[&str] = if gate.is_echo { &[ECHO] } else { &[JSON, RAW] };
    let upgrade = match accept(request, DEVICE_PATH, elsewhere, supported) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused,
    };
    let origin = match origin(request) {
        Ok(origin) if gate.origins.allows(origin) => origin,
        Ok(_) | Err(()) => {
            let message = "this page's origin is not on the node's list (auth.origins)";
            return refuse(Refusal::ForbiddenOrigin, ErrorCode::Forbidden, message);
        }
    };
    let switch = switch(&upgrade, consumed);
    let dialect = match upgrade.protocol() {
        RAW => Dialect::Raw,
        ECHO => Dialect::Echo,
        _ => Dialect::Json,
    };
    let authenticated = authenticate(request, origin, bearer, gate, now);
    match authenticated.and_then(|authenticated| authenticated.bound_to(bearer)) {
        Ok(authenticated) => Step::Authenticated(switch, dialect, authenticated),
        // A raw line has no first message to bring a token in.
        Err(AuthError::Missing)
            if gate.authenticator.mode() == AuthMode::Jwt && dialect == Dialect::Json =>
        {
            Step::Greeted(switch)
        }
        Err(error @ (AuthError::BadSubject | AuthError::BadClaim))
            if gate.authenticator.mode() == AuthMode::Dev =>
        {
            let message = format!("{error}; ids are 1 to 128 characters of A-Z a-z 0-9 . _ : -");
            refuse(Refusal::BadRequest, ErrorCode::InvalidId, &message)
        }
        Err(error) if origin.is_some() => Step::Unauthorized(switch, error),
        Err(error) => {
            let message = format!("{error}; see docs/protocol.md for how a device authenticates");
            refuse(Refusal::Unauthorized, ErrorCode::Unauthorized, &message)
        }
    }
}

/// A back end that wants to stream: no browser, so its `Origin` is not looked at.
fn answer_back_end(
    request: &Request<'_>,
    consumed: usize,
    bearer: Option<&str>,
    gate: &Gate<'_>,
) -> Step {
    let elsewhere = "back ends stream to /v1/stream here; the rest of the API is on its own port";
    let upgrade = match accept(request, STREAM_PATH, elsewhere, &[STREAM]) {
        Ok(upgrade) => upgrade,
        Err(refused) => return refused,
    };
    let shown = Shown {
        header: request.header("authorization"),
        bearer,
    };
    match gate.api_keys.authorize(shown, ApiRole::Send) {
        Ok(service) => Step::Streaming(switch(&upgrade, consumed), Arc::clone(service)),
        Err(error) => refuse(Refusal::Unauthorized, error.code(), error.cause()),
    }
}

/// The handshake of a request, if it is for the path given and asks for a sub-protocol that is supported there.
fn accept(
    request: &Request<'_>,
    path: &str,
    elsewhere: &str,
    supported: &[&'static str],
) -> Result<handshake::Upgrade, Step> {
    if request.target().path != path {
        return Err(refuse(
            Refusal::BadRequest,
            ErrorCode::UnknownRoute,
            elsewhere,
        ));
    }
    let upgrade = handshake::Upgrade::accept(
        request.method(),
        request.minor_version(),
        request.headers(),
        supported,
    );
    upgrade.map_err(refuse_upgrade)
}

fn switch(upgrade: &handshake::Upgrade, consumed: usize) -> Switch {
    let mut response = Vec::with_capacity(RESPONSE_BYTES);
    upgrade.encode_response(&mut response);
    Switch { response, consumed }
}

fn authenticate(
    request: &Request<'_>,
    origin: Option<&str>,
    bearer: Option<&str>,
    gate: &Gate<'_>,
    now: Now,
) -> Result<Authenticated, AuthError> {
    let target = request.target();
    if gate.authenticator.mode() == AuthMode::Certificate {
        let name = bearer.ok_or(AuthError::Missing)?;
        return gate
            .authenticator
            .authenticate(Credential::Certificate(name), now.wall_ms);
    }
    if gate.authenticator.mode() == AuthMode::Dev {
        let device_id = target.query_pair("device_id").ok_or(AuthError::Missing)?;
        let user_id = target.query_pair("user_id");
        let credential = Credential::Dev {
            device_id: &device_id,
            user_id: user_id.as_deref(),
        };
        return gate.authenticator.authenticate(credential, now.wall_ms);
    }
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    let query = target.query_pair("token");
    // A cookie rides along with whatever page asks, so it counts only for pages on the list.
    let cookie = gate
        .cookie
        .filter(|_| origin.is_some())
        .and_then(|name| request.cookie(name));
    let token = bearer
        .or(query.as_deref())
        .or(cookie)
        .ok_or(AuthError::Missing)?;
    gate.authenticator
        .authenticate(Credential::Token(token), now.wall_ms)
}

/// The `Origin`, if there is one; an error when there are several or it is no text.
fn origin<'a>(request: &Request<'a>) -> Result<Option<&'a str>, ()> {
    let is_there = request.header_values("origin").next().is_some();
    match request.header("origin") {
        None if is_there => Err(()),
        origin => Ok(origin),
    }
}

fn refuse_head(bad: BadHead) -> Step {
    let body = body(ErrorCode::BadRequest, bad.message());
    let response = Response::new(status(bad.status()), &body);
    encoded(Refusal::BadRequest, &response)
}

fn refuse_upgrade(no: NoUpgrade) -> Step {
    let body = body(ErrorCode::BadRequest, no.message());
    let response = Response::new(status(no.status()), &body);
    let response = no
        .headers()
        .iter()
        .fold(response, |response, (name, value)| {
            response.header(name, *value)
        });
    encoded(Refusal::BadRequest, &response)
}

fn refuse(refusal: Refusal, code: ErrorCode, message: &str) -> Step {
    let body = body(code, message);
    encoded(refusal, &Response::new(status(code.status()), &body))
}

/// The answer to whoever must come back later.
pub fn turn_away(refusal: Refusal, retry_after_s: u32) -> Step {
    let (code, message) = match refusal {
        Refusal::Draining => (
            ErrorCode::Draining,
            "this node is leaving; connect again for another one",
        ),
        Refusal::AddressLimit => (
            ErrorCode::RateLimited,
            "your address has too many connections here, or makes them too fast",
        ),
        Refusal::AccountLimit => (
            ErrorCode::RateLimited,
            "your account has as many lines here as it may",
        ),
        Refusal::TableFull
        | Refusal::Memory
        | Refusal::BadRequest
        | Refusal::ProxyHeader
        | Refusal::ForbiddenOrigin
        | Refusal::Unauthorized => (
            ErrorCode::Overloaded,
            "this node is full; connect again later",
        ),
    };
    let body = body(code, message);
    let response = Response::new(status(code.status()), &body);
    encoded(refusal, &response.retry_after(retry_after_s))
}

/// A status of one of our tables, whose numbers are all valid.
fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_REQUEST)
}

fn encoded(refusal: Refusal, response: &Response<'_>) -> Step {
    let mut out = Vec::new();
    response.encode(&mut out);
    Step::Refused(refusal, out)
}

fn body(code: ErrorCode, message: &str) -> String {
    // A struct of strings always serialises.
    serde_json::to_string(&ErrorBody::new(code, message, "")).unwrap_or_default()
}

/// Where devices connect.
const DEVICE_PATH: &str = "/ws";
/// Where back ends do.
const STREAM_PATH: &str = "/v1/stream";
const STREAM: &str = "tautline.v1.stream.json";
const JSON: &str = "tautline.v1.json";
const RAW: &str = "tautline.v1.raw";
const ECHO: &str = "echo";
/// Room for a 101 with a sub-protocol.
const RESPONSE_BYTES: usize = 192;
