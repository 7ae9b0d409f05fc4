//! Layer 2: where a message goes, and who hears that a line came or went.
//!
//! Presence says which devices are on this node: the truth, read on every push. Accounts says which lines belong
//! together. Addresses are counted while they are limited. `event` carries what happens to lines to whoever subscribes.
//! Nothing here touches a connection or waits for anything.

pub mod account;
pub mod address;
pub mod event;
pub mod presence;
