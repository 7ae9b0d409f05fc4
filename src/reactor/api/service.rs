//! The sending API's hot calls, answered where they are read.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;

use crate::base::id::{ConnectionId, Location, is_valid_id};
use crate::base::place::Candidates;
use crate::config::section::ApiRole;
use crate::mailbox::command::{Delivery, Inspection, Outcome, Recipient};
use crate::mailbox::sender::Sender;
use crate::protocol::auth::api_key::{Bearer, Shown};
use crate::protocol::push::{Call, Refused, send_request};
use crate::reactor::api::pipe::PipeEnd;
use crate::reactor::api::user;
use crate::reactor::api::{ApiContext, ControlBody, Stage, Submission};
use crate::reactor::settings::Settings;
use crate::reactor::sweep::millis;
use crate::wire::answer::{self, REQUEST_ID};
use crate::wire::api::{ErrorBody, Level, SendRequest, SendResult};
use crate::wire::error::ErrorCode;

pub(super) type ApiBody = Either<Full<Bytes>, ControlBody>;

/// A body that tells the connection's stage when hyper has let go of it, sent or not.
struct AnswerBody {
    body: ApiBody,
    stage: Rc<Cell<Stage>>,
    context: Rc<ApiContext>,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = <ApiBody as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.stage.set(Stage::Idle(self.context.now.get().tick()));
    }
}

/// Serves one connection until either side ends it.
pub(super) async fn serve(
    io: PipeEnd,
    context: Rc<ApiContext>,
    stage: Rc<Cell<Stage>>,
    bearer: Rc<OnceCell<Bearer>>,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let (context, stage) = (Rc::clone(&context), Rc::clone(&stage));
        if let Some(bearer) = bearer.get() {
            request.extensions_mut().insert(bearer.clone());
        }
        async move {
            stage.set(Stage::Body(context.now.get().tick()));
            let response = answer(&context, &stage, request).await;
            // The next request is waited for when the whole answer has been taken.
            let body = |body| AnswerBody {
                body,
                stage,
                context,
            };
            Ok::<_, std::convert::Infallible>(response.map(body))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true)
        // The reactor's deadlines cover it; hyper has no timer here.
        .header_read_timeout(None)
        .serve_connection(io, service);
    // A connection ends by an error of the far end's as often as not; its bytes have been answered already.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "api connection ended");
    }
}

/// One request's way through: who asks, what for, and what came of it.
async fn answer(
    context: &ApiContext,
    stage: &Cell<Stage>,
    request: Request<Incoming>,
) -> Response<ApiBody> {
    context.node.cells[usize::from(context.shard.0)]
        .api_requests
        .add(1);
    let (mut parts, body) = request.into_parts();
    let request_id = request_id(context, &mut parts);
    let result = match Call::of(&parts.method, parts.uri.path()) {
        Ok(Call::Send(device_id)) => {
            send(
                context,
                stage,
                &parts,
                device_id.into_owned(),
                body,
                &request_id,
            )
            .await
        }
        Ok(Call::SendToUser(user_id)) => {
            user::send(context, stage, &parts, &user_id, body, &request_id).await
        }
        Ok(Call::Inspect(device_id)) => inspect(context, stage, &parts, &device_id).await,
        Ok(Call::Other) => return hand_over(context, stage, parts, body, &request_id).await,
        Err(refused) => Err(refused),
    };
    let mut response =
        result.unwrap_or_else(|(code, cause)| error_response(code, &cause, &request_id));
    put_request_id(&mut response, &request_id);
    response
}

async fn send(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    device_id: String,
    body: Incoming,
    request_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    let settings = context.node.settings.load_full();
    let service = authorize(context, parts, ApiRole::Send)?;
    let body = collect(body, settings.api.body_bytes_max.as_usize()).await?;
    stage.set(Stage::Answering);
    let request = send_request(&parts.headers, parts.uri.query(), &body)?;
    check_payload(&request, &settings)?;
    let patience_ms = patience_ms(&request, &settings);
    drop(settings);
    let bound_to = request
        .connection_id
        .as_deref()
        .map(|text| bound_location(context, text))
        .transpose()?;
    let waiting = context.waiters.open(request.wait).ok_or(BUSY)?;
    let (message_id, now) = (context.mint(), context.now.get());
    let SendRequest { payload, wait, .. } = request;
    let delivery = Box::new(Delivery {
        to: Recipient::Device(device_id.into()),
        candidates: Candidates::default(),
        is_thorough: false,
        bound_to,
        message_id,
        payload,
        from: Sender::Service(service),
        wait,
        ticket: waiting.ticket(),
        submitted_us: now.us,
    });
    context
        .submissions
        .borrow_mut()
        .push(Submission::Send(delivery, now.ms() + patience_ms));
    let reply = waiting.await;
    let latency_ms = context.now.get().us.saturating_sub(now.us) / 1_000;
    let progress = reply.progress.map(|(level, _)| level);
    let (level, location) = match reached(reply.outcome) {
        Err((code @ ErrorCode::AckTimeout, cause)) => {
            let mut body = ErrorBody::new(code, cause, request_id);
            body.error.message_id = Some(message_id.to_string());
            body.error.level = progress;
            return Ok(failed(code, &body));
        }
        reached => reached?,
    };
    let result = SendResult {
        message_id: message_id.to_string(),
        result: level,
        level,
        node_id: context.node.id.to_string(),
        connection_id: context.node.connection_id(location).to_string(),
        latency_ms,
    };
    let status = if level == Level::Queued {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok(local(answer::json(status, &result)))
}

/// Whether the payload is small enough for a device.
pub(super) fn check_payload(request: &SendRequest, settings: &Settings) -> Result<(), Refused> {
    let payload_bytes_max = settings.limits.message_bytes_max.as_usize();
    if request.payload.bytes.len() <= payload_bytes_max {
        return Ok(());
    }
    let cause = format!("the payload is over limits.message_bytes_max ({payload_bytes_max} bytes)");
    Err((ErrorCode::PayloadTooLarge, cause.into()))
}

/// How long the request waits for its level.
pub(super) fn patience_ms(request: &SendRequest, settings: &Settings) -> u64 {
    let timeout_ms = request
        .timeout_ms
        .unwrap_or_else(|| millis(settings.api.timeout_default));
    timeout_ms.min(millis(settings.api.timeout_max))
}

async fn inspect(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    device_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    authorize(context, parts, ApiRole::Read)?;
    stage.set(Stage::Answering);
    let waiting = context.waiters.open(Level::Queued).ok_or(BUSY)?;
    let inspection = Box::new(Inspection {
        device_id: device_id.into(),
        candidates: Candidates::default(),
        is_thorough: false,
        ticket: waiting.ticket(),
    });
    let deadline_ms = context.now.get().ms() + INSPECTION_PATIENCE_MS;
    context
        .submissions
        .borrow_mut()
        .push(Submission::Ask(inspection, deadline_ms));
    match waiting.await.outcome {
        Outcome::Found(info) => Ok(local(answer::json(StatusCode::OK, &info))),
        Outcome::Offline => Err(OFFLINE),
        Outcome::Busy
        | Outcome::Timeout
        | Outcome::Reached(..)
        | Outcome::Holder(_)
        | Outcome::Surveyed(_)
        | Outcome::Gone
        | Outcome::Unacked
        | Outcome::SlowConsumer
        | Outcome::AckUnsupported
        | Outcome::RateLimited => Err(BUSY),
    }
}

/// Hands everything else to the control plane, body and all.
async fn hand_over(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: Parts,
    body: Incoming,
    request_id: &str,
) -> Response<ApiBody> {
    let body_bytes_max = context.node.settings.load().api.body_bytes_max.as_usize();
    let body = match collect(body, body_bytes_max).await {
        Ok(body) => body,
        Err((code, cause)) => return error_response(code, &cause, request_id),
    };
    stage.set(Stage::Answering);
    let mut response = match (context.fallback)(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(Either::Right),
        Err(_) => error_response(
            ErrorCode::Internal,
            "the control plane dropped the request",
            request_id,
        ),
    };
    put_request_id(&mut response, request_id);
    response
}

/// The level a message reached and where, or the error that says why it did not: the one place that decides.
pub(crate) fn reached(outcome: Outcome) -> Result<(Level, Location), Refused> {
    match outcome {
        Outcome::Reached(level, location) => Ok((level, location)),
        Outcome::Offline => Err(OFFLINE),
        Outcome::Gone => Err((
            ErrorCode::ConnectionGone,
            "the connection named is gone; look the device up again".into(),
        )),
        Outcome::SlowConsumer => Err((
            ErrorCode::SlowConsumer,
            "the device does not read what it is sent; its line is being closed".into(),
        )),
        Outcome::AckUnsupported => Err((
            ErrorCode::AckUnsupported,
            "a raw line cannot acknowledge; use wait=written".into(),
        )),
        Outcome::RateLimited => Err((
            ErrorCode::RateLimited,
            "too many messages from this device, or to its target; slow down".into(),
        )),
        Outcome::Timeout => Err((
            ErrorCode::AckTimeout,
            "the level was not reached in time; it may be yet".into(),
        )),
        Outcome::Unacked => Err((
            ErrorCode::AckTimeout,
            "the line ended before the device acknowledged the message".into(),
        )),
        Outcome::Busy | Outcome::Found(_) | Outcome::Holder(_) | Outcome::Surveyed(_) => Err(BUSY),
    }
}

pub(super) fn authorize(
    context: &ApiContext,
    parts: &Parts,
    role: ApiRole,
) -> Result<std::sync::Arc<str>, Refused> {
    let settings = context.node.settings.load();
    settings
        .api_keys
        .authorize(Shown::of(parts), role)
        .cloned()
        .map_err(|error| (error.code(), error.cause().into()))
}

pub(super) async fn collect(body: Incoming, bytes_max: usize) -> Result<Bytes, Refused> {
    // What is announced to be too long is not waited for.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Err(error) => Err((
            ErrorCode::InvalidBody,
            format!("the body did not arrive whole: {error}").into(),
        )),
    }
}

fn too_large(bytes_max: usize) -> Refused {
    let cause = format!("the body is over api.body_bytes_max ({bytes_max} bytes)");
    (ErrorCode::PayloadTooLarge, cause.into())
}

/// Where a message is bound to; a connection of another run or node is as gone as one that closed.
pub(crate) fn bound_location(context: &ApiContext, text: &str) -> Result<Location, Refused> {
    let id = ConnectionId::parse(text).ok_or_else(|| {
        (
            ErrorCode::BadRequest,
            Cow::from("connection_id is not one of ours"),
        )
    })?;
    if id.epoch == context.node.epoch {
        return Ok(id.location);
    }
    Err((
        ErrorCode::ConnectionGone,
        "the connection named is gone; look the device up again".into(),
    ))
}

/// The caller's `X-Request-Id` if it is an id, else a new one; either way the request carries it on.
fn request_id(context: &ApiContext, parts: &mut Parts) -> String {
    let given = parts
        .headers
        .get(REQUEST_ID)
        .filter(|id| is_valid_id(id.as_bytes()));
    if let Some(id) = given.and_then(|id| id.to_str().ok()) {
        return id.to_owned();
    }
    let id = context.mint().to_string();
    if let Ok(value) = HeaderValue::from_str(&id) {
        parts.headers.insert(REQUEST_ID, value);
    }
    id
}

fn put_request_id(response: &mut Response<ApiBody>, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

fn error_response(code: ErrorCode, cause: &str, request_id: &str) -> Response<ApiBody> {
    local(answer::error(code, cause, request_id))
}

/// An error whose body says more than its cause.
pub(super) fn failed(code: ErrorCode, body: &ErrorBody) -> Response<ApiBody> {
    local(answer::failed(code, body))
}

/// An answer made on this thread.
pub(super) fn local(response: Response<Bytes>) -> Response<ApiBody> {
    response.map(|body| Either::Left(Full::new(body)))
}

const OFFLINE: Refused = (
    ErrorCode::DeviceOffline,
    Cow::Borrowed("the device is not connected to this node"),
);
pub(crate) const BUSY: Refused = (
    ErrorCode::Overloaded,
    Cow::Borrowed("the node has no room for the request now; try again"),
);
/// Headers of a request; hyper answers more with 431.
const HEADERS_MAX: usize = 64;
/// hyper's bound on a request head; the smallest it takes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Asking another shard takes microseconds; a shard that has not answered by now is overloaded.
const INSPECTION_PATIENCE_MS: u64 = 2_000;
