//! One message to one device: checked, submitted, awaited.

use std::cell::Cell;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::base::id::MessageId;
use crate::base::time::Now;
use crate::config::section::ApiRole;
use crate::protocol::push::{Refused, send_request};
use crate::reactor::api::intake::{Acceptance, accept, check_payload, patience_ms};
use crate::reactor::api::service::reply::Reply;
use crate::reactor::api::service::{ApiBody, authorize, collect, local};
use crate::reactor::api::{ApiContext, Stage, Submission};
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
    let service = authorize(context, parts, ApiRole::Send)?;
    let body_bytes_max = context.node.settings.load().api.body_bytes_max.as_usize();
    let body = collect(body, body_bytes_max).await?;
    stage.set(Stage::Answering);
    let request = send_request(&parts.headers, parts.uri.query(), &body)?;
    let sending = submit(context, device_id, request, &service)?;
    let is_replayed = matches!(sending, Sending::Replayed(_));
    let receipt = sending.receipt().await?;
    let reply = Reply::new(&receipt, &context.node, request_id);
    Ok(local(reply.into_response(is_replayed)))
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
    let deadline_ms = now.ms() + patience_ms(&request, &settings);
    let (service, ticket) = (Arc::clone(service), waiting.ticket());
    let delivery = accepted.into_delivery(device_id, request, service, ticket, now);
    let submission = Submission::Send(delivery, deadline_ms);
    context.submissions.borrow_mut().push(submission);
    Ok(Sending::New(waiting, message_id, now))
}

impl Sending {
    /// What became of it.
    pub(super) async fn receipt(self) -> Result<Receipt, Refused> {
        match self {
            Self::New(waiting, message_id, submitted) => {
                let answer = waiting.await;
                let latency_ms = answer.at_us.saturating_sub(submitted.us) / 1_000;
                Receipt::new(message_id, &answer.outcome, answer.progress, latency_ms)
            }
            Self::Replayed(receipt) => Ok(receipt),
        }
    }
}
