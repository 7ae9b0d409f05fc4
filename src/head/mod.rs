//! HTTP/1.1 heads: what a request says before its body, strictly read.
//!
//! On the devices port one request comes in, and a small answer goes out when there is no upgrade; bytes behind the
//! head belong to whoever upgrades. On the API port [`guard`] stands in front of hyper and lets only requests through
//! that nobody can read otherwise. Grammar is httparse's; what RFC 9112 leaves to the server (limits, `Host`, repeated
//! headers, bare line feeds, framing) is decided here, always for refusal. Nothing here reads a clock.

pub mod buffer;
pub mod guard;
pub mod request;
pub mod response;
pub mod target;

#[cfg(test)]
mod tests;
