//! From what became of a message to what its sender is told.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::value::RawValue;

use crate::protocol::push::Refused;
use crate::reactor::node::Node;
use crate::reactor::receipt::Receipt;
use crate::wire::answer::{self, REPLAYED};
use crate::wire::api::{ErrorBody, SendOutcome, SendResult};
use crate::wire::batch::BatchReply;
use crate::wire::error::ErrorCode;

/// What a sender is told of one message, alone or in a batch.
#[derive(Debug)]
pub(super) enum Reply {
    /// What became of it.
    Done(StatusCode, SendResult),
    /// Why nothing better did.
    Failed(ErrorCode, ErrorBody),
}

impl Reply {
    pub(super) fn new(receipt: &Receipt, node: &Node, request_id: &str) -> Self {
        match receipt.result() {
            Ok(result) => Self::done(receipt, result, node),
            Err((code, cause)) => {
                let mut body = ErrorBody::new(code, cause, request_id);
                body.error.message_id = Some(receipt.message_id.to_string());
                body.error.level = receipt.level;
                Self::Failed(code, body)
            }
        }
    }

    pub(super) fn refused((code, cause): Refused, request_id: &str) -> Self {
        Self::Failed(code, ErrorBody::new(code, cause, request_id))
    }

    /// 200 says that the level asked for was reached. Whoever sets a time or a collapse key wants the message dropped
    /// rather than late, so that is no error; but 200 it is not.
    fn done(receipt: &Receipt, result: SendOutcome, node: &Node) -> Self {
        let status = match result {
            SendOutcome::Written | SendOutcome::Acked => StatusCode::OK,
            SendOutcome::Queued | SendOutcome::Expired | SendOutcome::Superseded => {
                StatusCode::ACCEPTED
            }
        };
        let line = receipt
            .location
            .map(|location| node.connection_id(location));
        let data = receipt.data.as_deref();
        let result = SendResult {
            message_id: receipt.message_id.to_string(),
            result,
            level: receipt.level,
            node_id: node.id.to_string(),
            connection_id: line.map(|line| line.to_string()).unwrap_or_default(),
            latency_ms: receipt.latency_ms,
            // It was JSON when the device said it.
            data: data.and_then(|data| RawValue::from_string(data.to_owned()).ok()),
        };
        Self::Done(status, result)
    }

    /// As the answer to a request.
    pub(super) fn into_response(self, is_replayed: bool) -> Response<Bytes> {
        let mut response = match self {
            Self::Done(status, result) => answer::json(status, &result),
            Self::Failed(code, body) => answer::failed(code, &body),
        };
        if is_replayed {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, value);
        }
        response
    }

    /// As an element of the answer to a batch.
    pub(super) fn into_element(self) -> BatchReply {
        match self {
            Self::Done(status, result) => BatchReply {
                status: status.as_u16(),
                result: Some(result),
                error: None,
            },
            Self::Failed(code, body) => BatchReply {
                status: code.status(),
                result: None,
                error: Some(body.error),
            },
        }
    }
}
