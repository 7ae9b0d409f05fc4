//! `/v1/users`: the devices of an account. Sending to them is a hot call, answered by the reactors
//! (`reactor/api/service/user.rs`); it is here for the OpenAPI document and for its other methods.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use crate::api::ControlPlane;
use crate::api::caller::Reader;
use crate::api::connection::{bad_request, busy, patiently};
use crate::api::device::{SendHeaders, SendOptions, strayed};
use crate::api::failure::Failure;
use crate::base::id::is_valid_id;
use crate::mailbox::account::{Asker, Member, Survey};
use crate::mailbox::command::Command;
use crate::reactor::account::slices;
use crate::wire::api::{AccountDevice, AccountPage, DeviceState, FanoutResult};
use crate::wire::cursor::Cursor;
use crate::wire::envelope::Envelope;
use crate::wire::error::ErrorCode;

/// Which devices to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selection {
    /// The `cursor` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Most devices in the page: 1 to 1000.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
}

/// Lists the devices of an account that are connected to this node, in pages. Devices that come and go meanwhile may be
/// missed or not. An account without any is an empty page.
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/devices",
    operation_id = "list_user_devices",
    tag = "users",
    params(("user_id" = String, Path, description = "The account."), Selection),
    responses((status = 200, description = "A page of devices.", body = AccountPage))
)]
pub(crate) async fn devices(
    _: Reader,
    State(control): State<Arc<ControlPlane>>,
    user_id: Result<Path<String>, PathRejection>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<AccountPage>, Failure> {
    let (Path(user_id), Query(selection)) = (user_id?, selection?);
    if !is_valid_id(user_id.as_bytes()) {
        let cause = "a user id is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
        return Err(Failure::new(ErrorCode::InvalidId, cause));
    }
    if !(1..=LIMIT_MAX).contains(&selection.limit) {
        return Err(bad_request("limit is 1 to 1000"));
    }
    let parse = |text: &String| Cursor::parse(text).ok_or_else(|| bad_request(NO_CURSOR));
    let after = selection.cursor.as_ref().map(parse).transpose()?;
    let accounts = &control.node.accounts;
    let after = after.map(|cursor| cursor.0);
    let places = accounts.page(accounts.key(&user_id), after, selection.limit);
    let last = places.last().filter(|_| places.len() == selection.limit);
    let cursor = last.map(|place| Cursor(*place).to_string());
    let mut answers = Vec::new();
    for (shard, slots) in slices(&places) {
        let (reply, answer) = oneshot::channel();
        let survey = Box::new(Survey {
            account: user_id.as_str().into(),
            slots,
            asker: Asker::Caller(reply),
        });
        let post = control.posts.get(usize::from(shard.0)).ok_or_else(busy)?;
        post.post(Command::Survey(survey)).map_err(|_| busy())?;
        answers.push(answer);
    }
    let mut devices = Vec::new();
    for answer in answers {
        let members = patiently(answer).await?;
        devices.extend(members.iter().map(|member| device(&control, member)));
    }
    Ok(Json(AccountPage { devices, cursor }))
}

/// Sends a message to all devices of an account and answers when each has reached the level asked for, or failed to. At
/// least one has reached it when the answer is a success.
#[utoipa::path(
    post,
    path = "/v1/users/{user_id}/messages",
    operation_id = "send_user_message",
    tag = "users",
    params(("user_id" = String, Path, description = "The account."), SendOptions, SendHeaders),
    request_body(content(
        (Envelope<'_> = "application/json"),
        (Vec<u8> = "application/octet-stream"),
        (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "At least one device reached the level asked for.", body = FanoutResult),
        (status = 202, description = "The message is in the outbox of at least one line (`wait=queued`), or was dropped at all of them as its sender allowed (`expired`, `superseded`).", body = FanoutResult),
    )
)]
pub(crate) async fn send() -> Failure {
    strayed()
}

fn device(control: &ControlPlane, member: &Member) -> AccountDevice {
    AccountDevice {
        device_id: member.device_id.to_string(),
        state: DeviceState::of(member.leaving),
        node_id: control.node.id.to_string(),
        connection_id: control.node.connection_id(member.location).to_string(),
        since_ms: member.since_ms,
    }
}

fn default_limit() -> usize {
    100
}

const NO_CURSOR: &str = "cursor is not one of ours";
/// Most devices in a page.
const LIMIT_MAX: usize = 1_000;
