//! Layer 5: what operators and their machines look at: metrics and probes, and in dev mode a device in a page.
//!
//! A listener of its own, so that nobody who may send can look, and no load of senders keeps a probe waiting. Reads
//! what others count (`scrape`, `pulse`, `memory`) and changes nothing. Its connections are few (`listener`), and
//! their requests framed strictly and in time (`guarded`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::config::Config;
use crate::config::section::{ApiRole, AuthMode};
use crate::error::StartError;
use crate::ops::listener::OpsListener;
use crate::ops::pulse::Pulse;
use crate::ops::scrape::Scrape;
use crate::ops::tls::TlsListener;
use crate::protocol::auth::api_key::Shown;
use crate::reactor::node::Node;

mod device_page;
mod guarded;
pub(crate) mod kernel;
mod listener;
pub(crate) mod memory;
pub(crate) mod pulse;
mod scrape;
#[cfg(test)]
mod tests;
mod tls;

/// Where the node's other listeners were bound.
#[derive(Clone, Copy, Debug)]
pub struct Neighbours {
    /// Devices.
    pub devices: SocketAddr,
    /// Back ends.
    pub api: SocketAddr,
}

/// A port: the log, as far as a scrape asks after it.
pub trait LogWriter: fmt::Debug + Send + Sync {
    /// Lines that found no room before the writer, since the start.
    fn dropped_lines(&self) -> u64;
}

/// What a scrape reads besides the node.
#[derive(Clone, Debug)]
struct Counts {
    /// Connections that this listener has refused.
    refused: Arc<AtomicU64>,
    log: Arc<dyn LogWriter>,
}

/// Opens the ops listener and serves it on the runtime. To be called after the reactors have started.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(
    config: &Config,
    node: &Arc<Node>,
    neighbours: Neighbours,
    log: Arc<dyn LogWriter>,
) -> Result<SocketAddr, StartError> {
    let addr = config.listen.ops;
    let failed = |source| StartError::listening(addr, "listen.ops", source);
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let refused = Arc::new(AtomicU64::new(0));
    let counts = Counts {
        refused: Arc::clone(&refused),
        log,
    };
    let mut router = router(node, counts);
    if config.auth.mode == AuthMode::Dev {
        router = router.merge(device_page::routes(config, neighbours));
    }
    if config.ops_tls.is_on() {
        let listener = TlsListener::new(listener, bound, Arc::clone(node));
        let listener = OpsListener::new(listener, node, refused);
        tokio::spawn(async move { report(axum::serve(listener, router).await) });
    } else {
        let listener = OpsListener::new(listener, node, refused);
        tokio::spawn(async move { report(axum::serve(listener, router).await) });
    }
    Ok(bound)
}

fn report(served: std::io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(%error, "the ops listener failed");
    }
}

/// What the pages are made of.
#[derive(Debug)]
struct Ops {
    node: Arc<Node>,
    scrape: Scrape,
    pulse: Pulse,
}

fn router(node: &Arc<Node>, counts: Counts) -> Router {
    let ops = Ops {
        node: Arc::clone(node),
        scrape: Scrape::new(node, counts),
        pulse: Pulse::new(&node.cells, Instant::now()),
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "see /metrics, /livez, /readyz\n"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "only GET\n"))
        .with_state(Arc::new(ops))
}

async fn metrics(State(ops): State<Arc<Ops>>, headers: HeaderMap) -> Response {
    let header = headers.get(AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    let shown = Shown {
        header,
        bearer: None,
    };
    let settings = ops.node.settings.load();
    if let Err(error) = settings.ops_keys.authorize(shown, ApiRole::Read) {
        let bearer = [(WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, bearer, error.cause()).into_response();
    }
    ([(CONTENT_TYPE, Scrape::CONTENT_TYPE)], ops.scrape.text()).into_response()
}

/// Whether a load balancer should send devices here.
async fn ready(State(ops): State<Arc<Ops>>) -> (StatusCode, String) {
    let refuse = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    if ops.node.is_unready.load(Ordering::Relaxed) {
        return refuse("draining\n".into());
    }
    match ops.pulse.stalled(&ops.node.cells, Instant::now()) {
        Some(shard) => refuse(format!("reactor {shard} has stopped turning\n")),
        None => (StatusCode::OK, "ok\n".into()),
    }
}
