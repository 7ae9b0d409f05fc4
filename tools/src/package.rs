//! What is shipped: the Debian package, the systemd unit in it, and the Dockerfile.
//!
//! The package is made of the debug build, which is there already. What cannot run here (systemd, a container engine) is
//! checked by its own linter.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::install;
use crate::process::{Log, Server};
use crate::stage::Outcome;
use crate::workspace::Workspace;

/// What the package must bring.
const FILES: [&str; 7] = [
    "./usr/bin/tautline",
    "./usr/lib/systemd/system/tautline.service",
    "./usr/share/doc/tautline/README.md",
    "./usr/share/doc/tautline/copyright",
    "./usr/share/doc/tautline/examples/prometheus-alerts.yaml",
    "./usr/share/doc/tautline/examples/grafana.json",
    "./usr/share/tautline/js/tautline.js",
];
/// What the package's scripts call that would change this machine.
const IDLE_PROGRAMS: [&str; 6] = [
    "adduser",
    "chown",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "getent",
    "systemctl",
];
/// Exposure by `systemd-analyze security`, in tenths; 100 is no protection at all.
const EXPOSURE_MAX: &str = "20";
/// Calls that the unit must not take away: a descriptor table for each reactor.
const NEEDED_CALL: &str = "unshare";

/// Makes the package, looks into it, starts what is in it, and lints the rest.
pub(crate) fn run(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let root = workspace.tools().join("package");
    let package = build(workspace, &root, log)?;
    outcome.add(check_content(&package, log)?);
    outcome.add(start_packaged(&root, &package, log)?);
    outcome.add(check_scripts(workspace, log)?);
    outcome.add(check_unit(workspace, &root, log)?);
    outcome.add(lint_package(&package, log)?);
    outcome.add(lint_dockerfile(workspace, log)?);
    Ok(outcome)
}

fn build(workspace: &Workspace, root: &Path, log: &mut Log) -> Result<PathBuf> {
    install::cargo_subcommand(workspace, "cargo-deb", log)?;
    workspace.build(log)?;
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    std::fs::create_dir_all(root)?;
    let package = root.join("tautline.deb");
    let arguments = ["deb", "--no-build", "--no-strip", "--profile", "dev"];
    let mut command = workspace.cargo(&arguments);
    // Nobody downloads it: a quick compression will do.
    log.run(command.args(["--fast", "-o"]).arg(&package))?
        .expect_success("`cargo deb` failed")?;
    Ok(package)
}

fn check_content(package: &Path, log: &mut Log) -> Result<Outcome> {
    let listed = log.run(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let listed = listed.expect_success("dpkg-deb cannot read the package")?;
    let names: Vec<_> = listed.output.split_whitespace().collect();
    let mut outcome = Outcome::default();
    for file in FILES {
        outcome.add(Outcome::check(
            names.contains(&file),
            format_args!("{file} is not in the package"),
        ));
    }
    Ok(outcome)
}

/// Unpacks it, runs its scripts as dpkg would for another root, and serves with the configuration they wrote.
fn start_packaged(root: &Path, package: &Path, log: &mut Log) -> Result<Outcome> {
    let installed = root.join("root");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(package).arg(&installed);
    log.run(&mut unpack)?
        .expect_success("the package cannot be unpacked")?;
    let binary = installed.join("usr/bin/tautline");
    let config = installed.join("etc/tautline/tautline.toml");
    run_script(root, "postinst", "configure", log)?;
    ensure!(config.exists(), "postinst wrote no configuration");
    serve(&binary, &config, log)?;
    std::fs::write(&config, "[limits]\nconnections_max = 7\n")?;
    run_script(root, "postinst", "configure", log)?;
    let kept = std::fs::read_to_string(&config)?;
    ensure!(kept.contains('7'), "an upgrade overwrote the configuration");
    for (script, action) in [("prerm", "remove"), ("postrm", "remove")] {
        run_script(root, script, action, log)?;
    }
    ensure!(config.exists(), "the configuration went with the program");
    run_script(root, "postrm", "purge", log)?;
    ensure!(!config.exists(), "a purge left the configuration");
    Ok(Outcome::pass())
}

/// Runs a script of the package. What would change this machine does nothing: accounts, owners, services.
fn run_script(root: &Path, script: &str, action: &str, log: &mut Log) -> Result<()> {
    let idle = root.join("idle");
    std::fs::create_dir_all(&idle)?;
    for program in IDLE_PROGRAMS {
        let path = idle.join(program);
        std::fs::write(&path, "#!/bin/sh\n[ \"${0##*/}\" != getent ]\n")?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .arg(root.join("root/DEBIAN").join(script))
        .arg(action)
        .env("DPKG_ROOT", root.join("root"))
        .env("PATH", format!("{}:{path}", idle.display()));
    log.run(&mut command)?
        .expect_success("a script of the package failed")?;
    Ok(())
}

fn serve(binary: &Path, config: &Path, log: &mut Log) -> Result<()> {
    let mut serve = Command::new(binary);
    serve.args(["serve", "--json", "--config"]).arg(config);
    for listener in ["devices", "api", "ops"] {
        serve.args(["--set", &format!("listen.{listener}=127.0.0.1:0")]);
    }
    let server = Server::start(&mut serve, log)?;
    let ready: serde_json::Value = serde_json::from_str(&server.ready)?;
    let ops = ready["ops"].as_str().context("no ops listener")?.to_owned();
    let mut probe = Command::new(binary);
    let answer = log.run(probe.args(["ready", "--ops", &ops]))?;
    server.stop()?;
    ensure!(answer.is_success, "the packaged server is not ready");
    Ok(())
}

fn check_scripts(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for script in ["postinst", "prerm", "postrm"] {
        let path = workspace.root.join("deploy/debian").join(script);
        let is_success = log.run(Command::new("sh").arg("-n").arg(path))?.is_success;
        outcome.add(Outcome::check(
            is_success,
            format_args!("deploy/debian/{script} is no shell script"),
        ));
    }
    Ok(outcome)
}

/// Verified where it was unpacked, so that the program it names is there.
fn check_unit(workspace: &Workspace, root: &Path, log: &mut Log) -> Result<Outcome> {
    if install::find_program(&["systemd-analyze"]).is_none() {
        return Ok(Outcome::skip(
            "no systemd-analyze: the unit was not looked at",
        ));
    }
    let unit = workspace.root.join("deploy/tautline.service");
    // The user is made by the package, and kill and its like are the system's.
    let text = std::fs::read_to_string(&unit)?;
    let binary = root.join("root/usr/bin/tautline");
    let text = text.replace("/usr/bin/tautline", &binary.display().to_string());
    let text = text.replace("=tautline\n", "=root\n");
    let copy = root.join("tautline.service");
    std::fs::write(&copy, text)?;
    let mut verify = Command::new("systemd-analyze");
    let verified = log.run(verify.args(["verify", "--man=no"]).arg(&copy))?;
    let is_quiet = verified.is_success && !verified.output.contains("tautline.service:");
    let mut outcome = Outcome::check(
        is_quiet,
        "`systemd-analyze verify` has something to say about the unit",
    );
    let mut review = Command::new("systemd-analyze");
    review.args(["security", "--no-pager", "--offline=true"]);
    review.arg(format!("--threshold={EXPOSURE_MAX}")).arg(&unit);
    let is_success = log.run(&mut review)?.is_success;
    outcome.add(Outcome::check(
        is_success,
        format_args!("the unit is more exposed than {EXPOSURE_MAX} of 100"),
    ));
    outcome.add(check_calls(log)?);
    Ok(outcome)
}

/// The set of calls that the unit permits has the one that it must.
fn check_calls(log: &mut Log) -> Result<Outcome> {
    let mut list = Command::new("systemd-analyze");
    let listed = log.run(list.args(["syscall-filter", "--no-pager", "@process"]))?;
    let has_call = listed.output.lines().any(|line| line.trim() == NEEDED_CALL);
    Ok(Outcome::check(
        has_call,
        format_args!("systemd's @process is without {NEEDED_CALL}"),
    ))
}

fn lint_package(package: &Path, log: &mut Log) -> Result<Outcome> {
    let Some(lintian) = install::lintian(log)? else {
        return Ok(Outcome::skip(
            "no lintian: install it, or set CI=1 to have apt-get install it",
        ));
    };
    let mut command = Command::new(lintian);
    command.args(["--allow-root", "--fail-on", "error"]);
    // A debug build is not stripped; releases are.
    command.args(["--suppress-tags", "unstripped-binary-or-object"]);
    let is_success = log.run(command.arg(package))?.is_success;
    Ok(Outcome::check(
        is_success,
        "lintian has something to say about the package",
    ))
}

fn lint_dockerfile(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let mut command = Command::new(install::hadolint(workspace, log)?);
    command.arg(workspace.root.join("deploy/Dockerfile"));
    let is_success = log.run(&mut command)?.is_success;
    Ok(Outcome::check(
        is_success,
        "hadolint has something to say about the Dockerfile",
    ))
}
