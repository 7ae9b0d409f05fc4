//! `--follow`: looking at what a node does until it is over.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::error::CliError;
use super::terminal::sleep;
use super::{Options, exit_code, send};
use crate::client::api::ApiAnswer;

/// Prints how far something has come, beginning with what is known, and looks again until `verdict` says that it is over, and
/// whether well. What is as it was is not printed again; a look that fails ends it too.
pub(super) fn follow(
    mut answer: ApiAnswer,
    options: &Options,
    every: Duration,
    look: impl Fn(&Value) -> Result<ApiAnswer, CliError>,
    verdict: impl Fn(&Value) -> Option<bool>,
    print: impl Fn(&Value, &Options) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut shown = Value::Null;
    loop {
        if !answer.is_success() {
            send::report(&answer, options)?;
            return Ok(ExitCode::FAILURE);
        }
        if answer.body != shown {
            print(&answer.body, options)?;
        }
        if let Some(is_well) = verdict(&answer.body) {
            return Ok(exit_code(is_well));
        }
        shown = answer.body;
        sleep(every);
        answer = look(&shown)?;
    }
}
