//! Building servers as users build them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::node::NodeError;

/// A program of this workspace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    package: &'static str,
    name: &'static str,
    is_example: bool,
}

/// The server.
pub(super) const TAUTLINE: Product = Product {
    package: "tautline",
    name: "tautline",
    is_example: false,
};
/// What one would write instead.
pub(super) const AXUM: Product = Product {
    package: "loadtest",
    name: "axum_server",
    is_example: true,
};

/// Builds a program as users run it, and asks cargo where it put it.
pub(super) fn build(product: Product, progress: &impl Fn(&str)) -> Result<PathBuf, NodeError> {
    let Product { package, name, .. } = product;
    let kind = if product.is_example {
        "--example"
    } else {
        "--bin"
    };
    let args = ["build", "--release", "-p", package, kind, name];
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    progress(&format!("building {name} (release)"));
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .args(["--message-format=json-render-diagnostics", "--quiet"])
        .args(["--manifest-path", manifest])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(NodeError::Build(format!("cargo {}", args.join(" "))));
    }
    let messages = output.stdout.split(|b| *b == b'\n');
    let programs = messages.filter_map(|line| serde_json::from_slice::<Artifact>(line).ok());
    let mut programs = programs.filter(|artifact| artifact.target.name == name);
    programs
        .find_map(|artifact| artifact.executable)
        .ok_or(NodeError::NoProgram(name))
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
