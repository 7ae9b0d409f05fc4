//! `tautline devices`: is a device online?

use std::process::ExitCode;

use clap::Args;

use super::error::{CliError, check_id};
use super::{ApiOptions, Options, send};

#[derive(Debug, Args)]
pub(super) struct Devices {
    /// The device's id.
    device: String,
    #[command(flatten)]
    api: ApiOptions,
}

impl Devices {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        check_id("device id", &self.device)?;
        let answer = self.api.client()?.device(&self.device)?;
        send::report(&answer, options)?;
        let is_online = answer.is_success() && answer.body["online"] != false;
        Ok(if is_online {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
