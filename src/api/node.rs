//! `/v1/nodes/{node_id}/drain`: emptying a node, and taking that back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;

use crate::api::ControlPlane;
use crate::api::caller::Admin;
use crate::api::drain::{Plan, TooLate};
use crate::api::failure::Failure;
use crate::wire::drain::{DrainForecast, DrainRequest, DrainStatus};
use crate::wire::error::ErrorCode;

/// Begins to drain the node; the process stays. A drain that has begun already goes on as it is. With `dry_run` nothing
/// happens but that the node tells how it would go.
#[utoipa::path(
    post,
    path = "/v1/nodes/{node_id}/drain",
    operation_id = "begin_drain",
    tag = "nodes",
    params(("node_id" = String, Path, description = "This node's id, or `self`.")),
    request_body(content = Option<DrainRequest>, description = "Without a body, the configured deadline."),
    responses(
        (status = 200, description = "With `dry_run`: how it would go.", body = DrainForecast),
        (status = 202, description = "The node is leaving.", body = DrainStatus)
    )
)]
pub(crate) async fn begin(
    Admin(by): Admin,
    State(control): State<Arc<ControlPlane>>,
    node_id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Response, Failure> {
    require_this(&control, node_id)?;
    let request = DrainRequest::decode(&body).map_err(|(code, cause)| Failure::new(code, cause))?;
    let plan = Plan {
        deadline: request.deadline_ms.map(Duration::from_millis),
        lines_per_second: request.lines_per_second,
        url: request.url.map(Into::into),
    };
    let forecast = check(&control, &plan)?;
    if request.dry_run {
        return Ok(Json(forecast).into_response());
    }
    control.drain.begin(plan).await;
    tracing::info!(%by, "draining; DELETE takes it back");
    let status = Json(control.drain.status());
    Ok((StatusCode::ACCEPTED, status).into_response())
}

/// How a drain would go, unless it would leave no time or take too much.
fn check(control: &ControlPlane, plan: &Plan) -> Result<DrainForecast, Failure> {
    let wrong = |cause: String| Err(Failure::new(ErrorCode::InvalidBody, cause));
    let interval = control.node.settings.load().drain.interval;
    let deadline = plan.deadline;
    if deadline.is_some_and(|deadline| deadline <= interval || deadline > DEADLINE_MAX) {
        let interval_ms = interval.as_millis();
        return wrong(format!(
            "deadline_ms is above drain.interval ({interval_ms} ms) and at most a day"
        ));
    }
    let forecast = control.drain.forecast(plan);
    if Duration::from_millis(forecast.deadline_ms) > DEADLINE_MAX {
        let lines = forecast.lines;
        return wrong(format!(
            "at this lines_per_second the {lines} lines take more than a day"
        ));
    }
    Ok(forecast)
}

/// Tells how far the node has come.
#[utoipa::path(
    get,
    path = "/v1/nodes/{node_id}/drain",
    operation_id = "inspect_drain",
    tag = "nodes",
    params(("node_id" = String, Path, description = "This node's id, or `self`.")),
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
    params(("node_id" = String, Path, description = "This node's id, or `self`.")),
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
    if *node_id == *control.node.id || node_id == SELF {
        return Ok(());
    }
    let cause = format!(
        "this is node {}; ask the other node itself",
        control.node.id
    );
    Err(Failure::new(ErrorCode::UnknownNode, cause))
}

/// What stands for the node that is asked, whatever its id.
const SELF: &str = "self";
/// The longest drain.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);
