//! The sending API's hot calls, answered where they are read.

use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;

use crate::base::id::is_valid_id;
use crate::config::section::ApiRole;
use crate::protocol::auth::api_key::{Bearer, Shown};
use crate::protocol::field::Fields;
use crate::protocol::push::{Call, Refused};
use crate::reactor::api::conn::Stage;
use crate::reactor::api::pipe::PipeEnd;
use crate::reactor::api::{ApiContext, ControlBody};
use crate::wire::answer::{self, REQUEST_ID};
use crate::wire::error::ErrorCode;

mod batch;
pub(crate) mod hot;
mod inspect;
mod reply;
mod send;
mod user;
pub(super) mod writer;

type ApiBody = Either<Full<Bytes>, ControlBody>;

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
        // A far end that has finished may still read. One that has gone looks the same until something is written, so
        // it keeps its place until its answer is made.
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
    context.cells().api_requests.add(1);
    let (mut parts, body) = request.into_parts();
    let request_id = request_id(context, &parts.headers);
    let result = match Call::of(&parts.method, parts.uri.path()) {
        Ok(Call::Send(device_id)) => {
            send::send(
                context,
                stage,
                &parts,
                device_id.into_owned(),
                body,
                &request_id,
            )
            .await
        }
        Ok(Call::Batch) => batch::send_batch(context, stage, &parts, body, &request_id).await,
        Ok(Call::SendToUser(user_id)) => {
            user::send(context, stage, &parts, &user_id, body, &request_id).await
        }
        Ok(Call::Inspect(device_id)) => inspect::inspect(context, stage, &parts, &device_id).await,
        Ok(Call::Other) => {
            // The control plane's log names it as its answer does.
            if let Ok(value) = HeaderValue::from_str(&request_id) {
                parts.headers.insert(REQUEST_ID, value);
            }
            return hand_over(context, stage, parts, body, &request_id).await;
        }
        Err(refused) => Err(refused),
    };
    let refuse = |refused: Refused| local(refusal(&refused, &request_id));
    let mut response = result.unwrap_or_else(refuse);
    put_request_id(&mut response, &request_id);
    response
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
        Err(refused) => return local(refusal(&refused, request_id)),
    };
    stage.set(Stage::Answering);
    let mut response = match (context.fallback)(Request::from_parts(parts, body)).await {
        Ok(response) => response.map(Either::Right),
        Err(_) => {
            let cause = "the control plane dropped the request".into();
            local(refusal(&(ErrorCode::Internal, cause), request_id))
        }
    };
    put_request_id(&mut response, request_id);
    response
}

fn authorize(context: &ApiContext, shown: Shown<'_>, role: ApiRole) -> Result<Arc<str>, Refused> {
    let settings = context.node.settings.load();
    settings
        .api_keys
        .authorize(shown, role)
        .cloned()
        .map_err(|error| (error.code(), error.cause().into()))
}

async fn collect(body: Incoming, bytes_max: usize) -> Result<Bytes, Refused> {
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

/// The caller's `X-Request-Id` if it is an id, else a new one.
fn request_id(context: &ApiContext, headers: &impl Fields) -> String {
    let given = headers.text(REQUEST_ID);
    match given.filter(|id| is_valid_id(id.as_bytes())) {
        Some(id) => id.to_owned(),
        None => context.mint().to_string(),
    }
}

fn put_request_id<B>(response: &mut Response<B>, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

fn refusal((code, cause): &Refused, request_id: &str) -> Response<Bytes> {
    answer::error(*code, cause, request_id)
}

/// An answer made on this thread.
fn local(response: Response<Bytes>) -> Response<ApiBody> {
    response.map(|body| Either::Left(Full::new(body)))
}

/// Headers of a request; hyper answers more with 431.
const HEADERS_MAX: usize = 64;
/// hyper's bound on a request head; the smallest it takes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
