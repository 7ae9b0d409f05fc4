//! Where things are: the root of the workspace, the build directory, what we install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::Log;

/// The workspace this tool was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's build directory.
    pub(crate) target: PathBuf,
    /// An echo application that stands in for ours in conformance runs.
    pub(crate) echo: Option<PathBuf>,
}

impl Workspace {
    /// Finds it from where this tool was compiled.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root
            .canonicalize()
            .context("the workspace has moved; build this tool again")?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |t| root.join(t));
        Ok(Self {
            root,
            target,
            echo: None,
        })
    }

    /// The directory for what we install and record; survives `cargo tool`, dies with `cargo clean`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A file of the `tools` member.
    pub(crate) fn tools_source(&self, path: &str) -> PathBuf {
        self.root.join("tools").join(path)
    }

    /// A cargo command at the root, which also finds the subcommands we installed.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("CARGO_TERM_COLOR", "never")
            .env(
                "PATH",
                format!("{}:{path}", self.tools().join("bin").display()),
            );
        command
    }

    /// Builds every binary and example with what the tests were built with, and returns the directory they are in.
    pub(crate) fn build(&self, log: &mut Log) -> Result<PathBuf> {
        // `--examples` brings the dev-dependencies in, so that features unify as in `cargo test` and nothing is built twice.
        let command = &mut self.cargo(&[
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--examples",
        ]);
        log.run(command)?.expect_success("the build failed")?;
        Ok(self.target.join("debug"))
    }
}
