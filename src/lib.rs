//! Tautline: a push server. Devices keep a WebSocket line open; back ends reach any of them at once.

pub mod api;
pub mod base;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod error;
pub mod head;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod ops;
pub mod protocol;
pub mod reactor;
pub mod route;
pub mod server;
pub mod wire;
pub mod ws;
