//! Layer 2: the way into a shard from any other thread.
//!
//! A connection is touched only by the thread that accepted it; everyone else posts to that thread's mailbox.
//! Reactors stage what they send during an iteration and publish it once per destination, at its end.
//!
//! Nothing here blocks: a full mailbox refuses, and the sender answers for it. What must not be refused, because
//! somebody waits for it, travels in a lane of its own, so two full mailboxes never wait for each other.

pub mod account;
pub mod broadcast;
pub mod command;
pub mod queue;
pub mod sender;
