//! Layer 0: pure vocabulary and data structures.
//!
//! Ids, time, close reasons, the connection arena, the timer wheel, token buckets. Nothing here does I/O, starts
//! a thread or reads a clock (`now` is always an argument), and nothing here imports a layer above.

pub mod arena;
pub mod bucket;
pub mod close;
pub mod id;
pub mod place;
#[cfg(test)]
pub(crate) mod seed;
pub mod time;
pub mod wheel;
