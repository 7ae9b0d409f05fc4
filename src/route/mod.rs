//! Layer 2: where a message goes.
//!
//! Presence says which devices are on this node: the truth, read on every push. Accounts says which lines belong
//! together. Addresses are counted while they are limited. Nothing here touches a connection or waits for anything.

pub mod account;
pub mod address;
pub mod presence;
