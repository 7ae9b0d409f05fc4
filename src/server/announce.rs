//! What the node says when it is ready: where it listens, and what to try next.
#![expect(
    clippy::print_stdout,
    reason = "the announcement is this program's output"
)]

use std::net::SocketAddr;

use crate::config::Config;
use crate::config::section::AuthMode;
use crate::net::fdtable::FdTable;
use crate::server::doctor::{Report, grouped};
use crate::server::engine::Engine;

/// Who reads the announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// A person at a terminal, who wants to know what to try next.
    People,
    /// A program: one line of JSON.
    Programs,
    /// A conformance test: `ready` and the devices' address.
    Conformance,
}

/// Prints the announcement.
pub(super) fn announce(
    config: &Config,
    engine: &Engine,
    ops: SocketAddr,
    report: &Report,
    audience: Audience,
) {
    let bound = engine.bound;
    if engine.table == FdTable::Shared {
        tracing::warn!(
            "reactors share one descriptor table: neither unshare nor close_range is permitted here"
        );
    }
    if let Some(warning) = report.warning() {
        tracing::warn!("{warning}");
    }
    if audience == Audience::Conformance {
        println!("ready {}", bound.devices);
        return;
    }
    if audience == Audience::Programs {
        let ready = serde_json::json!({
            "event": "ready",
            "node_id": config.node.id(),
            "devices": bound.devices,
            "api": bound.api,
            "peer": bound.peer,
            "ops": ops,
            "pid": std::process::id(),
            "reactors": report.reactors,
            "lines_max": report.lines_max,
        });
        println!("{ready}");
        return;
    }
    println!(
        "Tautline {} is up: {} reactors, room for {} lines",
        env!("CARGO_PKG_VERSION"),
        report.reactors,
        grouped(report.lines_max)
    );
    println!(
        "  devices  ws{}://{}/ws",
        config.devices_tls.scheme_end(),
        bound.devices
    );
    println!(
        "  api      http{}://{}/v1   (openapi.json beside it)",
        config.api_tls.scheme_end(),
        bound.api
    );
    println!(
        "  streams  ws{}://{}/v1/stream",
        config.peer_tls.scheme_end(),
        bound.peer
    );
    println!(
        "  ops      http{}://{ops}/metrics   (livez, readyz)",
        config.ops_tls.scheme_end()
    );
    let is_plain = !config.devices_tls.is_on() && !config.api_tls.is_on();
    if config.auth.mode == AuthMode::Dev && is_plain {
        println!("Try, in two other terminals:");
        println!(
            "  cargo run --release -- listen tv-1          (or open http{}://{ops}/device)",
            config.ops_tls.scheme_end()
        );
        println!(
            "  curl -d '{{\"hi\":1}}' {}/v1/devices/tv-1/messages",
            bound.api
        );
    }
}
