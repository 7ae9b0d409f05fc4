//! One message to one device: checked, submitted, awaited.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::base::id::MessageId;
use crate::base::time::Now;
use crate::config::section::ApiRole;
use crate::protocol::auth::api_key::Shown;
use crate::protocol::push::{Refused, send_request};
use crate::reactor::api::conn::Stage;
use crate::reactor::api::intake::{Acceptance, accept, check_payload};
use crate::reactor::api::service::reply::Reply;
use crate::reactor::api::service::{ApiBody, authorize, collect, local};
use crate::reactor::api::{ApiContext, Submission};
use crate::reactor::receipt::{BUSY, Receipt};
use crate::reactor::waiter::Waiting;
use crate::wire::envelope::SendRequest;

/// A message that was taken up, or was before.
#[derive(Debug)]
pub(super) enum Sending {
    /// It is on its way.
    New(Waiting, MessageId, Now),
    /// The same request was answered already.
    Replayed(Receipt),
}

/// Answers `POST /v1/devices/{device_id}/messages`.
pub(super) async fn send(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    device_id: String,
    body: Incoming,
    request_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    let service = authorize(context, Shown::of(parts), ApiRole::Send)?;
    let body_bytes_max = context.node.settings.load().api.body_bytes_max.as_usize();
    let body = collect(body, body_bytes_max).await?;
    stage.set(Stage::Answering);
    let request = send_request(&parts.headers, parts.uri.query(), &body)?;
    let sending = submit(context, device_id, request, &service)?;
    let receipt = sending.receipt().await?;
    Ok(local(sending.response(&receipt, context, request_id)))
}

/// Takes a message up, unless it is wrong or was taken up before.
pub(super) fn submit(
    context: &ApiContext,
    device_id: String,
    request: SendRequest,
    service: &Arc<str>,
) -> Result<Sending, Refused> {
    let settings = context.node.settings.load();
    check_payload(&request, &settings)?;
    let mut accepted = match accept(context, &device_id, &request, service)? {
        Acceptance::New(accepted) => accepted,
        Acceptance::Replay(receipt) => return Ok(Sending::Replayed(receipt)),
    };
    let claim = accepted.claim.take();
    let waiting = context.waiters.open_for(request.wait, claim).ok_or(BUSY)?;
    let (message_id, now) = (accepted.message_id, context.now.get());
    let deadline_ms = now.ms() + settings.patience_ms(request.timeout_ms);
    let (service, ticket) = (Arc::clone(service), waiting.ticket());
    let delivery = accepted.into_delivery(device_id, request, service, ticket, now);
    let submission = Submission::Send(delivery, deadline_ms);
    context.submissions.borrow_mut().push(submission);
    Ok(Sending::New(waiting, message_id, now))
}

impl Sending {
    /// What became of it.
    pub(super) async fn receipt(&self) -> Result<Receipt, Refused> {
        poll_fn(|cx| self.poll_receipt(cx.waker())).await
    }

    /// The same, for who is no future: `waker` is told when it is known.
    pub(super) fn poll_receipt(&self, waker: &Waker) -> Poll<Result<Receipt, Refused>> {
        match self {
            Self::New(waiting, message_id, submitted) => {
                let answer = ready!(waiting.poll_answer(waker));
                let latency_ms = answer.at_us.saturating_sub(submitted.us) / 1_000;
                let (outcome, progress) = (&answer.outcome, answer.progress);
                Poll::Ready(Receipt::new(*message_id, outcome, progress, latency_ms))
            }
            Self::Replayed(receipt) => Poll::Ready(Ok(receipt.clone())),
        }
    }

    /// The answer to the request that it came with.
    pub(super) fn response(
        &self,
        receipt: &Receipt,
        context: &ApiContext,
        request_id: &str,
    ) -> Response<Bytes> {
        let is_replayed = matches!(self, Self::Replayed(_));
        Reply::new(receipt, &context.node, request_id).into_response(is_replayed)
    }
}
