//! Building the server as users build it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::node::NodeError;

const PACKAGE: &str = "tautline";

/// Builds the server as users run it, and asks cargo where it put the program.
pub(super) fn build(progress: &impl Fn(&str)) -> Result<PathBuf, NodeError> {
    let args = [
        "build",
        "--release",
        "-p",
        PACKAGE,
        "--message-format=json-render-diagnostics",
    ];
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    progress("building the server (release)");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .args(["--quiet", "--manifest-path", manifest])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(NodeError::Build(format!("cargo {}", args.join(" "))));
    }
    let messages = output.stdout.split(|b| *b == b'\n');
    let programs = messages.filter_map(|line| serde_json::from_slice::<Artifact>(line).ok());
    let mut programs = programs.filter(|artifact| artifact.target.name == PACKAGE);
    programs
        .find_map(|artifact| artifact.executable)
        .ok_or(NodeError::NoProgram(PACKAGE))
}

/// The part of cargo's messages that names a program.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: ArtifactTarget,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct ArtifactTarget {
    name: String,
}
