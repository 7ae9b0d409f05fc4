//! Many messages in one request, each to its own target and with an answer of its own.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::config::section::ApiRole;
use crate::protocol::auth::api_key::Shown;
use crate::protocol::push::{Refused, batch_request};
use crate::reactor::api::ApiContext;
use crate::reactor::api::conn::Stage;
use crate::reactor::api::service::reply::Reply;
use crate::reactor::api::service::send::{Sending, submit};
use crate::reactor::api::service::{ApiBody, authorize, collect, local};
use crate::wire::answer;
use crate::wire::batch::BatchResult;
use crate::wire::envelope::{SendDefaults, SendRequest};

/// Answers `POST /v1/messages:batch`: all messages are under way before the first is waited for.
pub(super) async fn send_batch(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    body: Incoming,
    request_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    let service = authorize(context, Shown::of(parts), ApiRole::Send)?;
    let settings = context.node.settings.load_full();
    let body = collect(body, settings.api.body_bytes_max.as_usize()).await?;
    stage.set(Stage::Answering);
    let messages_max = settings.api.batch_messages_max;
    let query = parts.uri.query();
    let (messages, defaults) = batch_request(&parts.headers, query, &body, messages_max)?;
    let mut sendings = Vec::with_capacity(messages.len());
    for message in messages {
        while !context.takes_message_of_batch() {
            NextIteration::of(context).await;
        }
        sendings.push(submit_message(context, &message, defaults, &service));
    }
    let mut results = Vec::with_capacity(sendings.len());
    for sending in sendings {
        let receipt = match sending {
            Ok(sending) => sending.receipt().await,
            Err(refused) => Err(refused),
        };
        let reply = match receipt {
            Ok(receipt) => Reply::new(&receipt, &context.node, request_id),
            Err(refused) => Reply::refused(refused, request_id),
        };
        results.push(reply.into_element());
    }
    let result = BatchResult { results };
    Ok(local(answer::json(StatusCode::OK, &result)))
}

fn submit_message(
    context: &ApiContext,
    message: &Bytes,
    defaults: SendDefaults,
    service: &std::sync::Arc<str>,
) -> Result<Sending, Refused> {
    let decoded = SendRequest::from_batch(message, defaults);
    let (device_id, request) = decoded.map_err(|(code, cause)| (code, cause.into()))?;
    submit(context, device_id, request, service)
}

/// Comes when the loop has been around, so that others have their turn.
struct NextIteration<'a> {
    context: &'a ApiContext,
    iteration: u64,
    is_queued: bool,
}

impl<'a> NextIteration<'a> {
    fn of(context: &'a ApiContext) -> Self {
        Self {
            context,
            iteration: context.cells().iterations.value(),
            is_queued: false,
        }
    }
}

impl Future for NextIteration<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.context.cells().iterations.value() != self.iteration {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.is_queued, true) {
            self.context
                .next_iteration
                .borrow_mut()
                .push(cx.waker().clone());
        }
        Poll::Pending
    }
}
