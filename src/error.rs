//! Why the server did not start.

use std::io;

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
