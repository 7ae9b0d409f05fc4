//! The other ends: a back end that pushes, and a device on its line. Crate feature `client`.
//!
//! [`pusher`] and [`device`] are the library, on tokio, and mend their connections by themselves; [`api`] makes single
//! calls over HTTP. The command line uses them. They share no codec with the server: HTTP is ureq's, WebSocket is
//! tungstenite's.

pub mod api;
pub mod backoff;
pub mod device;
pub mod error;
pub mod event;
pub mod push;
pub mod pusher;
pub mod runtime;
mod seen;
mod socket;
mod stream;
mod trust;
