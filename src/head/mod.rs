//! HTTP/1.1 heads on the devices port: one request in, and a small answer out when there is no upgrade.
//!
//! Grammar is httparse's; what RFC 9112 leaves to the server (limits, `Host`, repeated headers, bare line feeds)
//! is decided here, always for refusal. Bytes behind the head belong to whoever upgrades: a second request on the
//! connection does not exist.
//!
//! Called by `protocol/upgrade`. Nothing here reads a clock or a body, or keeps a connection alive.

pub mod buffer;
pub mod request;
pub mod response;
pub mod target;

#[cfg(test)]
mod tests;
