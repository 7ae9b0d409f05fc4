//! RFC 6455, the server's side, without sockets: bytes in, events or a violation out.
//!
//! Header layout, opcodes, close codes and the accept key are tungstenite's; buffering is ours, because an idle
//! line must cost eight bytes here and a frame that arrives whole must not be copied.
//!
//! Called by `protocol` (upgrade, device, stream, peer) with the reactor's shared read buffer. Nothing here reads
//! a clock, allocates by a length a device declared, answers a frame by itself, or negotiates an extension.

pub mod decoder;
pub mod encoder;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod utf8;
pub mod violation;

mod assembly;
#[cfg(test)]
mod tests;
