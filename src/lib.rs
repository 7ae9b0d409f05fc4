//! Tautline: a push server. Devices keep a WebSocket line open; back ends reach any of them at once.

pub mod base;
pub mod config;
pub mod head;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod reactor;
pub mod route;
pub mod wire;
pub mod ws;
