//! TLS on connections we accept: rustls, by its unbuffered interface, so that an idle line holds no buffer.
//!
//! [`policy`] is what a listener goes by (certificates, client authorities, ticket keys), [`certificate`] reads the
//! files and the names in certificates, [`session`] is one connection's state: bytes in, bytes out, no socket.

pub mod certificate;
pub mod policy;
pub mod session;
#[cfg(test)]
mod tests;
