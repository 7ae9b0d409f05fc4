//! One message to all devices of an account: checked, submitted, awaited, and told device by device.

use std::cell::Cell;

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::config::section::ApiRole;
use crate::mailbox::sender::Sender;
use crate::protocol::push::{Refused, send_request};
use crate::reactor::api::service::{
    ApiBody, BUSY, authorize, check_payload, collect, failed, local, patience_ms, reached,
};
use crate::reactor::api::{ApiContext, Stage, Submission};
use crate::reactor::fanout::{Addressee, Errand};
use crate::reactor::tally::{PartResult, Tally};
use crate::wire::answer;
use crate::wire::api::{ErrorBody, FanoutCount, FanoutPart, FanoutResult, Level, SendRequest};
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
    let service = authorize(context, parts, ApiRole::Send)?;
    let body = collect(body, settings.api.body_bytes_max.as_usize()).await?;
    stage.set(Stage::Answering);
    let request = send_request(&parts.headers, parts.uri.query(), &body)?;
    if request.connection_id.is_some() {
        let cause = "connection_id names one line; send to its device";
        return Err((ErrorCode::BadRequest, cause.into()));
    }
    check_payload(&request, &settings)?;
    let patience_ms = patience_ms(&request, &settings);
    drop(settings);
    let waiting = context.waiters.open(request.wait).ok_or(BUSY)?;
    let (message_id, now) = (context.mint(), context.now.get());
    let SendRequest { payload, wait, .. } = request;
    let errand = Box::new(Errand {
        to: Addressee::Account(user_id.into()),
        message_id,
        payload,
        from: Sender::Service(service),
        wait,
        ticket: waiting.ticket(),
        submitted_us: now.us,
        deadline_ms: now.ms() + patience_ms,
    });
    let submission = Submission::SendToAccount(errand);
    context.submissions.borrow_mut().push(submission);
    let answer = waiting.await;
    let latency_ms = context.now.get().us.saturating_sub(now.us) / 1_000;
    let level = answer.progress.map(|(level, _)| level);
    match (reached(answer.outcome), answer.tally) {
        (Ok((level, _)), Some(tally)) => {
            let result = FanoutResult {
                message_id: message_id.to_string(),
                result: level,
                level,
                node_id: context.node.id.to_string(),
                devices: FanoutCount {
                    targets: tally.parts(),
                    reached: tally.reached,
                },
                results: results(context, &tally),
                latency_ms,
            };
            let status = match level {
                Level::Queued => StatusCode::ACCEPTED,
                Level::Written | Level::Acked => StatusCode::OK,
            };
            Ok(local(answer::json(status, &result)))
        }
        (Err((code @ ErrorCode::AckTimeout, cause)), _) => {
            let mut body = ErrorBody::new(code, cause, request_id);
            body.error.message_id = Some(message_id.to_string());
            body.error.level = level;
            Ok(failed(code, &body))
        }
        (Err((ErrorCode::DeviceOffline, _)), _) => Err((
            ErrorCode::DeviceOffline,
            "no device of the account is connected to this node".into(),
        )),
        (Err(refused), _) => Err(refused),
        (Ok(_), None) => Err(BUSY),
    }
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
