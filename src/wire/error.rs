//! The error table: one word per failure, its HTTP status and whether trying again can help.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What an API answer's or a device frame's `error.code` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request makes no sense: a parameter or header is wrong.
    BadRequest,
    /// An id is outside `[A-Za-z0-9._:-]{1,128}`.
    InvalidId,
    /// The body is not what its content type says.
    InvalidBody,
    /// The envelope has a field that is not known.
    UnknownField,
    /// The body, or the payload in it, is over the limit.
    PayloadTooLarge,
    /// The content coding is not taken.
    UnsupportedMediaType,
    /// No key, or a wrong one.
    Unauthorized,
    /// The key lacks the role.
    Forbidden,
    /// No such call.
    UnknownRoute,
    /// The call is for another node.
    UnknownNode,
    /// The node remembers no such broadcast.
    UnknownBroadcast,
    /// The call exists, with other methods.
    MethodNotAllowed,
    /// The device is not connected and nothing was stored.
    DeviceOffline,
    /// The connection named is gone.
    ConnectionGone,
    /// The target is not connected, or the device may not send to it: the two are told apart to nobody.
    TargetUnavailable,
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// The same request, with the same key, is still under way.
    IdempotencyPending,
    /// The per-caller rate was exceeded.
    RateLimited,
    /// The node has no room for the request now.
    Overloaded,
    /// The node is leaving.
    Draining,
    /// The device's outbox is full.
    SlowConsumer,
    /// The level asked for was not reached in time.
    AckTimeout,
    /// A raw line cannot acknowledge.
    AckUnsupported,
    /// The frame's type is not known.
    UnknownType,
    /// The server failed.
    Internal,
}

impl ErrorCode {
    /// Every code, in table order.
    pub const ALL: [Self; 25] = [
        Self::BadRequest,
        Self::InvalidId,
        Self::InvalidBody,
        Self::UnknownField,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Unauthorized,
        Self::Forbidden,
        Self::UnknownRoute,
        Self::UnknownNode,
        Self::UnknownBroadcast,
        Self::MethodNotAllowed,
        Self::DeviceOffline,
        Self::ConnectionGone,
        Self::TargetUnavailable,
        Self::IdempotencyConflict,
        Self::IdempotencyPending,
        Self::RateLimited,
        Self::Overloaded,
        Self::Draining,
        Self::SlowConsumer,
        Self::AckTimeout,
        Self::AckUnsupported,
        Self::UnknownType,
        Self::Internal,
    ];

    /// The lower_snake word.
    pub const fn word(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        self.row().2
    }

    /// The code for a word, for clients of the API.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.word() == word)
    }

    const fn row(self) -> (&'static str, u16, bool) {
        match self {
            Self::BadRequest => ("bad_request", 400, false),
            Self::InvalidId => ("invalid_id", 400, false),
            Self::InvalidBody => ("invalid_body", 400, false),
            Self::UnknownField => ("unknown_field", 400, false),
            Self::PayloadTooLarge => ("payload_too_large", 413, false),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, false),
            Self::Unauthorized => ("unauthorized", 401, false),
            Self::Forbidden => ("forbidden", 403, false),
            Self::UnknownRoute => ("unknown_route", 404, false),
            Self::UnknownNode => ("unknown_node", 404, false),
            Self::UnknownBroadcast => ("unknown_broadcast", 404, false),
            Self::MethodNotAllowed => ("method_not_allowed", 405, false),
            Self::DeviceOffline => ("device_offline", 404, true),
            Self::ConnectionGone => ("connection_gone", 410, false),
            Self::TargetUnavailable => ("target_unavailable", 404, true),
            Self::IdempotencyConflict => ("idempotency_conflict", 409, false),
            Self::IdempotencyPending => ("idempotency_pending", 409, true),
            Self::RateLimited => ("rate_limited", 429, true),
            Self::Overloaded => ("overloaded", 503, true),
            Self::Draining => ("draining", 503, true),
            Self::SlowConsumer => ("slow_consumer", 503, true),
            Self::AckTimeout => ("ack_timeout", 504, true),
            Self::AckUnsupported => ("ack_unsupported", 400, false),
            Self::UnknownType => ("unknown_type", 400, false),
            Self::Internal => ("internal", 500, true),
        }
    }
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let words = Self::ALL.map(Self::word);
        let schema = ObjectBuilder::new().schema_type(Type::String);
        schema.enum_values(Some(words)).into()
    }
}

impl ToSchema for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_their_code() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_word(code.word()), Some(code));
        }
    }
}
