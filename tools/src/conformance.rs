//! Autobahn's fuzzing client against the echo application: the production stack with a reply for every message.
//!
//! `wstest` always ends with status 0, so the index it writes is compared with `tools/conformance/expected.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use crate::install;
use crate::process::{Log, Server};
use crate::stage::Outcome;
use crate::workspace::Workspace;

/// One run and what must come out of it.
#[derive(Debug, Deserialize)]
struct Run {
    name: String,
    cases: Vec<String>,
    exclude_cases: Vec<String>,
    /// The echo application's limit.
    message_bytes_max: u32,
    /// Over TLS.
    tls: bool,
    cases_total: usize,
    /// Cases the standard leaves open.
    informational: Vec<String>,
    /// Cases whose messages pass the limit: closed with 1009.
    too_big: Vec<String>,
}

/// What Autobahn says about one case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
    remote_close_code: Option<u16>,
}

const AGENT: &str = "tautline";
const MESSAGE_TOO_BIG: u16 = 1009;

/// Runs all runs: every case with room for its messages, in plain and over TLS, and the large ones against the
/// production limit.
pub(crate) fn run(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let Some(wstest) = install::autobahn(workspace, log)? else {
        return Ok(Outcome::skip(
            "CONFORMANCE DID NOT RUN: Autobahn needs Python 2.7 (`pyenv install 2.7.18`)",
        ));
    };
    let echo = match &workspace.echo {
        Some(echo) => echo.clone(),
        None => workspace.build(log)?.join("examples/echo"),
    };
    let expected = std::fs::read(workspace.tools_source("conformance/expected.json"))?;
    let mut outcome = Outcome::default();
    for run in serde_json::from_slice::<Vec<Run>>(&expected)? {
        outcome.add(run.execute(workspace, &wstest, &echo, log)?);
    }
    Ok(outcome)
}

impl Run {
    fn execute(
        &self,
        workspace: &Workspace,
        wstest: &Path,
        echo: &Path,
        log: &mut Log,
    ) -> Result<Outcome> {
        let directory = workspace.tools().join("conformance").join(&self.name);
        std::fs::create_dir_all(&directory)?;
        let index = directory.join("index.json");
        if index.exists() {
            std::fs::remove_file(&index)?;
        }
        let mut command = Command::new(echo);
        command.args(["--message-bytes-max", &self.message_bytes_max.to_string()]);
        command.args(self.tls.then_some("--tls"));
        let server = Server::start(&mut command, log)?;
        let address = server
            .ready
            .strip_prefix("ready ")
            .context("the echo application did not say where it is")?;
        let scheme = if self.tls { "wss" } else { "ws" };
        let url = format!("{scheme}://{address}/ws?device_id=autobahn");
        let specification = json!({
            "outdir": directory,
            "servers": [{ "agent": AGENT, "url": url }],
            "cases": self.cases,
            "exclude-cases": self.exclude_cases,
            "exclude-agent-cases": {},
        });
        let path = directory.join("fuzzingclient.json");
        std::fs::write(&path, specification.to_string())?;
        log.run(
            Command::new(wstest)
                .args(["-m", "fuzzingclient", "-s"])
                .arg(&path)
                .current_dir(&directory),
        )?;
        let index = std::fs::read(index).context("wstest wrote no index")?;
        self.compare(&index)
    }

    fn compare(&self, index: &[u8]) -> Result<Outcome> {
        let mut agents: BTreeMap<String, BTreeMap<String, Verdict>> =
            serde_json::from_slice(index)?;
        let verdicts = agents.remove(AGENT).context("the index does not name us")?;
        let mut outcome = Outcome::default();
        if verdicts.len() != self.cases_total {
            let counts = format!(
                "{} cases ran, {} were expected",
                verdicts.len(),
                self.cases_total
            );
            outcome.add(Outcome::fail(format!("{}: {counts}", self.name)));
        }
        for (case, verdict) in &verdicts {
            let is_expected = self.expects(case, verdict);
            let remark = format_args!("{}: case {case}: {verdict:?}", self.name);
            outcome.add(Outcome::check(is_expected, remark));
        }
        Ok(outcome)
    }

    fn expects(&self, case: &str, verdict: &Verdict) -> bool {
        let listed = |list: &[String]| list.iter().any(|c| c == case);
        if listed(&self.too_big) {
            return verdict.behavior == "FAILED"
                && verdict.remote_close_code == Some(MESSAGE_TOO_BIG);
        }
        let behavior = if listed(&self.informational) {
            "INFORMATIONAL"
        } else {
            "OK"
        };
        verdict.behavior == behavior
            && matches!(verdict.behavior_close.as_str(), "OK" | "INFORMATIONAL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            name: "limited".to_owned(),
            cases: vec!["*".to_owned()],
            exclude_cases: Vec::new(),
            message_bytes_max: 65_536,
            tls: false,
            cases_total: 3,
            informational: vec!["7.1.6".to_owned()],
            too_big: vec!["9.1.6".to_owned()],
        }
    }

    fn index(small: &str, open: &str, big_code: u16) -> Vec<u8> {
        let verdict = |behavior: &str, code| json!({"behavior": behavior, "behaviorClose": "OK", "remoteCloseCode": code});
        let cases = json!({
            "1.1.1": verdict(small, 1000), "7.1.6": verdict(open, 1000), "9.1.6": verdict("FAILED", big_code),
        });
        json!({ AGENT: cases }).to_string().into_bytes()
    }

    #[test]
    fn only_the_expected_verdicts_pass() {
        let failed = |index: &[u8]| run().compare(index).unwrap().failed;
        assert_eq!(failed(&index("OK", "INFORMATIONAL", 1009)), 0);
        assert_eq!(failed(&index("NON-STRICT", "INFORMATIONAL", 1009)), 1);
        assert_eq!(failed(&index("OK", "OK", 1009)), 1);
        assert_eq!(failed(&index("OK", "INFORMATIONAL", 1006)), 1);
    }

    #[test]
    fn a_case_that_did_not_run_is_a_failure() {
        let short = json!({ AGENT: {} }).to_string();
        assert_eq!(run().compare(short.as_bytes()).unwrap().failed, 1);
    }
}
