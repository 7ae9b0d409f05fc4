//! Bodies of the sending API: results and errors out, and what else there is to ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::base::close::CloseReason;
use crate::wire::error::ErrorCode;

/// How far a message must have come before the sender is answered, and how far it came.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In the outbox of the line, on the owning shard.
    Queued,
    /// The owning shard's `send` took the last byte of the frame.
    #[default]
    Written,
    /// The device answered with an `ack`.
    Acked,
}

impl Level {
    /// The word of the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Written => "written",
            Self::Acked => "acked",
        }
    }

    /// The level for a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Queued, Self::Written, Self::Acked]
            .into_iter()
            .find(|level| level.word() == word)
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SendOutcome {
    /// It is in the outbox of the line.
    Queued,
    /// The last byte of its frame is with the kernel.
    Written,
    /// The device acknowledged it.
    Acked,
    /// Its time was over while it waited; it was not written.
    Expired,
    /// A newer message took its place while it waited; it was not written.
    Superseded,
}

impl SendOutcome {
    /// The word of the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Written => "written",
            Self::Acked => "acked",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }
}

impl From<Level> for SendOutcome {
    fn from(level: Level) -> Self {
        match level {
            Level::Queued => Self::Queued,
            Level::Written => Self::Written,
            Level::Acked => Self::Acked,
        }
    }
}

/// The body of a successful send.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SendResult {
    /// The message's id, as the device sees it.
    pub message_id: String,
    /// What became of it.
    pub result: SendOutcome,
    /// The level reached; absent when its time was over on the way to the line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<Level>,
    /// The node that holds the line.
    pub node_id: String,
    /// The line that took it.
    pub connection_id: String,
    /// From accepting the request to reaching the level, in milliseconds.
    pub latency_ms: u64,
    /// What the device said with its `ack`: any JSON value, as it was said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
}

/// A line as the connection list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionInfo {
    /// The line's public name.
    pub connection_id: String,
    /// The device at its far end.
    pub device_id: String,
    /// The account that owns the device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<String>,
    /// What the token says of the device.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    /// The WebSocket sub-protocol.
    pub protocol: String,
    /// When the line was authenticated, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A page of the connection list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionPage {
    /// The lines, in no order that means anything.
    pub connections: Vec<ConnectionInfo>,
    /// Where the next page begins; null when this is the last one.
    pub cursor: Option<String>,
}

/// A device as `GET /v1/devices/{device_id}` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Whether it is connected: always true, because an absent device answers 404.
    pub online: bool,
    /// The node that holds its line.
    pub node_id: String,
    /// The line that holds the device.
    #[serde(flatten)]
    pub connection: ConnectionInfo,
}

/// How a device of an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// It has a line.
    Online,
    /// It has a line, and was asked to open another.
    Moving,
    /// It has none, and has had none for a while.
    Offline,
}

impl DeviceState {
    /// The state of a device with a line, by why that was asked to go away.
    pub const fn of(leaving: Option<CloseReason>) -> Self {
        match leaving {
            None => Self::Online,
            Some(_) => Self::Moving,
        }
    }

    /// The word of the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Moving => "moving",
            Self::Offline => "offline",
        }
    }
}

/// A device of an account that is online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountDevice {
    /// The device.
    pub device_id: String,
    /// `online`, or `moving` when it was asked to open another line.
    pub state: DeviceState,
    /// The node that holds its line.
    pub node_id: String,
    /// Its line.
    pub connection_id: String,
    /// When the line was authenticated, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A page of the devices of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountPage {
    /// The devices that are online, in no order that means anything.
    pub devices: Vec<AccountDevice>,
    /// Where the next page begins; null when this is the last one.
    pub cursor: Option<String>,
}

/// The body of a send to all devices of an account that reached at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FanoutResult {
    /// The message's id, as each device sees it.
    pub message_id: String,
    /// The best that became of it.
    pub result: SendOutcome,
    /// The highest level that any device reached; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<Level>,
    /// The node that holds the lines.
    pub node_id: String,
    /// How many devices it was for, and how many of them it reached at the level asked for.
    pub devices: FanoutCount,
    /// The first 100 of them one by one.
    pub results: Vec<FanoutPart>,
    /// From accepting the request to the last answer, in milliseconds.
    pub latency_ms: u64,
}

/// How far a send to an account came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FanoutCount {
    /// Devices that were online.
    pub targets: usize,
    /// Devices at which it reached the level asked for.
    pub reached: usize,
}

/// What became of a send to an account at one of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FanoutPart {
    /// The device, unless it had left before it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device_id: Option<String>,
    /// The line that took it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection_id: Option<String>,
    /// The level reached there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<Level>,
    /// The error's code, when the level asked for was not reached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A word from the error table.
    #[schema(value_type = ErrorCode)]
    pub code: String,
    /// The cause and the next step, for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The request's `X-Request-Id`, or the one the node gave it.
    pub request_id: String,
    /// With `ack_timeout`: the message, which may still arrive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_id: Option<String>,
    /// With `ack_timeout`: the level it had reached; absent when it had reached none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<Level>,
}

impl ErrorBody {
    /// The body for a code.
    pub fn new(code: ErrorCode, message: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            error: ErrorDetail {
                code: code.word().into(),
                message: message.into(),
                retryable: code.is_retryable(),
                request_id: request_id.into(),
                message_id: None,
                level: None,
            },
        }
    }
}

/// Decodes a body of known fields.
pub(super) fn decode_object<'a, T: Deserialize<'a>>(
    body: &'a [u8],
) -> Result<T, (ErrorCode, String)> {
    // serde would take an array for the struct as well.
    if !body.trim_ascii_start().starts_with(b"{") {
        let cause = "the body is not a JSON object";
        return Err((ErrorCode::InvalidBody, cause.into()));
    }
    serde_json::from_slice(body).map_err(|error| decode_fault(&error))
}

/// What is wrong with an object that could not be decoded.
pub(super) fn decode_fault(error: &serde_json::Error) -> (ErrorCode, String) {
    let cause = error.to_string();
    if cause.starts_with("unknown field") {
        (ErrorCode::UnknownField, cause)
    } else {
        (ErrorCode::InvalidBody, cause)
    }
}
