//! Whether a device is online, and where.

use std::cell::Cell;

use http::request::Parts;
use http::{Response, StatusCode};

use crate::base::place::Candidates;
use crate::config::section::ApiRole;
use crate::mailbox::command::{Inspection, Outcome};
use crate::protocol::auth::api_key::Shown;
use crate::protocol::push::Refused;
use crate::reactor::api::conn::Stage;
use crate::reactor::api::service::{ApiBody, authorize, local};
use crate::reactor::api::{ApiContext, Submission};
use crate::reactor::receipt::{BUSY, OFFLINE};
use crate::wire::answer;
use crate::wire::api::Level;

pub(super) async fn inspect(
    context: &ApiContext,
    stage: &Cell<Stage>,
    parts: &Parts,
    device_id: &str,
) -> Result<Response<ApiBody>, Refused> {
    authorize(context, Shown::of(parts), ApiRole::Read)?;
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
        | Outcome::Acked(..)
        | Outcome::Expired(_)
        | Outcome::Superseded(_)
        | Outcome::Holder(_)
        | Outcome::Surveyed(_)
        | Outcome::Gone
        | Outcome::Unacked
        | Outcome::SlowConsumer
        | Outcome::AckUnsupported
        | Outcome::RateLimited => Err(BUSY),
    }
}

/// Asking another shard takes microseconds; a shard that has not answered by now is overloaded.
const INSPECTION_PATIENCE_MS: u64 = 2_000;
