//! What a message of a back end is asked before it is taken up, whichever way it comes in.

use std::sync::Arc;

use crate::base::id::{ConnectionId, Location, MessageId};
use crate::base::time::{Now, millis};
use crate::mailbox::command::{Delivery, Recipient, Terms, Ticket, Way};
use crate::mailbox::sender::Sender;
use crate::protocol::push::Refused;
use crate::reactor::api::ApiContext;
use crate::reactor::idempotency::{Bounds, Claim, Digest, Keyed, Known};
use crate::reactor::receipt::{GONE, Receipt};
use crate::reactor::settings::Settings;
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

/// Whether a request is to be carried out.
pub(crate) enum Acceptance {
    /// It is.
    New(Accepted),
    /// It was before: this became of it.
    Replay(Receipt),
}

/// A message that may be taken up.
pub(crate) struct Accepted {
    /// Its id from now on.
    pub(crate) message_id: MessageId,
    /// Holds its idempotency key until its end, if it has one.
    pub(crate) claim: Option<Box<Claim>>,
    bound_to: Option<Location>,
}

/// Asks what is asked of each message, whichever way it came in.
///
/// # Errors
/// Why it is not taken up.
pub(crate) fn accept(
    context: &ApiContext,
    device_id: &str,
    request: &SendRequest,
    service: &str,
) -> Result<Acceptance, Refused> {
    let bound_to = request.connection_id.as_deref();
    let bound_to = bound_to
        .map(|text| bound_location(context, text))
        .transpose()?;
    let message_id = context.mint();
    let claim = match claim(context, device_id, request, service, message_id)? {
        Claimed::None => None,
        Claimed::New(claim) => Some(claim),
        Claimed::Done(receipt) => return Ok(Acceptance::Replay(receipt)),
    };
    Ok(Acceptance::New(Accepted {
        message_id,
        claim,
        bound_to,
    }))
}

impl Accepted {
    /// The message as the shards pass it on. `ticket` is whose answer it is.
    pub(crate) fn into_delivery(
        self,
        device_id: impl Into<Box<str>>,
        request: SendRequest,
        service: Arc<str>,
        ticket: Ticket,
        now: Now,
    ) -> Box<Delivery> {
        let from = Sender::Service(service);
        let collapse_key = request.collapse_key.as_deref();
        Box::new(Delivery {
            to: Recipient::Device(device_id.into()),
            way: Way::default(),
            bound_to: self.bound_to,
            message_id: self.message_id,
            payload: request.payload,
            wait: request.wait,
            ticket,
            submitted_us: now.us,
            terms: Terms::new(request.ttl_ms, collapse_key, &from, now.us),
            from,
        })
    }
}

/// Where a message is bound to; a connection of another run or node is as gone as one that closed.
fn bound_location(context: &ApiContext, text: &str) -> Result<Location, Refused> {
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
enum Claimed {
    /// It has none.
    None,
    /// It is the first with its key.
    New(Box<Claim>),
    /// It was carried out.
    Done(Receipt),
}

/// Looks a request up by its idempotency key, if it has one.
fn claim(
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
