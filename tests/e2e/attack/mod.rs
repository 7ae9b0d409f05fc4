//! What a node must survive: the rows of the table in `docs/security.md` that no test of a topic shows already.
//!
//! Each test looks at three things. The attacker gets the answer that is stated. A [`Canary`] on the same reactor gets
//! a message every few milliseconds throughout. And when the attack is over, a [`Census`] finds memory, descriptors and
//! gauges where they were.
//!
//! [`Canary`]: crate::canary::Canary
//! [`Census`]: crate::census::Census

mod body;
mod connection;
mod flood;
mod identity;
mod map;
mod memory;
mod number;
mod smuggling;
mod tls;
