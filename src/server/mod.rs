//! The composition root. (Placeholder: replaced when the server is merged.)

use std::io;

use crate::config::Config;
use crate::config::source::Sources;
use crate::error::StartError;

/// Serves until told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(_config: Config, _sources: Sources, _json: bool) -> Result<(), StartError> {
    let source = io::ErrorKind::Unsupported.into();
    Err(StartError::System {
        step: "the server is not part of this build".into(),
        source,
    })
}
