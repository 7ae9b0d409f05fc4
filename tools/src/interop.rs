//! Devices of other people's making against the real server: what a first user would try. And a scanner of TLS: what
//! a first stranger would.
//!
//! Each script in `tools/interop` connects, is pushed to through the API, compares bytes, and says `ok` or `not ok`.

use std::ffi::OsStr;
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
    ops: String,
}

/// Every port chosen by the system, and heartbeats quick enough to be seen.
const SETTINGS: [&str; 8] = [
    "listen.devices=127.0.0.1:0",
    "listen.api=127.0.0.1:0",
    "listen.peer=127.0.0.1:0",
    "listen.ops=127.0.0.1:0",
    "heartbeat.ping_after=1s",
    "heartbeat.pong_timeout=500ms",
    "lifetime.age_jitter=0s",
    "lifetime.goaway_grace=1s",
];
/// Lines that are asked to go while a script looks.
const SHORT_LIFE: &str = "lifetime.age_max=2s";

/// Python's `websockets`, npm's `ws`, and our own client, first against a node made up by its tests.
pub(crate) fn run(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let packages = install::python_packages(workspace, log)?;
    let scripts = install::node_scripts(workspace, log)?;
    let mut python = Command::new("python3");
    python
        .arg(workspace.tools_source("interop/python_websockets.py"))
        .env("PYTHONPATH", packages);
    let mut node = Command::new("node");
    node.arg(scripts.join("node_ws.mjs"));
    let mut unit = Command::new("node");
    let tests = workspace.root.join("clients/js/tautline.test.js");
    unit.arg(tests).env("NODE_OPTIONS", "--test-reporter=tap");
    let mut client = Command::new("node");
    client.arg(scripts.join("js_client.mjs"));
    let mut handover = Command::new("node");
    handover.arg(scripts.join("js_handover.mjs"));
    let mut outcome = run_script(&mut unit, log)?;
    outcome.add(with_server(
        workspace,
        log,
        &[],
        &mut [python, node, client],
    )?);
    outcome.add(with_server(workspace, log, &[SHORT_LIFE], &mut [handover])?);
    outcome.add(scan_tls(workspace, log)?);
    Ok(outcome)
}

/// sslyze against both kinds of certificates. It must object to nothing but that nobody has signed them.
fn scan_tls(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let packages = install::sslyze(workspace, log)?;
    let scanner = |arguments: &[&OsStr]| {
        let mut command = Command::new("python3");
        command
            .arg(workspace.tools_source("interop/tls_scan.py"))
            .args(arguments)
            .env("PYTHONPATH", &packages)
            .env("PYTHONWARNINGS", "ignore");
        command
    };
    let pairs = workspace.tools().join("pairs");
    log.run(&mut scanner(&["pairs".as_ref(), pairs.as_ref()]))?
        .expect_success("no certificates could be made")?;
    let mut outcome = Outcome::default();
    for kind in ["ecdsa", "rsa"] {
        let setting = |key: &str, file: &str| {
            let path = pairs.join(kind).join(file);
            format!("devices_tls.{key}={}", path.display())
        };
        let certificate = setting("certificate_file", "certificate.pem");
        let key = setting("private_key_file", "key.pem");
        let scan = scanner(&["scan".as_ref()]);
        outcome.add(with_server(
            workspace,
            log,
            &[&certificate, &key],
            &mut [scan],
        )?);
    }
    Ok(outcome)
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
    with_server(workspace, log, &[], &mut [browser])
}

fn with_server(
    workspace: &Workspace,
    log: &mut Log,
    settings: &[&str],
    scripts: &mut [Command],
) -> Result<Outcome> {
    let mut command = Command::new(workspace.build(log)?.join("tautline"));
    command.args(["serve", "--json"]);
    let settings = SETTINGS.iter().chain(settings);
    command.args(settings.flat_map(|setting| ["--set", setting]));
    let server = Server::start(&mut command, log)?;
    let ready: Ready = serde_json::from_str(&server.ready)
        .context("the server's first line is not what it promises")?;
    let mut outcome = Outcome::default();
    for script in scripts {
        script
            .env("TAUTLINE_TEST_DEVICES", &ready.devices)
            .env("TAUTLINE_TEST_API", &ready.api)
            .env("TAUTLINE_TEST_OPS", &ready.ops);
        outcome.add(run_script(script, log)?);
    }
    server.stop()?;
    outcome.add(Outcome::pass());
    Ok(outcome)
}
