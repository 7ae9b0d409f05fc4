//! Layer 5: the control plane's side of the sending API. Everything that is not hot is answered here, on tokio.
//!
//! Requests come from the reactors through [`fallback`], already read, bounded and named; no socket is known here. One
//! file per resource (`broadcast`, `connection`, `device`, `event`, `node`, `user`), each call documented where it stands
//! (`openapi`). What fails is a `Failure` and is written out in one place; who may call is said by the handler's first
//! argument (`caller`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::broadcast::history::History;
use crate::api::drain::Drain;
use crate::api::event::hub::Hub;
use crate::mailbox::command::{Command, Post};
use crate::reactor::api::Fallback;
use crate::reactor::node::Node;
use crate::reactor::settings::Settings;

pub mod broadcast;
pub(crate) mod caller;
pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod device;
pub mod drain;
pub mod event;
pub(crate) mod failure;
pub(crate) mod node;
pub(crate) mod openapi;
pub(crate) mod pace;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod user;

/// What the control plane acts through.
#[derive(Debug)]
pub struct ControlPlane {
    /// What the reactors share.
    pub node: Arc<Node>,
    /// Ways to every shard, in order.
    pub posts: Vec<Post>,
    /// Leaving politely.
    pub drain: Arc<Drain>,
    /// Messages to all lines.
    pub broadcasts: History,
    /// Lines coming and going: where a part of this process subscribes.
    pub hub: Arc<Hub>,
    runtime: tokio::runtime::Handle,
}

impl ControlPlane {
    /// Makes the control plane of a node; its tasks run on the runtime given.
    pub fn new(node: Arc<Node>, posts: Vec<Post>, runtime: tokio::runtime::Handle) -> Self {
        let drain = Arc::new(Drain::new(Arc::clone(&node), posts.clone()));
        let broadcasts = History::new(Arc::clone(&node), posts.clone());
        let hub = Hub::new(Arc::clone(&node));
        if let Some(batches) = node.events.open() {
            runtime.spawn(Arc::clone(&hub).run(batches));
        }
        Self {
            node,
            posts,
            drain,
            broadcasts,
            hub,
            runtime,
        }
    }

    /// Puts new settings in force on every shard.
    pub fn reload(&self, settings: Settings) {
        let is_echo = self.node.settings.load().is_echo;
        self.node.settings.store(Arc::new(Settings {
            is_echo,
            ..settings
        }));
        for post in &self.posts {
            // A shard whose mailbox is full reads the settings at the next reload; requests read them at once.
            post.post(Command::Reload).ok();
        }
    }

    /// Counts a reload that left the old configuration in place.
    pub fn note_failed_reload(&self) {
        self.node.failed_reloads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The way from a reactor to the control plane's routes.
pub fn fallback(control: &Arc<ControlPlane>) -> Fallback {
    let router = router(control);
    let runtime = control.runtime.clone();
    Arc::new(move |request: Request<Bytes>| {
        let (answer, receiver) = oneshot::channel();
        let router = router.clone();
        runtime.spawn(async move {
            let response = router.oneshot(request.map(axum::body::Body::from)).await;
            let response = response.unwrap_or_else(|infallible| match infallible {});
            // The back end may have hung up.
            answer
                .send(response.map(|body| body.map_err(Into::into).boxed_unsync()))
                .ok();
        });
        receiver
    })
}

/// The calls. Hot ones are here for their other methods only.
fn router(control: &Arc<ControlPlane>) -> Router {
    let drain = post(node::begin).get(node::inspect).delete(node::cancel);
    let broadcasts = post(broadcast::begin).get(broadcast::list);
    let broadcast = get(broadcast::inspect).delete(broadcast::cancel);
    let router = Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/v1/broadcasts", broadcasts)
        .route("/v1/broadcasts/{broadcast_id}", broadcast)
        .route("/v1/connections", get(connection::list))
        .route("/v1/connections/events", get(event::follow))
        .route("/v1/connections/{connection_id}", delete(connection::kick))
        .route("/v1/devices/{device_id}", get(device::inspect))
        .route("/v1/devices/{device_id}/messages", post(device::send))
        .route("/v1/messages:batch", post(device::send_batch))
        .route("/v1/nodes/{node_id}/drain", drain)
        .route("/v1/users/{user_id}/devices", get(user::devices))
        .route("/v1/users/{user_id}/messages", post(user::send))
        .fallback(failure::unknown_route)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .with_state(Arc::clone(control));
    answering(router)
}

/// Whatever happens in it, the router answers in the contract's shape.
fn answering(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(axum::middleware::from_fn(failure::write_out))
}
