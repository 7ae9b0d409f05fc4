//! TLS on connections we accept: rustls, by its unbuffered interface, so that an idle line holds no buffer.
//!
//! [`policy`] is what a listener goes by (certificates, client authorities, ticket keys), [`certificate`] reads the
//! files and the names in certificates, [`session`] is one connection's state: bytes in, bytes out, no socket. After a
//! handshake of TLS 1.3 that is `compact`: the keys, the `record` layer, and rustls' key schedule.

pub mod certificate;
mod compact;
pub mod policy;
mod record;
pub mod session;
#[cfg(test)]
mod tests;
