//! `tautline send`: a back end in the terminal.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::error::{CliError, check_id};
use super::{KeyOptions, Options, exit_code, runtime, terminal};
use crate::client::api::ApiAnswer;
use crate::client::error::ClientError;
use crate::client::push::{Push, PushError, Receipt};
use crate::client::pusher::{Pusher, PusherOptions};
use crate::wire::api;

#[derive(Debug, Args)]
pub(super) struct Send {
    /// The device's id.
    device: String,
    /// The payload, JSON or any text; `-` reads it from standard input.
    data: String,
    /// How far the message must get.
    #[arg(long, default_value = "written")]
    wait: Level,
    /// How long to wait for that.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Where the node takes streams.
    #[arg(
        long,
        value_name = "URL",
        env = "TAUTLINE_STREAM",
        default_value = "ws://127.0.0.1:7402/v1/stream"
    )]
    stream: String,
    /// Drop the message if its line does not take it within this.
    #[arg(long, value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// While it waits for its line, a newer message with the same key takes its place.
    #[arg(long)]
    collapse_key: Option<String>,
    /// Send it once, however often the same command is run with the same key.
    #[arg(long)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    key: KeyOptions,
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
        let mut pusher_options = PusherOptions::new(&self.stream);
        if let Some(key) = self.key.read()? {
            pusher_options = pusher_options.key(key);
        }
        if let Some(path) = &self.key.ca_file {
            pusher_options = pusher_options.ca_file(path);
        }
        let push = Push::plain(&self.device, self.payload()?)
            .wait(self.wait.into())
            .timeout(self.timeout)
            .ttl(self.ttl)
            .collapse_key(self.collapse_key)
            .idempotency_key(self.idempotency_key);
        let sent = runtime()?.run(async {
            // Who mistyped an address, or has no key, wants to know at once.
            let pusher = Pusher::connect(pusher_options).await?;
            let sent = pusher.send(push).await;
            pusher.close().await;
            Ok::<_, ClientError>(sent)
        })?;
        report_push(&sent, options)?;
        Ok(exit_code(sent.is_ok()))
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
}

impl From<Level> for api::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Queued => Self::Queued,
            Level::Written => Self::Written,
            Level::Acked => Self::Acked,
        }
    }
}

/// Prints what became of a message.
fn report_push(sent: &Result<Receipt, PushError>, options: &Options) -> Result<(), CliError> {
    let shown = match sent {
        Ok(receipt) => json!({
            "message_id": receipt.message_id,
            "result": receipt.level,
            "level": receipt.level,
            "latency_ms": receipt.latency_ms,
            "data": receipt.data.as_deref().map(read_json),
        }),
        Err(PushError::Dropped(dropped)) => json!(dropped),
        Err(PushError::Refused(refusal)) => json!({"error": {
            "code": refusal.code,
            "message": refusal.message,
            "retryable": refusal.retryable,
            "message_id": refusal.message_id,
            "level": refusal.level,
        }}),
        Err(error) => json!({"error": {"message": error.to_string()}}),
    };
    match sent {
        _ if options.json => terminal::print_json(&shown),
        Ok(_) => terminal::print_object(&shown),
        Err(error) => {
            let error = terminal::printable(&error.to_string());
            terminal::note(&format!("error: {error}"));
            Ok(())
        }
    }
}

/// JSON, or a string of other text. A number beyond what this program can hold counts as text.
pub(super) fn read_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
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
