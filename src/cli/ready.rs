//! `tautline ready`: the readiness probe, for where there is no curl.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::terminal;
use super::{Options, exit_code};
use crate::client::api::ApiClient;

#[derive(Debug, Args)]
pub(super) struct Ready {
    /// The node's ops listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7403")]
    ops: String,
    /// A file with the authority that vouches for it, over https; the system's without it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Ready {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let answer = ApiClient::new(&self.ops, None, self.ca_file.as_deref())?.ready()?;
        let state = answer.body.as_str().unwrap_or_default().trim();
        if options.json {
            terminal::print_json(&json!({ "ready": answer.is_success(), "state": state }))?;
        } else {
            terminal::print(&terminal::printable(state))?;
        }
        Ok(exit_code(answer.is_success()))
    }
}
