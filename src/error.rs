//! Why the server did not start.

use std::io;
use std::net::SocketAddr;

use crate::config::error::ConfigErrors;

/// What kept the server from starting; printed with its chain of causes, and the process exits with 1.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration may not be started.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The operating system refused something.
    #[error("{step}")]
    System {
        /// What was tried, and what to do about it.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl StartError {
    /// An address that cannot be listened on, and what to do about it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system has dozens of errors, and advice for three"
    )]
    pub(crate) fn listening(addr: SocketAddr, key: &str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another process listens there; stop it, or set {key} to another port")
            }
            io::ErrorKind::AddrNotAvailable => "this host has no such address".into(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".into(),
            _ => "choose another address".into(),
        };
        Self::System {
            step: format!("listening on {addr} ({key}): {hint}"),
            source,
        }
    }
}
