//! `/v1/broadcasts`: one message for all lines of this node, at a pace that leaves other messages theirs.
//!
//! Frames are encoded here, once, and handed to all shards (`mailbox::broadcast`), which carry them out
//! (`reactor::broadcast`); what has come of it is read from what each of them counts.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa::IntoParams;

use crate::api::ControlPlane;
use crate::api::broadcast::history::Begun;
use crate::api::caller::Sender;
use crate::api::device::KeyHeader;
use crate::api::failure::Failure;
use crate::base::id::MessageId;
use crate::protocol::broadcast::broadcast_request;
use crate::wire::answer::REPLAYED;
use crate::wire::broadcast::{BroadcastEnvelope, BroadcastList, BroadcastStatus};
use crate::wire::error::ErrorCode;

pub mod history;

/// How long a broadcast may wait.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "read by protocol/header.rs; this is its documentation"
)]
struct TtlHeader {
    /// For how many seconds after acceptance the message may still be written.
    #[param(rename = "TTL")]
    ttl: Option<u64>,
}

/// Begins to send a message to all lines of this node, or to those that are meant, and answers at once. A body of type
/// `application/json` is the envelope; any other body is the payload, for everybody.
#[utoipa::path(
    post,
    path = "/v1/broadcasts",
    operation_id = "begin_broadcast",
    tag = "broadcasts",
    params(TtlHeader, KeyHeader),
    request_body(content(
        (BroadcastEnvelope<'_> = "application/json"),
        (Vec<u8> = "application/octet-stream"),
        (String = "text/plain"),
    )),
    responses((status = 202, description = "It is under way.", body = BroadcastStatus))
)]
pub(crate) async fn begin(
    Sender(service): Sender,
    State(control): State<Arc<ControlPlane>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let payload_bytes_max = control.node.settings.load().limits.message_bytes_max;
    let request = broadcast_request(
        &headers,
        query.as_deref(),
        &body,
        payload_bytes_max.as_usize(),
    );
    let request = request.map_err(|(code, cause)| Failure::new(code, cause))?;
    let begun = control.broadcasts.begin(&service, &request);
    let Begun { status, is_replay } = begun.map_err(|(code, cause)| Failure::new(code, cause))?;
    let mut response = (StatusCode::ACCEPTED, Json(status)).into_response();
    if is_replay {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, yes);
    }
    Ok(response)
}

/// Lists the broadcasts that this node remembers: those under way, and the last that have ended.
#[utoipa::path(
    get,
    path = "/v1/broadcasts",
    operation_id = "list_broadcasts",
    tag = "broadcasts",
    responses((status = 200, description = "At most 64, the newest first.", body = BroadcastList))
)]
pub(crate) async fn list(
    _: Sender,
    State(control): State<Arc<ControlPlane>>,
) -> Json<BroadcastList> {
    let broadcasts = control.broadcasts.statuses();
    Json(BroadcastList { broadcasts })
}

/// Tells how far a broadcast has come.
#[utoipa::path(
    get,
    path = "/v1/broadcasts/{broadcast_id}",
    operation_id = "inspect_broadcast",
    tag = "broadcasts",
    params(("broadcast_id" = String, Path, description = "The broadcast.")),
    responses((status = 200, description = "How far it has come.", body = BroadcastStatus))
)]
pub(crate) async fn inspect(
    _: Sender,
    State(control): State<Arc<ControlPlane>>,
    broadcast_id: Result<Path<String>, PathRejection>,
) -> Result<Json<BroadcastStatus>, Failure> {
    let Path(id) = broadcast_id?;
    let status = MessageId::parse(&id).and_then(|id| control.broadcasts.status(id));
    status.map(Json).ok_or_else(unknown)
}

/// Ends a broadcast: lines whose turn has not come are not reached. One that has ended stays as it is.
#[utoipa::path(
    delete,
    path = "/v1/broadcasts/{broadcast_id}",
    operation_id = "cancel_broadcast",
    tag = "broadcasts",
    params(("broadcast_id" = String, Path, description = "The broadcast.")),
    responses((status = 200, description = "How far it had come.", body = BroadcastStatus))
)]
pub(crate) async fn cancel(
    Sender(by): Sender,
    State(control): State<Arc<ControlPlane>>,
    broadcast_id: Result<Path<String>, PathRejection>,
) -> Result<Json<BroadcastStatus>, Failure> {
    let Path(id) = broadcast_id?;
    let status = MessageId::parse(&id).and_then(|id| control.broadcasts.cancel(id));
    let status = status.ok_or_else(unknown)?;
    tracing::info!(broadcast_id = %status.broadcast_id, %by, "broadcast cancelled");
    Ok(Json(status))
}

fn unknown() -> Failure {
    let cause = "this node remembers no such broadcast; GET /v1/broadcasts lists those it does";
    Failure::new(ErrorCode::UnknownBroadcast, cause)
}
