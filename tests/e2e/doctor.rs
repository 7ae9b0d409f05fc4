//! `tautline doctor` and the start's warning: one truth. And the readiness probe of containers.

use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::deadline::eventually;
use crate::device::Device;
use crate::node::{BINARY, Node, Setup};

fn doctor(descriptors: u32, settings: &[&str]) -> (Output, Value) {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={descriptors}"))
        .args([BINARY, "doctor"])
        .args(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    (output, report)
}

#[test]
fn what_is_configured_fits_or_the_limit_that_bites_is_named() {
    let (output, report) = doctor(2_000, &["reactor.threads=2", "limits.connections_max=1000"]);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        (&report["bites_first"], &report["lines_max"]),
        (&Value::Null, &1_000.into())
    );
    let settings = ["reactor.threads=2", "limits.connections_max=10000"];
    let (output, report) = doctor(2_000, &settings);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let check = &report["checks"][0];
    assert_eq!(
        (&report["bites_first"], &check["name"]),
        (&"descriptors".into(), &"descriptors".into())
    );
    assert_eq!(check["verdict"], "bites");
    let lines = report["lines_max"].as_u64().unwrap();
    // Twice as many if each reactor may have a table of its own here.
    assert!([1_744, 3_488].contains(&lines), "{report}");
    // The start says the same.
    let node = Setup::new(&settings).descriptors_max(2_000).start();
    let warning = eventually("the warning", || {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains("first limit to bite"))?;
        Some(line.to_owned())
    });
    let command = check["command"].as_str().unwrap();
    assert!(
        warning.contains("is descriptors: ") && warning.contains(command),
        "{warning}"
    );
    assert_eq!(node.ready.lines_max, lines);
}

#[test]
fn what_lifts_a_limit_does() {
    let (_, report) = doctor(
        2_000,
        &["reactor.threads=2", "limits.connections_max=10000"],
    );
    let command = report["checks"][0]["command"].as_str().unwrap();
    let limit = command.strip_prefix("ulimit -n ").unwrap().parse().unwrap();
    let (output, report) = doctor(
        limit,
        &["reactor.threads=2", "limits.connections_max=10000"],
    );
    assert_ne!(report["bites_first"], "descriptors", "{output:?}");
}

#[test]
fn a_configuration_that_is_wrong_is_no_diagnosis() {
    let output = Command::new(BINARY)
        .args(["doctor", "--set", "limits.nonsense=1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty() && !output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn the_probe_of_a_container_follows_readiness() {
    let ready = |node: &Node, arguments: &[&str]| {
        let ops = node.ready.ops.to_string();
        let mut command = Command::new(BINARY);
        let output = command
            .args(["ready", "--ops", &ops])
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let mut node = Node::start(&["drain.interval=10s", "drain.deadline=20s"]);
    let _device = Device::connect(&node, "tv-1");
    assert_eq!(ready(&node, &[]), (Some(0), "ok\n".into()));
    node.signal(Signal::SIGTERM);
    eventually("unready", || {
        (node.ops("/readyz").status == 503).then_some(())
    });
    assert_eq!(ready(&node, &[]), (Some(1), "draining\n".into()));
    let json = "{\"ready\":false,\"state\":\"draining\"}\n";
    assert_eq!(ready(&node, &["--json"]), (Some(1), json.into()));
    node.kill();
    assert_eq!(ready(&node, &[]), (Some(1), String::new()));
}
