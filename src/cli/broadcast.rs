//! `tautline broadcast`: one message for all lines of a node.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::error::CliError;
use super::follow::follow;
use super::{ApiOptions, Options, exit_code, send, terminal};
use crate::base::time::millis;
use crate::client::api::{ApiAnswer, ApiClient};

#[derive(Debug, Args)]
pub(super) struct Broadcast {
    /// The payload, JSON or any text.
    #[arg(required_unless_present_any = ["status", "cancel", "list"])]
    data: Option<String>,
    /// Only lines with this label; may be repeated, and then all are needed.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only lines of this sub-protocol: tautline.v1.json or tautline.v1.raw.
    #[arg(long)]
    protocol: Option<String>,
    /// Leave those lines out whose turn has not come within this.
    #[arg(long, value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Send it once, however often the same command is run with the same key.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Waits until all lines have had their turn, and tells how far it has come.
    #[arg(long)]
    follow: bool,
    /// Tells how far this broadcast has come.
    #[arg(long, value_name = "BROADCAST", conflicts_with_all = ["data", "labels", "protocol", "ttl", "idempotency_key"])]
    status: Option<String>,
    /// Ends this broadcast.
    #[arg(long, value_name = "BROADCAST", conflicts_with_all = ["data", "labels", "protocol", "ttl", "idempotency_key", "status", "follow"])]
    cancel: Option<String>,
    /// Lists the broadcasts that the node remembers.
    #[arg(long, conflicts_with_all = ["data", "labels", "protocol", "ttl", "idempotency_key", "status", "cancel", "follow"])]
    list: bool,
    #[command(flatten)]
    api: ApiOptions,
}

impl Broadcast {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let client = self.api.client()?;
        if self.list {
            return list(&client, options);
        }
        let answer = match (&self.status, &self.cancel) {
            (Some(id), _) => client.broadcast(checked(id)?)?,
            (None, Some(id)) => client.cancel_broadcast(checked(id)?)?,
            (None, None) => client.begin_broadcast(&self.envelope())?,
        };
        if self.follow && answer.is_success() {
            return follow_broadcast(&client, answer, options);
        }
        send::report(&answer, options)?;
        Ok(exit_code(answer.is_success()))
    }

    fn envelope(&self) -> Value {
        let text = self.data.as_deref().unwrap_or_default();
        let mut envelope = Map::from_iter([("data".to_owned(), send::read_json(text))]);
        let labels: Map<_, _> = self
            .labels
            .iter()
            .cloned()
            .map(|(k, v)| (k, v.into()))
            .collect();
        let options = [
            ("labels", (!labels.is_empty()).then(|| Value::from(labels))),
            ("protocol", self.protocol.clone().map(Value::from)),
            ("ttl_ms", self.ttl.map(|ttl| millis(ttl).into())),
            (
                "idempotency_key",
                self.idempotency_key.clone().map(Value::from),
            ),
        ];
        for (name, value) in options {
            envelope.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::from(envelope)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

/// The id, if it may stand in a URL.
fn checked(id: &str) -> Result<&str, CliError> {
    super::error::check_id("broadcast id", id).map(|()| id)
}

/// Prints how far a broadcast has come until it has ended. Success if every line that is meant and stayed got it.
fn follow_broadcast(
    client: &ApiClient,
    answer: ApiAnswer,
    options: &Options,
) -> Result<ExitCode, CliError> {
    let verdict = |status: &Value| {
        let is_whole = status["state"] == "done" && status["slow"] == 0;
        (!status["ended_ms"].is_null()).then_some(is_whole)
    };
    let look = |status: &Value| {
        let id = status["broadcast_id"].as_str().unwrap_or_default();
        Ok(client.broadcast(checked(id)?)?)
    };
    follow(answer, options, LOOK_AGAIN, look, verdict, print)
}

fn list(client: &ApiClient, options: &Options) -> Result<ExitCode, CliError> {
    let answer = client.broadcasts()?;
    let Some(broadcasts) = answer.body["broadcasts"].as_array() else {
        send::report(&answer, options)?;
        return Ok(ExitCode::FAILURE);
    };
    for broadcast in broadcasts {
        print(broadcast, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &Value, options: &Options) -> Result<(), CliError> {
    if options.json {
        return terminal::print_json(status);
    }
    let names = [
        "broadcast_id",
        "state",
        "lines",
        "written",
        "waiting",
        "slow",
        "gone",
        "unmatched",
        "unreached",
    ];
    let shown = names.map(|name| format!("{name}={}", terminal::plain(&status[name])));
    terminal::print(&shown.join(" "))
}

/// How often a broadcast is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_key_and_may_have_an_empty_value() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("a").is_err());
    }
}
