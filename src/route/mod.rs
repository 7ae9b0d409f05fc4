//! Layer 2: where a message goes.
//!
//! Presence says which devices are on this node: the truth, read on every push. Addresses are counted while they are limited. Nothing here touches a connection
//! or waits for anything.

pub mod address;
pub mod presence;
