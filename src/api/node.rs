//! `/v1/nodes/{node_id}/drain`: emptying a node, and taking that back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;

use crate::api::ControlPlane;
use crate::api::caller::Admin;
use crate::api::drain::TooLate;
use crate::api::failure::Failure;
use crate::wire::api::{DrainRequest, DrainStatus};
use crate::wire::error::ErrorCode;

/// Begins to drain the node; the process stays. A drain that has begun already goes on as it is.
#[utoipa::path(
    post,
    path = "/v1/nodes/{node_id}/drain",
    operation_id = "begin_drain",
    tag = "nodes",
    params(("node_id" = String, Path, description = "This node's id.")),
    request_body(content = Option<DrainRequest>, description = "Without a body, the configured deadline."),
    responses((status = 202, description = "The node is leaving.", body = DrainStatus))
)]
pub(crate) async fn begin(
    Admin(by): Admin,
    State(control): State<Arc<ControlPlane>>,
    node_id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<(StatusCode, Json<DrainStatus>), Failure> {
    require_this(&control, node_id)?;
    let request = DrainRequest::decode(&body).map_err(|(code, cause)| Failure::new(code, cause))?;
    let deadline = request.deadline_ms.map(Duration::from_millis);
    let interval = control.node.settings.load().drain.interval;
    if deadline.is_some_and(|deadline| deadline <= interval || deadline > DEADLINE_MAX) {
        let cause = format!(
            "deadline_ms is above drain.interval ({} ms) and at most a day",
            interval.as_millis()
        );
        return Err(Failure::new(ErrorCode::InvalidBody, cause));
    }
    control.drain.begin(deadline).await;
    tracing::info!(%by, "draining; DELETE takes it back");
    Ok((StatusCode::ACCEPTED, Json(control.drain.status())))
}

/// Tells how far the node has come.
#[utoipa::path(
    get,
    path = "/v1/nodes/{node_id}/drain",
    operation_id = "inspect_drain",
    tag = "nodes",
    params(("node_id" = String, Path, description = "This node's id.")),
    responses((status = 200, description = "Where the node stands.", body = DrainStatus))
)]
pub(crate) async fn inspect(
    _: Admin,
    State(control): State<Arc<ControlPlane>>,
    node_id: Result<Path<String>, PathRejection>,
) -> Result<Json<DrainStatus>, Failure> {
    require_this(&control, node_id)?;
    Ok(Json(control.drain.status()))
}

/// Takes the drain back: the node is ready again. Lines that were asked to go away still go.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node_id}/drain",
    operation_id = "cancel_drain",
    tag = "nodes",
    params(("node_id" = String, Path, description = "This node's id.")),
    responses((status = 200, description = "The node stays.", body = DrainStatus))
)]
pub(crate) async fn cancel(
    Admin(by): Admin,
    State(control): State<Arc<ControlPlane>>,
    node_id: Result<Path<String>, PathRejection>,
) -> Result<Json<DrainStatus>, Failure> {
    require_this(&control, node_id)?;
    control.drain.cancel().await.map_err(|TooLate| {
        let cause = "lines are being closed by force, or the process is ending";
        Failure::new(ErrorCode::Draining, cause)
    })?;
    tracing::info!(%by, "the drain was taken back");
    Ok(Json(control.drain.status()))
}

/// A node drains itself only.
fn require_this(
    control: &ControlPlane,
    node_id: Result<Path<String>, PathRejection>,
) -> Result<(), Failure> {
    let Path(node_id) = node_id?;
    if *node_id == *control.node.id {
        return Ok(());
    }
    let cause = format!(
        "this is node {}; ask the other node itself",
        control.node.id
    );
    Err(Failure::new(ErrorCode::UnknownRoute, cause))
}

/// The longest drain.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);
