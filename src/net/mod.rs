//! Layer 1: sockets, and nothing that knows what travels on them.
//!
//! Listeners with their options, streams whose reads and writes have outcomes instead of errors, and the
//! descriptor table each reactor thread owns. Called by the reactor only; never blocks.

pub mod fdtable;
pub mod listener;
pub mod stream;
