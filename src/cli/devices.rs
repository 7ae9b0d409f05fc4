//! `tautline devices`: is a device online? Which devices of an account are?

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::error::{CliError, check_id};
use super::{ApiOptions, Options, exit_code, send, terminal};

#[derive(Debug, Args)]
pub(super) struct Devices {
    /// The device's id.
    #[arg(required_unless_present = "user", conflicts_with = "user")]
    device: Option<String>,
    /// Lists the devices of this account instead.
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    api: ApiOptions,
}

impl Devices {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        if let Some(user) = &self.user {
            return self.list(user, options);
        }
        let device = self.device.as_deref().unwrap_or_default();
        check_id("device id", device)?;
        let answer = self.api.client()?.device(device)?;
        send::report(&answer, options)?;
        let is_online = answer.is_success() && answer.body["online"] != false;
        Ok(exit_code(is_online))
    }

    /// Prints every device of an account, page by page; success when there is one.
    fn list(&self, user: &str, options: &Options) -> Result<ExitCode, CliError> {
        check_id("user id", user)?;
        let client = self.api.client()?;
        let (mut count, mut query) = (0, String::new());
        loop {
            let answer = client.user_devices(user, &query)?;
            if !answer.is_success() {
                send::report(&answer, options)?;
                return Ok(ExitCode::FAILURE);
            }
            for device in answer.body["devices"].as_array().into_iter().flatten() {
                print(device, options)?;
                count += 1;
            }
            let Some(cursor) = answer.body["cursor"].as_str() else {
                break;
            };
            query = format!("cursor={cursor}");
        }
        if count == 0 && !options.json {
            terminal::note("no device of this account is online");
        }
        Ok(exit_code(count > 0))
    }
}

fn print(device: &Value, options: &Options) -> Result<(), CliError> {
    if options.json {
        return terminal::print_json(device);
    }
    let fields = ["device_id", "state", "connection_id"].map(|name| terminal::plain(&device[name]));
    terminal::print(&fields.join("  "))
}
