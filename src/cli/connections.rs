//! `tautline connections`: who is on a node.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::error::CliError;
use super::{ApiOptions, Options, send, terminal};
use crate::base::id::ConnectionId;

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
    /// Closes this connection instead.
    #[arg(long, value_name = "CONNECTION", conflicts_with_all = ["limit", "cursor", "user"])]
    kick: Option<String>,
    #[command(flatten)]
    api: ApiOptions,
}

impl Connections {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let client = self.api.client()?;
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
        Ok(if answer.is_success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        for (name, value) in [("cursor", &self.cursor), ("user_id", &self.user)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

/// The id, as we write it: it becomes a part of a URL.
fn checked(id: &str) -> Result<String, CliError> {
    let parsed = ConnectionId::parse(id).map(|id| id.to_string());
    parsed.ok_or_else(|| CliError::BadConnectionId(id.into()))
}

fn print_page(page: &Value) -> Result<(), CliError> {
    for connection in page["connections"].as_array().into_iter().flatten() {
        let fields = connection.as_object().into_iter().flatten();
        let fields = fields.filter(|(_, value)| !value.is_null());
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name}={}", terminal::plain(value)))
            .collect();
        terminal::print(&fields.join(" "))?;
    }
    if let Some(cursor) = page["cursor"].as_str() {
        terminal::note(&format!(
            "more with --cursor {}",
            terminal::printable(cursor)
        ));
    }
    Ok(())
}
