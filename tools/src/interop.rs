//! Devices of other people's making against the real server: what a first user would try.
//!
//! Each script in `tools/interop` connects, is pushed to through the API, compares bytes, and says `ok` or `not ok`.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::install;
use crate::process::{Log, Server};
use crate::stage::{Outcome, run_script};
use crate::workspace::Workspace;

/// What the server says when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    devices: String,
    api: String,
}

/// Every port chosen by the system, and heartbeats quick enough to be seen.
const SETTINGS: [&str; 5] = [
    "listen.devices=127.0.0.1:0",
    "listen.api=127.0.0.1:0",
    "listen.ops=127.0.0.1:0",
    "heartbeat.ping_after=1s",
    "heartbeat.pong_timeout=500ms",
];

/// Python's `websockets` and npm's `ws`.
pub(crate) fn run(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let packages = install::python_packages(workspace, log)?;
    let scripts = install::node_scripts(workspace, log)?;
    let mut python = Command::new("python3");
    python
        .arg(workspace.tools_source("interop/python_websockets.py"))
        .env("PYTHONPATH", packages);
    let mut node = Command::new("node");
    node.arg(scripts.join("node_ws.mjs"));
    with_server(workspace, log, &mut [python, node])
}

/// A browser.
pub(crate) fn run_browser(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let Some(chromium) = install::chromium(log)? else {
        return Ok(Outcome::skip(
            "NO BROWSER: install chromium, or set CI=1 to have apt-get install it",
        ));
    };
    let mut browser = Command::new("node");
    let scripts = install::node_scripts(workspace, log)?;
    browser
        .arg(scripts.join("browser.mjs"))
        .env("CHROMIUM_PATH", chromium);
    with_server(workspace, log, &mut [browser])
}

fn with_server(workspace: &Workspace, log: &mut Log, scripts: &mut [Command]) -> Result<Outcome> {
    let mut command = Command::new(workspace.build(log)?.join("tautline"));
    command.args(["serve", "--json"]);
    command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    let server = Server::start(&mut command, log)?;
    let ready: Ready = serde_json::from_str(&server.ready)
        .context("the server's first line is not what it promises")?;
    let mut outcome = Outcome::default();
    for script in scripts {
        script
            .env("TAUTLINE_TEST_DEVICES", &ready.devices)
            .env("TAUTLINE_TEST_API", &ready.api);
        outcome.add(run_script(script, log)?);
    }
    server.stop()?;
    outcome.add(Outcome::pass());
    Ok(outcome)
}
