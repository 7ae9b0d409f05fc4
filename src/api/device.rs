//! `/v1/devices`: the hot calls, as the OpenAPI document and the `Allow` header know them. The reactors answer them
//! (`reactor/api/service`) and hand over only what has another method.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use utoipa::IntoParams;

use crate::api::failure::Failure;
use crate::wire::api::{DeviceInfo, Level, SendResult};
use crate::wire::batch::{Batch, BatchResult};
use crate::wire::envelope::Envelope;
use crate::wire::error::ErrorCode;

/// The options of a message whose body is the payload itself.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "read by protocol/push.rs; this is its documentation"
)]
pub(crate) struct SendOptions {
    /// How far the message must have come before the answer.
    #[param(inline, default = "written")]
    wait: Option<Level>,
    /// How long to wait for it, in milliseconds; `api.timeout_default` without it, `api.timeout_max` at most.
    timeout_ms: Option<u64>,
}

/// The options of a message that come as headers.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "read by protocol/header.rs; this is its documentation"
)]
pub(crate) struct SendHeaders {
    /// For how many seconds after acceptance the message may still be written.
    #[param(rename = "TTL")]
    ttl: Option<u64>,
    /// The collapse key: while it waits, a newer message of the same sender with this key takes its place.
    #[param(rename = "Topic")]
    topic: Option<String>,
    /// `very-low`, `low`, `normal` or `high`; checked, without effect yet.
    #[param(rename = "Urgency")]
    urgency: Option<String>,
    /// W3C Trace Context; checked, without effect yet.
    traceparent: Option<String>,
}

/// What keeps a message from being sent twice.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "read by protocol/header.rs; this is its documentation"
)]
pub(crate) struct KeyHeader {
    /// 1 to 255 visible ASCII characters: the same request with the same key is carried out once.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

/// Sends a message to one device and answers when it has reached the level asked for. A body of type
/// `application/json` is the envelope; any other body is the payload itself.
#[utoipa::path(
    post,
    path = "/v1/devices/{device_id}/messages",
    operation_id = "send_message",
    tag = "devices",
    params(("device_id" = String, Path, description = "The device."), SendOptions, SendHeaders, KeyHeader),
    request_body(content(
        (Envelope<'_> = "application/json"),
        (Vec<u8> = "application/octet-stream"),
        (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "The level asked for was reached.", body = SendResult),
        (status = 202, description = "The message is in the outbox of the line (`wait=queued`), or was dropped there as its sender allowed (`expired`, `superseded`).", body = SendResult),
    )
)]
pub(crate) async fn send() -> Failure {
    strayed()
}

/// Sends many messages, each to its own target. One that is wrong fails alone; the query says what holds for messages
/// that say nothing else.
#[utoipa::path(
    post,
    path = "/v1/messages:batch",
    operation_id = "send_batch",
    tag = "messages",
    params(SendOptions),
    request_body(content = Batch<'_>, content_type = "application/json"),
    responses((status = 200, description = "A status and a result or an error for each message, in order.", body = BatchResult))
)]
pub(crate) async fn send_batch() -> Failure {
    strayed()
}

/// Tells whether a device is online, and where. `HEAD` answers with the status alone.
#[utoipa::path(
    method(get, head),
    path = "/v1/devices/{device_id}",
    operation_id = "inspect_device",
    tag = "devices",
    params(("device_id" = String, Path, description = "The device.")),
    responses((status = 200, description = "It is online.", body = DeviceInfo))
)]
pub(crate) async fn inspect() -> Failure {
    strayed()
}

pub(crate) fn strayed() -> Failure {
    Failure::new(
        ErrorCode::Internal,
        "a call that the reactors answer came to the control plane",
    )
}
