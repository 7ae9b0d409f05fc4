//! `/v1/connections`: the lines of this node, and closing one of them.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use crate::api::ControlPlane;
use crate::api::caller::{Admin, Reader};
use crate::api::failure::Failure;
use crate::base::id::{ConnectionId, ShardId, is_valid_id};
use crate::base::place::Place;
use crate::mailbox::command::{Command, Listing};
use crate::wire::api::{ConnectionInfo, ConnectionPage};
use crate::wire::cursor::Cursor;
use crate::wire::error::ErrorCode;

/// Which lines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selection {
    /// The `cursor` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Most lines in the page: 1 to 1000.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
    /// Only lines of this account.
    user_id: Option<String>,
}

/// Lists the lines of this node, in pages. Lines that come and go meanwhile may be missed or not; no line is shown
/// twice.
#[utoipa::path(
    get,
    path = "/v1/connections",
    operation_id = "list_connections",
    tag = "connections",
    params(Selection),
    responses((status = 200, description = "A page of lines.", body = ConnectionPage))
)]
pub(crate) async fn list(
    _: Reader,
    State(control): State<Arc<ControlPlane>>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<ConnectionPage>, Failure> {
    let Query(selection) = selection?;
    let start = selection.start()?;
    if usize::from(start.shard.0) >= control.posts.len() {
        return Err(bad_request("cursor is not one of ours"));
    }
    let mut at = Some(start);
    let mut connections = Vec::new();
    while connections.len() < selection.limit
        && let Some(place) = at
        && let Some(post) = control.posts.get(usize::from(place.shard.0))
    {
        let (reply, answer) = oneshot::channel();
        let listing = Box::new(Listing {
            from_slot: place.slot,
            limit: selection.limit - connections.len(),
            user_id: selection.user_id.clone(),
            reply,
        });
        post.post(Command::List(listing)).map_err(|_| busy())?;
        let (lines, next_slot): (Vec<ConnectionInfo>, _) = patiently(answer).await?;
        connections.extend(lines);
        at = next(place, next_slot, control.posts.len());
    }
    let cursor = at.map(|place| Cursor(place).to_string());
    Ok(Json(ConnectionPage {
        connections,
        cursor,
    }))
}

/// Closes a line for good: its device is told 4504 `kicked`, and not to come back.
#[utoipa::path(
    delete,
    path = "/v1/connections/{connection_id}",
    operation_id = "kick_connection",
    tag = "connections",
    params(("connection_id" = String, Path, description = "The line's name.")),
    responses((status = 204, description = "The line is being closed."))
)]
pub(crate) async fn kick(
    Admin(by): Admin,
    State(control): State<Arc<ControlPlane>>,
    connection_id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Failure> {
    let Path(text) = connection_id?;
    let id = ConnectionId::parse(&text)
        .ok_or_else(|| bad_request("connection_id is not one of ours"))?;
    let location = id.location;
    let post = control.posts.get(usize::from(location.shard.0));
    let post = post.filter(|_| id.epoch == control.node.epoch);
    let post = post.ok_or_else(gone)?;
    let (reply, answer) = oneshot::channel();
    post.post(Command::Kick(location.conn, reply))
        .map_err(|_| busy())?;
    if !patiently(answer).await? {
        return Err(gone());
    }
    tracing::info!(connection_id = %id, %by, "kicked");
    Ok(StatusCode::NO_CONTENT)
}

impl Selection {
    /// Where the page begins, if what was asked for makes sense.
    fn start(&self) -> Result<Place, Failure> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(bad_request("limit is 1 to 1000"));
        }
        let is_account = |id: &String| is_valid_id(id.as_bytes());
        if !self.user_id.as_ref().is_none_or(is_account) {
            let cause = "a user id is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
            return Err(Failure::new(ErrorCode::InvalidId, cause));
        }
        let Some(text) = &self.cursor else {
            return Ok(START);
        };
        let cursor = Cursor::parse(text);
        cursor
            .map(|cursor| cursor.0)
            .ok_or_else(|| bad_request("cursor is not one of ours"))
    }
}

/// Further on in the same shard, or in the next one, if there is one.
fn next(Place { shard, .. }: Place, slot: Option<u32>, shards: usize) -> Option<Place> {
    if let Some(slot) = slot {
        return Some(Place { shard, slot });
    }
    let shard = ShardId(shard.0 + 1);
    (usize::from(shard.0) < shards).then_some(Place { shard, slot: 0 })
}

/// Waits for a shard's answer. One that is busy, or has stopped, is not waited for.
pub(super) async fn patiently<T>(answer: oneshot::Receiver<T>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(busy()),
    }
}

pub(super) fn bad_request(cause: &'static str) -> Failure {
    Failure::new(ErrorCode::BadRequest, cause)
}

fn gone() -> Failure {
    let cause = "the connection named is gone; look the device up again";
    Failure::new(ErrorCode::ConnectionGone, cause)
}

pub(super) fn busy() -> Failure {
    let cause = "the node has no room for the request now; try again";
    Failure::new(ErrorCode::Overloaded, cause)
}

fn default_limit() -> usize {
    100
}

/// Where the first page begins.
const START: Place = Place {
    shard: ShardId(0),
    slot: 0,
};
/// Most lines in a page.
const LIMIT_MAX: usize = 1_000;
/// A shard answers within milliseconds; one that has not answered by now will not soon.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_walk_the_shards_in_order() {
        let place = |shard, slot| Place {
            shard: ShardId(shard),
            slot,
        };
        assert_eq!(next(START, Some(7), 2), Some(place(0, 7)));
        assert_eq!(next(START, None, 2), Some(place(1, 0)));
        assert_eq!(next(place(1, 0), None, 2), None);
    }
}
