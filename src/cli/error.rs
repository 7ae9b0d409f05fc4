//! Why a command failed.

use std::io;
use std::path::PathBuf;

use crate::config::error::{ConfigError, ConfigErrors};
use crate::error::StartError;
use crate::protocol::auth::authenticator::AuthError;
use crate::protocol::auth::token_signer::SignError;

/// A failure that ends the command with exit code 1.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("tautline cannot start")]
    Start(#[from] StartError),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[cfg(feature = "client")]
    #[error(transparent)]
    Client(#[from] crate::client::error::ClientError),
    #[cfg(feature = "client")]
    #[error("the line was closed with {code} {reason}; the node does not want this device back")]
    ClosedForGood { code: u16, reason: String },
    #[cfg(feature = "client")]
    #[error("{value:?} is no valid {what}; use 1 to 128 of A-Z a-z 0-9 . _ : -")]
    BadId { what: &'static str, value: String },
    #[cfg(feature = "client")]
    #[error("{0:?} is no connection id; `tautline connections` lists them")]
    BadConnectionId(String),
    #[error("the token would not be accepted: {0}")]
    UselessToken(AuthError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("{} exists; --force overwrites it, --stdout prints instead", .0.display())]
    FileExists(PathBuf),
    #[error("{place}")]
    Io { place: String, source: io::Error },
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl CliError {
    /// Whether whoever read our output has gone.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Ids become parts of URLs, tables and logs: whatever is none is refused here, before it gets there.
#[cfg(feature = "client")]
pub(super) fn check_id(what: &'static str, value: &str) -> Result<(), CliError> {
    if crate::base::id::is_valid_id(value.as_bytes()) {
        return Ok(());
    }
    Err(CliError::BadId {
        what,
        value: value.into(),
    })
}
