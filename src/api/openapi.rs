//! `GET /openapi.json`: the sending API for machines, generated from the calls and the error table.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::api::{broadcast, connection, device, event, node, user};
use crate::wire::api::ErrorBody;
use crate::wire::error::ErrorCode;
use crate::wire::event::{EventBody, MissedBody};

/// The document of the calls that are built.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tautline sending API",
        description = "Back ends reach devices, see who is online, and operate a node."
    ),
    paths(
        device::send,
        device::send_batch,
        device::inspect,
        broadcast::begin,
        broadcast::list,
        broadcast::inspect,
        broadcast::cancel,
        connection::list,
        connection::kick,
        user::devices,
        user::send,
        event::follow,
        node::begin,
        node::inspect,
        node::cancel,
    ),
    components(schemas(ErrorBody, EventBody<'_>, MissedBody)),
    security(("api_key" = [])),
    modifiers(&Key, &Errors, &Heads),
)]
pub(crate) struct Document;

/// Answers the document. Whoever asks may know what there is to call.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// Tells how a key is sent.
struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("A key of [[api.keys]]; none is needed in dev."));
        let components = document.components.take().unwrap_or_default();
        let components = ComponentsBuilder::from(components)
            .security_scheme("api_key", SecurityScheme::Http(bearer.build()));
        document.components = Some(components.build());
    }
}

/// Sets `HEAD` apart from `GET`: it has a name of its own, and no bodies.
struct Heads;

impl Modify for Heads {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let items = document.paths.paths.values_mut();
        for head in items.filter_map(|item| item.head.as_mut()) {
            head.operation_id = Some("probe_device".into());
            for response in head.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    response.content.clear();
                }
            }
        }
    }
}

/// Gives every call the answers for its errors.
struct Errors;

impl Modify for Errors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let item = [
                &mut item.get,
                &mut item.head,
                &mut item.post,
                &mut item.delete,
            ];
            item.into_iter().flatten().for_each(add_errors);
        }
    }
}

fn add_errors(operation: &mut Operation) {
    let own = own_errors(operation.operation_id.as_deref().unwrap_or_default());
    let codes = || COMMON.iter().chain(own).copied();
    for status in codes().map(ErrorCode::status) {
        let words = codes().filter(|code| code.status() == status);
        let words: Vec<_> = words.map(|code| format!("`{}`", code.word())).collect();
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody")));
        let response = ResponseBuilder::new()
            .description(words.join(", "))
            .content("application/json", body.build());
        let responses = &mut operation.responses.responses;
        responses.insert(status.to_string(), response.build().into());
    }
}

/// What can go wrong with a call besides what can with every call.
fn own_errors(operation_id: &str) -> &'static [ErrorCode] {
    match operation_id {
        "send_message" => &[
            ErrorCode::InvalidId,
            ErrorCode::InvalidBody,
            ErrorCode::UnknownField,
            ErrorCode::AckUnsupported,
            ErrorCode::DeviceOffline,
            ErrorCode::ConnectionGone,
            ErrorCode::IdempotencyConflict,
            ErrorCode::IdempotencyPending,
            ErrorCode::SlowConsumer,
            ErrorCode::AckTimeout,
        ],
        "send_batch" => &[ErrorCode::InvalidBody, ErrorCode::UnknownField],
        "inspect_device" => &[ErrorCode::InvalidId, ErrorCode::DeviceOffline],
        "list_connections" | "follow_connections" => &[ErrorCode::InvalidId],
        "kick_connection" => &[ErrorCode::ConnectionGone],
        "begin_broadcast" => &[
            ErrorCode::InvalidBody,
            ErrorCode::UnknownField,
            ErrorCode::IdempotencyConflict,
        ],
        "inspect_broadcast" | "cancel_broadcast" => &[ErrorCode::UnknownBroadcast],
        "begin_drain" => &[
            ErrorCode::InvalidBody,
            ErrorCode::UnknownField,
            ErrorCode::UnknownNode,
        ],
        "cancel_drain" => &[ErrorCode::UnknownNode, ErrorCode::Draining],
        "inspect_drain" => &[ErrorCode::UnknownNode],
        _ => &[],
    }
}

/// What can go wrong with every call.
const COMMON: &[ErrorCode] = &[
    ErrorCode::BadRequest,
    ErrorCode::Unauthorized,
    ErrorCode::Forbidden,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::Overloaded,
    ErrorCode::Internal,
];
