//! Layer 2.
pub mod command;
pub mod queue;
