//! Layer 5: what operators and their machines look at: metrics and probes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::ControlPlane;
use crate::config::Config;
use crate::error::StartError;

/// Opens the ops listener and serves it on the runtime. To be called after the reactors have started.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(
    config: &Config,
    _control: &Arc<ControlPlane>,
) -> Result<SocketAddr, StartError> {
    let addr = config.listen.ops;
    let failed = |source| StartError::System {
        step: format!("listening on {addr} (listen.ops)"),
        source,
    };
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new().route("/livez", get(|| async { "ok" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(bound)
}
