//! `tautline drain`: emptying a node.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::error::{CliError, check_id};
use super::follow::follow;
use super::{ApiOptions, Options, exit_code, send, terminal};
use crate::base::time::millis;
use crate::client::api::{ApiAnswer, ApiClient};

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The node's id; a safeguard, since a node drains itself only.
    #[arg(default_value = "self")]
    node: String,
    /// When lines that are left are closed by force, from now.
    #[arg(long, value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    /// How many lines are asked to leave in a second, instead of as many as the deadline takes.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Where devices should go, ws:// or wss://.
    #[arg(long)]
    url: Option<String>,
    /// Only tells how it would go.
    #[arg(long)]
    dry_run: bool,
    /// Waits until the node is drained, and tells how far it has come.
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,
    /// Tells how far the node has come; begins nothing.
    #[arg(long, conflicts_with_all = ["deadline", "rate", "url", "dry_run"])]
    status: bool,
    /// Takes the drain back.
    #[arg(long, conflicts_with_all = ["deadline", "rate", "url", "dry_run", "follow", "status"])]
    cancel: bool,
    #[command(flatten)]
    api: ApiOptions,
}

impl Drain {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        check_id("node id", &self.node)?;
        let client = self.api.client()?;
        let answer = if self.cancel {
            client.cancel_drain(&self.node)?
        } else if self.status {
            client.drain(&self.node)?
        } else {
            client.begin_drain(&self.node, &self.request())?
        };
        if self.follow && answer.is_success() {
            return self.follow(&client, answer, options);
        }
        send::report(&answer, options)?;
        let would_fit = answer.body["fits"] != false;
        Ok(exit_code(answer.is_success() && would_fit))
    }

    fn request(&self) -> Value {
        json!({
            "deadline_ms": self.deadline.map(millis),
            "lines_per_second": self.rate,
            "url": self.url,
            "dry_run": self.dry_run,
        })
    }

    /// Prints how far the node has come until it is drained, or was called back.
    fn follow(
        &self,
        client: &ApiClient,
        answer: ApiAnswer,
        options: &Options,
    ) -> Result<ExitCode, CliError> {
        let verdict = |status: &Value| match status["state"].as_str() {
            Some("drained") => Some(true),
            Some("serving") | None => Some(false),
            Some(_) => None,
        };
        let look = |_: &Value| Ok(client.drain(&self.node)?);
        follow(answer, options, LOOK_AGAIN, look, verdict, print)
    }
}

/// One line for each look.
fn print(status: &Value, options: &Options) -> Result<(), CliError> {
    if options.json {
        return terminal::print_json(status);
    }
    let fields = ["state", "lines", "asked", "gone", "forced"];
    let shown = fields.map(|name| (name, &status[name]));
    let shown = shown.iter().filter(|(_, value)| !value.is_null());
    let shown: Vec<_> = shown
        .map(|(name, value)| format!("{name}={}", terminal::plain(value)))
        .collect();
    terminal::print(&shown.join(" "))
}

/// How often a drain is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
