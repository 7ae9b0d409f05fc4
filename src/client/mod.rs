//! The other ends: a back end that sends, and a device on its line. Blocking and small.
//!
//! The command line uses it. It shares no codec with the server: HTTP is ureq's, WebSocket is tungstenite's.

pub mod api;
pub mod backoff;
pub mod error;
pub mod event;
pub mod line;
mod stream;
mod trust;
