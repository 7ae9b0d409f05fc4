//! What became of a message, as small as its answer can be made from: it may have to be given again.

use std::borrow::Cow;
use std::sync::Arc;

use crate::base::id::{Location, MessageId};
use crate::mailbox::command::Outcome;
use crate::protocol::push::Refused;
use crate::wire::api::{Level, SendOutcome};
use crate::wire::error::ErrorCode;
use crate::wire::reply::{Reply, encode_failure, encode_success};

/// The answer for a message that may have reached its device, or was dropped as its sender allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message.
    pub(crate) message_id: MessageId,
    /// How it ended, as far as its sender waited for that.
    pub(crate) fate: Fate,
    /// The highest level reached, if any.
    pub(crate) level: Option<Level>,
    /// The line it reached that level on, or would have.
    pub(crate) location: Option<Location>,
    /// What the device said with its `ack`, in JSON.
    pub(crate) data: Option<Arc<str>>,
    /// From taking it up to this.
    pub(crate) latency_ms: u64,
}

/// How a message ended for whoever waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The level asked for was reached.
    Reached,
    /// Its time was over before the socket took any of it.
    Expired,
    /// A newer message took its place.
    Superseded,
    /// The deadline came first; the message may still arrive.
    Timeout,
    /// It was written and will not be acknowledged.
    Unacked,
}

impl Receipt {
    /// Makes the receipt from what the shards told.
    ///
    /// # Errors
    /// Why the message certainly did not reach the device, so that it may be sent again.
    pub(crate) fn new(
        message_id: MessageId,
        outcome: &Outcome,
        progress: Option<(Level, Location)>,
        latency_ms: u64,
    ) -> Result<Self, Refused> {
        let (fate, reached, data) = match outcome {
            Outcome::Reached(level, location) => {
                (Fate::Reached, Some((Some(*level), *location)), None)
            }
            Outcome::Acked(location, data) => {
                let data = data.as_deref().map(Arc::from);
                (Fate::Reached, Some((Some(Level::Acked), *location)), data)
            }
            Outcome::Expired(location) => {
                let level = progress.map(|(level, _)| level);
                (Fate::Expired, Some((level, *location)), None)
            }
            Outcome::Superseded(location) => {
                let reached = (Some(Level::Queued), *location);
                (Fate::Superseded, Some(reached), None)
            }
            Outcome::Timeout => (Fate::Timeout, known(progress), None),
            Outcome::Unacked => (Fate::Unacked, known(progress), None),
            Outcome::Offline => return Err(OFFLINE),
            Outcome::Gone => return Err(GONE),
            Outcome::SlowConsumer => return Err(SLOW_CONSUMER),
            Outcome::AckUnsupported => return Err(ACK_UNSUPPORTED),
            Outcome::RateLimited => return Err(RATE_LIMITED),
            Outcome::Busy | Outcome::Found(_) | Outcome::Holder(_) | Outcome::Surveyed(_) => {
                return Err(BUSY);
            }
        };
        Ok(Self {
            message_id,
            fate,
            level: reached.and_then(|(level, _)| level),
            location: reached.map(|(_, location)| location),
            data,
            latency_ms,
        })
    }

    /// What its sender is told of it.
    ///
    /// # Errors
    /// The level was not reached, and the sender set no terms that allow that.
    pub(crate) fn result(&self) -> Result<SendOutcome, Refused> {
        match self.fate {
            Fate::Reached => Ok(self.level.unwrap_or_default().into()),
            Fate::Expired => Ok(SendOutcome::Expired),
            Fate::Superseded => Ok(SendOutcome::Superseded),
            Fate::Timeout => Err(TIMEOUT),
            Fate::Unacked => Err(UNACKED),
        }
    }
}

/// The code for a part of a whole that did not reach the level asked for.
pub(crate) fn failure_code(outcome: &Outcome) -> ErrorCode {
    let receipt = Receipt::new(MessageId(0), outcome, None, 0);
    match receipt.and_then(|receipt| receipt.result()) {
        Err((code, _)) => code,
        // Dropped as its sender allowed: the level was not reached in time.
        Ok(_) => ErrorCode::AckTimeout,
    }
}

/// Appends the `reply` that tells a line or a stream what became of what it sent under this id.
pub(crate) fn encode_reply(
    id: &str,
    receipt: &Receipt,
    devices: Option<(usize, usize)>,
    out: &mut Vec<u8>,
) {
    let reply = Reply {
        id,
        message_id: Some(receipt.message_id),
        level: receipt.level,
        latency_ms: receipt.latency_ms,
        devices,
        data: receipt.data.as_deref(),
    };
    match receipt.result() {
        Ok(result) => encode_success(&reply, result, out),
        Err((code, cause)) => encode_failure(&reply, code, &cause, out),
    }
}

fn known(progress: Option<(Level, Location)>) -> Option<(Option<Level>, Location)> {
    progress.map(|(level, location)| (Some(level), location))
}

/// The device has no line here.
pub(crate) const OFFLINE: Refused = (
    ErrorCode::DeviceOffline,
    Cow::Borrowed("the device is not connected to this node"),
);
/// The line that was named has ended.
pub(crate) const GONE: Refused = (
    ErrorCode::ConnectionGone,
    Cow::Borrowed("the connection named is gone; look the device up again"),
);
/// A table or mailbox is full.
pub(crate) const BUSY: Refused = (
    ErrorCode::Overloaded,
    Cow::Borrowed("the node has no room for the request now; try again"),
);
const TIMEOUT: Refused = (
    ErrorCode::AckTimeout,
    Cow::Borrowed("the level was not reached in time; it may be yet"),
);
const UNACKED: Refused = (
    ErrorCode::AckTimeout,
    Cow::Borrowed(
        "the line ended before the device acknowledged the message, or too many messages wait for that",
    ),
);
const SLOW_CONSUMER: Refused = (
    ErrorCode::SlowConsumer,
    Cow::Borrowed("the device does not read what it is sent; its line is being closed"),
);
const RATE_LIMITED: Refused = (
    ErrorCode::RateLimited,
    Cow::Borrowed("too many messages from this device, or to its target; slow down"),
);
const ACK_UNSUPPORTED: Refused = (
    ErrorCode::AckUnsupported,
    Cow::Borrowed("a raw line cannot acknowledge; use wait=written"),
);
