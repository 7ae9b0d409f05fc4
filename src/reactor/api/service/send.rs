//! One message to one device: checked, submitted, awaited.

use std::cell::Cell;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::base::id::MessageId;
use crate::base::time::Now;
use crate::config::section::ApiRole;
use crate::mailbox::command::{Delivery, Recipient, Terms, Way};
use crate::mailbox::sender::Sender;
use crate::protocol::push::{Refused, send_request};
use crate::reactor::api::intake::{Claimed, bound_location, check_payload, claim, patience_ms};
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
    let bound_to = request.connection_id.as_deref();
    let bound_to = bound_to
        .map(|text| bound_location(context, text))
        .transpose()?;
    let (message_id, now) = (context.mint(), context.now.get());
    let claim = match claim(context, &device_id, &request, service, message_id)? {
        Claimed::None => None,
        Claimed::New(claim) => Some(claim),
        Claimed::Done(receipt) => return Ok(Sending::Replayed(receipt)),
    };
    let waiting = context.waiters.open_for(request.wait, claim).ok_or(BUSY)?;
    let patience_ms = patience_ms(&request, &settings);
    let from = Sender::Service(Arc::clone(service));
    let collapse_key = request.collapse_key.as_deref();
    let delivery = Box::new(Delivery {
        to: Recipient::Device(device_id.into()),
        way: Way::default(),
        bound_to,
        message_id,
        payload: request.payload,
        wait: request.wait,
        ticket: waiting.ticket(),
        submitted_us: now.us,
        terms: Terms::new(request.ttl_ms, collapse_key, &from, now.us),
        from,
    });
    let deadline_ms = now.ms() + patience_ms;
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
