//! `tautline listen`: a device in the terminal, which behaves as a good device should.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::error::{CliError, check_id};
use super::{Options, runtime, terminal};
use crate::client::device::{Device, DeviceEvent, DeviceOptions};
use crate::client::error::ClientError;

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// The device's id; with a token, the token says it.
    #[arg(required_unless_present = "token")]
    device: Option<String>,
    /// Where to connect.
    #[arg(long, env = "TAUTLINE_URL", default_value = "ws://127.0.0.1:7400/ws")]
    url: String,
    /// A file with the certificates of the authorities that vouch for the node; for wss:// and instead of the system's.
    #[arg(long, value_name = "FILE", env = "TAUTLINE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The device's token.
    #[arg(long, env = "TAUTLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The account that owns the device, in dev mode.
    #[arg(long)]
    user: Option<String>,
    /// Prints payloads as they come, without frames around them on the line.
    #[arg(long)]
    raw: bool,
    /// Ends after the first message.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Ends after so many messages.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Listen {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let mut listener = Listener {
            left: if self.once { Some(1) } else { self.count },
            json: options.json,
            url: self.url.clone(),
        };
        let device_options = self.device_options()?;
        runtime()?.run(async {
            let device = Device::connect(device_options).await?;
            listener.listen(device).await
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn device_options(self) -> Result<DeviceOptions, CliError> {
        for (what, id) in [("device id", &self.device), ("user id", &self.user)] {
            id.as_deref().map_or(Ok(()), |id| check_id(what, id))?;
        }
        let options = DeviceOptions::new(self.url);
        let options = match self.ca_file {
            Some(path) => options.ca_file(path),
            None => options,
        };
        let options = match (self.token, self.device) {
            (Some(token), _) => options.token(token),
            (None, Some(device)) => options.named(device, self.user),
            // clap asks for one of them.
            (None, None) => options,
        };
        Ok(if self.raw { options.raw() } else { options })
    }
}

struct Listener {
    /// Messages to come before the end; `None` for ever.
    left: Option<u64>,
    json: bool,
    url: String,
}

impl Listener {
    /// Prints what comes until it has seen enough or the device is told not to come back.
    async fn listen(&mut self, mut device: Device) -> Result<(), CliError> {
        while self.left != Some(0) {
            match device.receive().await {
                Ok(event) => self.handle(event)?,
                Err(ClientError::Closed { code, reason, .. }) => {
                    let reason = terminal::printable(&reason);
                    return Err(CliError::ClosedForGood { code, reason });
                }
                Err(error) => return Err(error.into()),
            }
        }
        device.close().await;
        Ok(())
    }

    fn handle(&mut self, event: DeviceEvent) -> Result<(), CliError> {
        match event {
            DeviceEvent::Connected(welcome) => self.handle_welcome(&welcome),
            DeviceEvent::Message(message) => self.handle_message(&message.frame),
            DeviceEvent::Payload(payload) => self.handle_payload(&payload),
            DeviceEvent::Leaving(goaway, wait) => {
                let reason = terminal::plain(&goaway["reason"]);
                terminal::note(&format!("asked to go away: {reason}; back in {wait:.1?}"));
                self.print_frame(&goaway)
            }
            DeviceEvent::Disconnected(cause, wait) => {
                let cause = terminal::printable(&cause);
                terminal::note(&format!("{cause}; again in {wait:.1?}"));
                Ok(())
            }
            DeviceEvent::Frame(frame) => self.print_frame(&frame),
        }
    }

    fn print_frame(&self, frame: &Value) -> Result<(), CliError> {
        if self.json {
            terminal::print_json(frame)?;
        }
        Ok(())
    }

    fn handle_welcome(&self, welcome: &Value) -> Result<(), CliError> {
        if !welcome.is_null() {
            self.print_frame(welcome)?;
            let device = terminal::plain(&welcome["device_id"]);
            if !self.json {
                terminal::note(&format!("listening as {device} on {}", self.url));
            }
        }
        Ok(())
    }

    fn handle_message(&mut self, frame: &Value) -> Result<(), CliError> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.json {
            return terminal::print_json(frame);
        }
        let data = if frame["data_b64"].is_null() {
            &frame["data"]
        } else {
            &frame["data_b64"]
        };
        let from = &frame["from"]["device"];
        terminal::print(&match from.is_null() {
            true => data.to_string(),
            false => format!("{}: {data}", terminal::plain(from)),
        })
    }

    fn handle_payload(&mut self, payload: &[u8]) -> Result<(), CliError> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        let text = String::from_utf8_lossy(payload);
        if self.json {
            terminal::print_json(&json!({ "payload": text }))
        } else {
            terminal::print(&terminal::printable(&text))
        }
    }
}
