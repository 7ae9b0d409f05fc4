//! `/v1/devices`: the hot calls, as the OpenAPI document and the `Allow` header know them. The reactors answer them
//! (`reactor/api/service.rs`) and hand over only what has another method.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use utoipa::IntoParams;

use crate::api::failure::Failure;
use crate::wire::api::{DeviceInfo, Envelope, Level, SendResult};
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

/// Sends a message to one device and answers when it has reached the level asked for. A body of type
/// `application/json` is the envelope; any other body is the payload itself.
#[utoipa::path(
    post,
    path = "/v1/devices/{device_id}/messages",
    operation_id = "send_message",
    tag = "devices",
    params(("device_id" = String, Path, description = "The device."), SendOptions),
    request_body(content(
        (Envelope<'_> = "application/json"),
        (Vec<u8> = "application/octet-stream"),
        (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "The level asked for was reached.", body = SendResult),
        (status = 202, description = "The message is in the outbox of the line (`wait=queued`).", body = SendResult),
    )
)]
pub(crate) async fn send() -> Failure {
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
