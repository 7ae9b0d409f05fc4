//! Layer 3: what happens on a connection, as state machines without sockets and without a clock.
//!
//! Bytes, commands and `now` go in, decisions come out; the reactor does the I/O. That is what lets the whole protocol
//! run in a simulation.

pub mod auth;
pub mod broadcast;
pub mod device;
pub mod field;
mod header;
pub mod heartbeat;
pub mod intake;
pub mod push;
pub mod stream;
pub mod upgrade;
