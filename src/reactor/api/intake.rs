//! What a message of a back end is asked before it is taken up, whichever way it comes in.

use std::sync::Arc;

use crate::base::id::{ConnectionId, Location, MessageId};
use crate::protocol::push::Refused;
use crate::reactor::api::ApiContext;
use crate::reactor::idempotency::{Bounds, Claim, Digest, Keyed, Known};
use crate::reactor::receipt::{GONE, Receipt};
use crate::reactor::settings::Settings;
use crate::reactor::sweep::millis;
use crate::wire::envelope::SendRequest;
use crate::wire::error::ErrorCode;

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

/// Where a message is bound to; a connection of another run or node is as gone as one that closed.
pub(crate) fn bound_location(context: &ApiContext, text: &str) -> Result<Location, Refused> {
    let id = ConnectionId::parse(text).ok_or_else(|| {
        (
            ErrorCode::BadRequest,
            "connection_id is not one of ours".into(),
        )
    })?;
    if id.epoch == context.node.epoch {
        return Ok(id.location);
    }
    Err(GONE)
}

/// What an idempotency key makes of a request.
pub(crate) enum Claimed {
    /// It has none.
    None,
    /// It is the first with its key.
    New(Box<Claim>),
    /// It was carried out.
    Done(Receipt),
}

/// Looks a request up by its idempotency key, if it has one.
pub(crate) fn claim(
    context: &ApiContext,
    device_id: &str,
    request: &SendRequest,
    service: &str,
    message_id: MessageId,
) -> Result<Claimed, Refused> {
    let Some(key) = &request.idempotency_key else {
        return Ok(Claimed::None);
    };
    let (node, now) = (&context.node, context.now.get());
    let settings = node.settings.load();
    let keyed = Keyed {
        key: Digest::of_key(service, key),
        fingerprint: Digest::of_request(device_id, request),
    };
    let bounds = Bounds {
        window_ms: millis(settings.api.idempotency_window),
        keys_max: settings.api.idempotency_keys_max,
    };
    match node.window.claim(keyed, message_id, bounds, now.ms()) {
        Known::New { forgotten } => {
            context.cells().keys_forgotten.add(forgotten);
            let claim = Claim::new(Arc::clone(node), keyed.key, message_id, now);
            Ok(Claimed::New(Box::new(claim)))
        }
        Known::Done(receipt) => {
            context.cells().replays.add(1);
            Ok(Claimed::Done(receipt))
        }
        Known::Pending => Err((
            ErrorCode::IdempotencyPending,
            "the same request is under way; ask again for its answer".into(),
        )),
        Known::Conflict => Err((
            ErrorCode::IdempotencyConflict,
            "the idempotency key was used for another request".into(),
        )),
    }
}
