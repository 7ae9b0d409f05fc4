//! Servers of other makes under the load generator: each is fetched, started, and measured with few lines.
//!
//! The figures are thrown away; what counts is that every make could be measured and that nothing was lost.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::install;
use crate::process::Log;
use crate::stage::Outcome;
use crate::workspace::Workspace;

/// Makes that have to be fetched, and by what.
const RIVALS: [(&str, &str); 4] = [
    ("nchan", "apt-get"),
    ("nchan-default", "apt-get"),
    ("bun", "npm"),
    ("centrifugo", "go"),
];
/// Enough to see that it works; heartbeats of a second are the shortest that all of them have.
const FEW: [&str; 7] = [
    "--connections=60",
    "--rounds=1",
    "--hold=4s",
    "--ping-after=2s",
    "--duration=500ms",
    "--senders=4",
    "--record-dir",
];

/// Compares, and judges what the record says of each make.
pub(crate) fn run(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let binaries = workspace.build(log)?;
    let has = |program: &str| install::find_program(&[program]).is_some();
    let (able, unable): (Vec<_>, Vec<_>) = RIVALS.iter().partition(|(_, program)| has(program));
    let mut outcome = Outcome::default();
    for (make, program) in unable {
        outcome.add(Outcome::skip(format!(
            "{make} comes through {program}, which this machine has not"
        )));
    }
    let makes: Vec<&str> = able.iter().map(|(make, _)| *make).chain(["axum"]).collect();
    let results = workspace.tools().join("rivals/records");
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    let mut command = std::process::Command::new(binaries.join("loadtest"));
    command
        .args(["compare", "--install", "--rivals", &makes.join(",")])
        .args(FEW)
        .arg(&results)
        .arg("--server")
        .arg(binaries.join("tautline"))
        .arg("--axum-server")
        .arg(binaries.join("examples/axum_server"))
        .env("LOADTEST_RIVALS_DIR", workspace.tools().join("rivals"));
    let finished = log.run(&mut command)?;
    let record = read(&results)?;
    for make in makes.iter().chain(&["tautline"]) {
        outcome.add(judge(&record, make));
    }
    if !finished.is_success && outcome.failed == 0 {
        outcome.add(Outcome::fail("the comparison failed"));
    }
    Ok(outcome)
}

fn read(results: &Path) -> Result<Value> {
    let directory = std::fs::read_dir(results)?.next();
    let directory = directory.context("the comparison left no record")??;
    let text = std::fs::read_to_string(directory.path().join("record.json"))?;
    Ok(serde_json::from_str(&text)?)
}

/// A make passes when it was measured and neither lost nor refused anything.
fn judge(record: &Value, make: &str) -> Outcome {
    let told = ["faults", "warnings"]
        .iter()
        .filter_map(|kind| record[kind].as_array());
    let told = told.flatten().filter_map(Value::as_str);
    let is_about_load = |text: &str| text.contains("overloaded") || text.contains("is its limit");
    let mut bad = told.filter(|text| is_about(text, make) && !is_about_load(text));
    let measured = format!("compare.{make}.cpu_per_push");
    let figures = record["figures"].as_array().into_iter().flatten();
    let is_measured = figures
        .map(|figure| &figure["key"])
        .any(|key| *key == measured);
    match bad.next() {
        Some(text) => Outcome::fail(text),
        None => Outcome::check(is_measured, format_args!("{make} was not measured")),
    }
}

fn is_about(text: &str, make: &str) -> bool {
    let rest = text.strip_prefix(make);
    rest.is_some_and(|rest| rest.starts_with([' ', ',', ':']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_make_passes_when_it_was_measured_and_lost_nothing() {
        let record = json!({
            "figures": [{"key": "compare.nchan.cpu_per_push"}, {"key": "compare.bun.cpu_per_push"}],
            "faults": ["nchan-default could not be measured, 1 × idle: no port"],
            "warnings": ["bun, 1 × push: 3 messages lost", "nchan, 1 × push: the generator was overloaded: x"],
        });
        assert_eq!(judge(&record, "nchan"), Outcome::pass());
        assert_eq!(
            judge(&record, "bun").remarks,
            ["bun, 1 × push: 3 messages lost"]
        );
        assert_eq!(judge(&record, "nchan-default").failed, 1);
        assert_eq!(judge(&record, "axum").remarks, ["axum was not measured"]);
    }
}
