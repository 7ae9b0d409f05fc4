//! Layer 1: sockets, and nothing that knows what travels on them.
//!
//! Listeners with their options, streams whose reads and writes have outcomes instead of errors, what may lie between
//! a socket and its bytes (a PROXY header, TLS), and what the kernel keeps for each reactor thread (its descriptor table,
//! its processor time). Called by the reactor; `server` and `ops` take the TLS of listeners from here. Never blocks.

pub mod fdtable;
pub mod layer;
pub mod listener;
pub mod processor;
pub mod proxy;
pub mod stream;
pub mod tls;
