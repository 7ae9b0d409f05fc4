//! Who may come in: devices by token (or by name in dev mode), web pages by origin, back ends by key.
//!
//! The reactor asks during the handshake, the API at each request. Everything here is an immutable snapshot made from
//! the configuration and the key files; a reload makes a new one and swaps it in, and a snapshot that cannot be made
//! leaves the old one in place. Checks are local and bounded: nothing here waits, and no token is logged.

pub mod api_key;
pub mod authenticator;
mod claim;
pub mod identity;
pub mod origin;
mod token_key;
pub mod token_signer;

#[cfg(test)]
mod tests;
