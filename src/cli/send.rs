//! `tautline send`: a back end in the terminal.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::error::{CliError, check_id};
use super::{ApiOptions, Options, terminal};
use crate::client::api::ApiAnswer;

#[derive(Debug, Args)]
pub(super) struct Send {
    /// The device's id.
    device: String,
    /// The payload, JSON or any text; `-` reads it from standard input.
    data: String,
    /// How far the message must get.
    #[arg(long, default_value = "written")]
    wait: Level,
    /// How long to wait for that; the node's default when left out.
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    api: ApiOptions,
}

/// How far a message got.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// It waits for the device's line.
    Queued,
    /// The last byte went to the device.
    Written,
    /// The device acknowledged it.
    Acked,
}

impl Send {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        check_id("device id", &self.device)?;
        let client = self.api.client()?;
        let answer = client.send(&self.device, &self.payload()?, &self.query())?;
        report(&answer, options)?;
        Ok(if answer.is_success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn payload(&self) -> Result<Vec<u8>, CliError> {
        if self.data != "-" {
            return Ok(self.data.clone().into());
        }
        let mut payload = Vec::new();
        let read = std::io::stdin()
            .take(PAYLOAD_BYTES_MAX)
            .read_to_end(&mut payload);
        read.map_err(|source| CliError::Io {
            place: "standard input".into(),
            source,
        })?;
        Ok(payload)
    }

    fn query(&self) -> String {
        let level = match self.wait {
            Level::Queued => "queued",
            Level::Written => "written",
            Level::Acked => "acked",
        };
        let timeout = self
            .timeout
            .map(|timeout| format!("&timeout_ms={}", timeout.as_millis()));
        format!("wait={level}{}", timeout.unwrap_or_default())
    }
}

/// Prints an answer, or why there is no better one.
pub(super) fn report(answer: &ApiAnswer, options: &Options) -> Result<(), CliError> {
    if options.json {
        return terminal::print_json(&answer.body);
    }
    if answer.is_success() {
        return terminal::print_object(&answer.body);
    }
    let (code, message) = answer.error();
    let shown = if code.is_empty() {
        terminal::plain(&answer.body)
    } else {
        format!("{code}: {message}")
    };
    terminal::note(&format!(
        "error: {} {}",
        answer.status,
        terminal::printable(&shown)
    ));
    Ok(())
}

/// More than any node accepts, so that the node says so.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
