//! Layer 1: sockets, and nothing that knows what travels on them.
//!
//! Listeners with their options, streams whose reads and writes have outcomes instead of errors, what may lie between
//! a socket and its bytes (a PROXY header, TLS), and the descriptor table each reactor thread owns. Called by the
//! reactor; `server` and `ops` take the TLS of listeners from here. Never blocks.

pub mod fdtable;
pub mod layer;
pub mod listener;
pub mod proxy;
pub mod stream;
pub mod tls;
