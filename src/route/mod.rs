//! Layer 2.
pub mod presence;
