//! One message to all devices of an account: checked, submitted, awaited, and told device by device.

use std::cell::Cell;

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::config::section::ApiRole;
use crate::mailbox::sender::Sender;
use crate::protocol::auth::api_key::Shown;
use crate::protocol::push::{Refused, send_request};
use crate::reactor::api::conn::Stage;
use crate::reactor::api::intake::check_payload;
use crate::reactor::api::service::reply::Reply;
use crate::reactor::api::service::{ApiBody, authorize, collect, local};
use crate::reactor::api::{ApiContext, Submission};
use crate::reactor::fanout::{Addressee, Errand};
use crate::reactor::receipt::{BUSY, Receipt};
use crate::reactor::tally::{PartResult, Tally};
use crate::wire::answer;
use crate::wire::api::{FanoutCount, FanoutPart, FanoutResult, SendOutcome};
use crate::wire::error::ErrorCode;

/// Answers `POST /v1/users/{user_id}/messages`.
pub(super) async fn send(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    user_id: &str,
    body: Incoming,
    request_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    let settings = context.node.settings.load_full();
    let service = authorize(context, Shown::of(parts), ApiRole::Send)?;
    let body = collect(body, settings.api.body_bytes_max.as_usize()).await?;
    stage.set(Stage::Answering);
    let request = send_request(&parts.headers, parts.uri.query(), &body)?;
    if request.connection_id.is_some() {
        let cause = "connection_id names one line; send to its device";
        return Err((ErrorCode::BadRequest, cause.into()));
    }
    if request.idempotency_key.is_some() {
        let cause = "an idempotency key is for a message to one device";
        return Err((ErrorCode::BadRequest, cause.into()));
    }
    check_payload(&request, &settings)?;
    let patience_ms = settings.patience_ms(request.timeout_ms);
    drop(settings);
    let waiting = context.waiters.open(request.wait).ok_or(BUSY)?;
    let (message_id, now) = (context.mint(), context.now.get());
    let errand = Box::new(Errand {
        to: Addressee::Account(user_id.into()),
        message_id,
        payload: request.payload,
        from: Sender::Service(service),
        wait: request.wait,
        ttl_ms: request.ttl_ms,
        collapse_key: request.collapse_key.map(Into::into),
        ticket: waiting.ticket(),
        submitted_us: now.us,
        deadline_ms: now.ms() + patience_ms,
    });
    let submission = Submission::SendToAccount(errand);
    context.submissions.borrow_mut().push(submission);
    let answer = waiting.await;
    let latency_ms = answer.at_us.saturating_sub(now.us) / 1_000;
    let receipt = Receipt::new(message_id, &answer.outcome, answer.progress, latency_ms);
    let receipt = receipt.map_err(|(code, cause)| {
        let is_empty = code == ErrorCode::DeviceOffline;
        (code, if is_empty { NOBODY.into() } else { cause })
    })?;
    let Ok(result) = receipt.result() else {
        let reply = Reply::new(&receipt, &context.node, request_id);
        return Ok(local(reply.into_response(false)));
    };
    let tally = answer.tally.ok_or(BUSY)?;
    let status = match result {
        SendOutcome::Written | SendOutcome::Acked => StatusCode::OK,
        SendOutcome::Queued | SendOutcome::Expired | SendOutcome::Superseded => {
            StatusCode::ACCEPTED
        }
    };
    let result = FanoutResult {
        message_id: message_id.to_string(),
        result,
        level: receipt.level,
        node_id: context.node.id.to_string(),
        devices: FanoutCount {
            targets: tally.parts(),
            reached: tally.reached,
        },
        results: results(context, &tally),
        latency_ms,
    };
    Ok(local(answer::json(status, &result)))
}

fn results(context: &ApiContext, tally: &Tally) -> Vec<FanoutPart> {
    let part = |result: &PartResult| FanoutPart {
        device_id: result.device_id.as_deref().map(str::to_owned),
        connection_id: result
            .reached
            .map(|(_, location)| context.node.connection_id(location).to_string()),
        level: result.reached.map(|(level, _)| level),
        error: result.error.map(|code| code.word().to_owned()),
    };
    tally.results.iter().map(part).collect()
}

const NOBODY: &str = "no device of the account is connected to this node";
