//! Tautline: a push server. Devices keep a WebSocket line open; back ends reach any of them at once.

pub mod base;
pub mod mailbox;
pub mod route;
