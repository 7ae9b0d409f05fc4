//! Layer 5: the control plane's side of the sending API. Everything that is not hot is answered here, on tokio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::api::drain::Drain;
use crate::mailbox::command::{Command, Post};
use crate::reactor::api::Fallback;
use crate::reactor::node::Node;
use crate::reactor::settings::Settings;

pub mod drain;

/// What the control plane acts through.
#[derive(Debug)]
pub struct ControlPlane {
    /// What the reactors share.
    pub node: Arc<Node>,
    /// Ways to every shard, in order.
    pub posts: Vec<Post>,
    /// Leaving politely.
    pub drain: Drain,
    /// Reloads that failed and left the old configuration in place.
    pub failed_reloads: AtomicU64,
    runtime: tokio::runtime::Handle,
}

impl ControlPlane {
    /// Makes the control plane of a node; its tasks run on the runtime given.
    pub fn new(node: Arc<Node>, posts: Vec<Post>, runtime: tokio::runtime::Handle) -> Self {
        let drain = Drain::new(Arc::clone(&node), posts.clone());
        Self {
            node,
            posts,
            drain,
            failed_reloads: AtomicU64::new(0),
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
        self.failed_reloads.fetch_add(1, Ordering::Relaxed);
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

fn router(_control: &Arc<ControlPlane>) -> Router {
    Router::new()
}
