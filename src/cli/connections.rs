//! `tautline connections`: who is on a node.

use std::convert::Infallible;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::error::CliError;
use super::terminal::{now, sleep};
use super::{ApiOptions, Options, exit_code, send, terminal};
use crate::base::id::ConnectionId;
use crate::client::api::ApiClient;
use crate::client::backoff::Backoff;
use crate::client::event::Events;

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// Connections per page.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    /// Those of one account only.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Tells of connections as they come and go instead, until interrupted.
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    follow: bool,
    /// With --follow: those of one device only.
    #[arg(long, value_name = "DEVICE", requires = "follow")]
    device: Option<String>,
    /// Closes this connection instead.
    #[arg(long, value_name = "CONNECTION", conflicts_with_all = ["limit", "cursor", "user", "follow"])]
    kick: Option<String>,
    #[command(flatten)]
    api: ApiOptions,
}

impl Connections {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let client = self.api.client()?;
        if self.follow {
            self.follow(&client, options)?;
        }
        let answer = match &self.kick {
            Some(id) => client.kick(&checked(id)?)?,
            None => client.connections(&self.query())?,
        };
        let is_page = answer.is_success() && answer.body["connections"].is_array();
        if is_page && !options.json {
            print_page(&answer.body)?;
        } else {
            send::report(&answer, options)?;
        }
        Ok(exit_code(answer.is_success()))
    }

    fn query(&self) -> String {
        let limit = Some(self.limit.to_string());
        query([
            ("limit", &limit),
            ("cursor", &self.cursor),
            ("user_id", &self.user),
        ])
    }

    /// Prints events for ever; comes back when the connection breaks.
    fn follow(&self, client: &ApiClient, options: &Options) -> Result<Infallible, CliError> {
        let query = query([("user_id", &self.user), ("device_id", &self.device)]);
        let mut backoff = Backoff::default();
        let mut last_id = String::new();
        loop {
            let opened = now();
            let ended = match client.events(&query, &last_id) {
                Ok(events) => print_events(events, &mut last_id, options)?,
                // Who mistyped an address, or has no key, wants to know at once.
                Err(error) if last_id.is_empty() || !error.is_retryable() => {
                    return Err(error.into());
                }
                Err(error) => error.to_string(),
            };
            let wait = backoff.next(opened.elapsed(), rand::random());
            terminal::note(&format!("{ended}; again in {wait:.1?}"));
            sleep(wait);
        }
    }
}

/// Prints events until the connection ends, and says how it did.
fn print_events(
    events: Events,
    last_id: &mut String,
    options: &Options,
) -> Result<String, CliError> {
    for event in events {
        let event = match event {
            Ok(event) => event,
            Err(error) => return Ok(error.to_string()),
        };
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if options.json {
            terminal::print_json(&json!({ "event": event.event, "data": data }))?;
        } else {
            let event = terminal::printable(&event.event);
            terminal::print(&format!("{event:<8} {}", terminal::one_line(&data)))?;
        }
        *last_id = event.id;
    }
    Ok("the node ended the connection".into())
}

fn query<const N: usize>(pairs: [(&str, &Option<String>); N]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

/// The id, as we write it: it becomes a part of a URL.
fn checked(id: &str) -> Result<String, CliError> {
    let parsed = ConnectionId::parse(id).map(|id| id.to_string());
    parsed.ok_or_else(|| CliError::BadConnectionId(id.into()))
}

fn print_page(page: &Value) -> Result<(), CliError> {
    for connection in page["connections"].as_array().into_iter().flatten() {
        terminal::print(&terminal::one_line(connection))?;
    }
    if let Some(cursor) = page["cursor"].as_str() {
        terminal::note(&format!(
            "more with --cursor {}",
            terminal::printable(cursor)
        ));
    }
    Ok(())
}
