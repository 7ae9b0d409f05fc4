//! Tautline: a push server. Devices keep a WebSocket line open; back ends reach any of them at once.

pub mod base;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod error;
pub mod protocol;
pub mod server;
