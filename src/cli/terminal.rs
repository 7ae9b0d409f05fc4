//! What people and scripts see. Printing can fail, as when a pager was closed, and that must end a command quietly.

use std::error::Error;
use std::io::{Write, stderr, stdout};
#[cfg(feature = "client")]
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::error::CliError;

/// A result, as a line on standard output.
pub(super) fn print(line: &str) -> Result<(), CliError> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// A result as JSON, one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(|e| CliError::Output(e.into()))?;
    print(&line)
}

/// What a person wants to know besides the result, on standard error.
pub(super) fn note(line: &str) {
    // A terminal that takes no notes needs none.
    writeln!(stderr(), "{line}").unwrap_or_default();
}

/// An error with its chain of causes.
pub(super) fn complain(error: &dyn Error) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    note(&text);
}

/// An object as one `name value` pair per line, nested ones as JSON.
pub(super) fn print_object(object: &Value) -> Result<(), CliError> {
    for (name, value) in fields(object) {
        print(&format!("{name:<16} {value}"))?;
    }
    Ok(())
}

/// An object as `name=value` pairs on one line.
#[cfg(feature = "client")]
pub(super) fn one_line(object: &Value) -> String {
    let pairs: Vec<_> = fields(object)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

/// What an object says.
fn fields(object: &Value) -> impl Iterator<Item = (&str, String)> {
    let fields = object.as_object().into_iter().flatten();
    let fields = fields.filter(|(_, value)| !value.is_null());
    fields.map(|(name, value)| (name.as_str(), plain(value)))
}

/// A value without the quotes of JSON. Control characters stay escaped: a device's words must not steer a terminal.
pub(super) fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) => printable(text),
        None => value.to_string(),
    }
}

/// Text with its control characters escaped.
pub(super) fn printable(text: &str) -> String {
    let escaped = |c: char| -> String {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(escaped).collect()
}

/// The clock of a command.
#[cfg(feature = "client")]
#[expect(
    clippy::disallowed_methods,
    reason = "a command has no loop that reads the clock for it"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits between two attempts.
#[cfg(feature = "client")]
#[expect(
    clippy::disallowed_methods,
    reason = "a command between two attempts has nothing else to do"
)]
pub(super) fn sleep(wait: Duration) {
    std::thread::sleep(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("grün\u{1b}[2J\n"), "grün\\u{1b}[2J\\n");
        assert_eq!(plain(&Value::from(7)), "7");
    }
}
