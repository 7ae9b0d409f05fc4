//! The stages of `cargo tool test`, in the order they run: what is cheap and what others stand on comes first.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use regex::Regex;

use crate::process::Log;
use crate::workspace::Workspace;
use crate::{conformance, install, interop, package, rival, tidy};

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Stage {
    /// `cargo fmt`: the sources are formatted.
    Format,
    /// `cargo lint`: clippy has nothing to say.
    Lint,
    /// Layers, vendor owners, words, shape.
    Tidy,
    /// `cargo deny`: licences, bans, sources, advisories.
    Deny,
    /// Unit, model and end-to-end tests of every member, documentation examples included.
    Test,
    /// The protocol in the simulator, 500 seeds.
    Sim,
    /// The lock-free structures under loom.
    Loom,
    /// `cargo doc` without a warning.
    Doc,
    /// Every bench runs once.
    Bench,
    /// Every fuzz target runs ten seconds from its corpus.
    Fuzz,
    /// Autobahn against the echo application.
    Conformance,
    /// Devices in Python and Node and our own JavaScript client with its tests against the real server, and a scan of
    /// its TLS.
    Interop,
    /// A browser against the real server.
    Browser,
    /// The load generator against nginx with nchan, Bun, axum and Centrifugo.
    Rival,
    /// The Debian package, the systemd unit and the Dockerfile, by their linters; what is packaged starts.
    Package,
}

/// What a stage found: tests and checks counted, and what a reader must know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed, and servers or tools that were missing.
    pub(crate) failed: u32,
    /// Tests this machine cannot run.
    pub(crate) skipped: u32,
    /// One line for each failure and skip that has something to say.
    pub(crate) remarks: Vec<String>,
}

impl Outcome {
    /// One check that passed.
    pub(crate) fn pass() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    /// One thing this machine cannot run, and why.
    pub(crate) fn skip(remark: impl Into<String>) -> Self {
        Self {
            skipped: 1,
            remarks: vec![remark.into()],
            ..Self::default()
        }
    }

    /// One failure.
    pub(crate) fn fail(remark: impl Into<String>) -> Self {
        Self {
            failed: 1,
            remarks: vec![remark.into()],
            ..Self::default()
        }
    }

    /// One check, and what to say if it failed.
    pub(crate) fn check(is_good: bool, otherwise: impl fmt::Display) -> Self {
        if is_good {
            Self::pass()
        } else {
            Self::fail(otherwise.to_string())
        }
    }

    /// Adds another's counts and remarks.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.remarks.extend(other.remarks);
    }
}

/// Compiled into the lock-free structures by the loom stage.
const LOOM_CFG: &str = "--cfg tautline_loom";
const SIM_SEEDS: &str = "500";
const FUZZ_SECONDS_PER_TARGET: u32 = 10;
/// The same packages and features in every stage, so that nothing is compiled twice.
const EVERYTHING: [&str; 2] = ["--workspace", "--all-features"];

impl Stage {
    /// Runs it; an error counts as one failure.
    pub(crate) fn run(self, workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
        match self {
            Self::Format => check(
                workspace,
                log,
                &["fmt", "--all", "--check"],
                "run `cargo fmt --all`",
            ),
            Self::Lint => check(workspace, log, &["lint"], "clippy has something to say"),
            Self::Tidy => run_tidy(workspace),
            Self::Deny => deny(workspace, log),
            Self::Test => run_tests(&mut cargo_test(workspace, &["--no-fail-fast"]), log),
            Self::Sim => {
                let mut command = cargo_test(workspace, &["--lib", "sim::"]);
                run_tests(command.env("SIM_SEEDS", SIM_SEEDS), log)
            }
            Self::Loom => run_tests(&mut loom(workspace), log),
            Self::Doc => doc(workspace, log),
            Self::Bench => bench(workspace, log),
            Self::Fuzz => fuzz(workspace, log),
            Self::Conformance => conformance::run(workspace, log),
            Self::Interop => interop::run(workspace, log),
            Self::Browser => interop::run_browser(workspace, log),
            Self::Rival => rival::run(workspace, log),
            Self::Package => package::run(workspace, log),
        }
    }
}

fn check(
    workspace: &Workspace,
    log: &mut Log,
    arguments: &[&str],
    otherwise: &'static str,
) -> Result<Outcome> {
    log.run(&mut workspace.cargo(arguments))?
        .expect_success(otherwise)?;
    Ok(Outcome::pass())
}

fn run_tidy(workspace: &Workspace) -> Result<Outcome> {
    let violations = tidy::scan(&workspace.root)?.violations;
    let mut outcome = Outcome::default();
    for violation in &violations {
        outcome.add(Outcome::fail(violation.to_string()));
    }
    Ok(if violations.is_empty() {
        Outcome::pass()
    } else {
        outcome
    })
}

fn deny(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    install::cargo_subcommand(workspace, "cargo-deny", log)?;
    let mut outcome = Outcome::default();
    for topic in ["bans", "licenses", "sources", "advisories"] {
        let finished = log.run(&mut workspace.cargo(&["deny", "check", topic]))?;
        // The database is a repository of its own; not every network lets it through.
        let is_unreachable = !finished.is_success
            && finished
                .output
                .contains("failed to fetch advisory database");
        outcome.add(if is_unreachable {
            Outcome::skip("the advisory database cannot be reached from here: known vulnerabilities were not looked up")
        } else {
            Outcome::check(finished.is_success, format_args!("`cargo deny check {topic}` has something to say"))
        });
    }
    Ok(outcome)
}

fn cargo_test(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo(&["test"]);
    command.args(EVERYTHING).args(arguments);
    command
}

/// Everything below a different `cfg` is compiled anew, so it has its own directory and a quick release profile.
fn loom(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(&["test", "--release", "--lib", "loom_", "--target-dir"]);
    command
        .arg(workspace.target.join("loom"))
        .env("RUSTFLAGS", LOOM_CFG)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}

fn run_tests(command: &mut Command, log: &mut Log) -> Result<Outcome> {
    let finished = log.run(command)?;
    let mut outcome = count_tests(&finished.output);
    if !finished.is_success && outcome.failed == 0 {
        outcome.add(Outcome::fail("the tests did not run to their end"));
    }
    ensure!(
        outcome != Outcome::default(),
        "no test has this name, so nothing was tested"
    );
    Ok(outcome)
}

/// Sums the closing lines of every test binary.
fn count_tests(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output
        .lines()
        .filter_map(|l| l.strip_prefix("test result: "))
    {
        let count = |word: &str| {
            let words: Vec<_> = line.split([' ', ';']).filter(|w| !w.is_empty()).collect();
            let at = words.iter().position(|w| *w == word);
            at.and_then(|at| words[at - 1].parse().ok()).unwrap_or(0)
        };
        outcome.passed += count("passed");
        outcome.failed += count("failed");
        outcome.skipped += count("ignored");
    }
    let failed = output
        .lines()
        .filter_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    outcome
        .remarks
        .extend(failed.map(|name| format!("{name} failed")));
    outcome
}

fn doc(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let mut command = workspace.cargo(&["doc", "--no-deps"]);
    command.args(EVERYTHING).env("RUSTDOCFLAGS", "-D warnings");
    log.run(&mut command)?
        .expect_success("rustdoc has something to say")?;
    Ok(Outcome::pass())
}

/// Without `--bench` criterion runs every bench once, and says so.
fn bench(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    let finished = log
        .run(&mut cargo_test(workspace, &["--bench", "*"]))?
        .expect_success("a bench failed")?;
    let passed = finished.output.lines().filter(|l| *l == "Success").count();
    ensure!(passed > 0, "no bench said that it ran");
    Ok(Outcome {
        passed: u32::try_from(passed)?,
        ..Outcome::default()
    })
}

fn fuzz(workspace: &Workspace, log: &mut Log) -> Result<Outcome> {
    install::cargo_subcommand(workspace, "cargo-fuzz", log)?;
    let directory = workspace.tools_source("fuzz");
    let fuzz = |verb: &str| {
        let mut command = workspace.cargo(&["fuzz", verb, "--fuzz-dir"]);
        command.arg(&directory);
        command
    };
    let listed = log
        .run(&mut fuzz("list"))?
        .expect_success("`cargo fuzz list` failed")?;
    let mut outcome = Outcome::default();
    for target in listed.output.lines() {
        let mut command = fuzz("run");
        // Coverage guides on the stable compiler too; only the sanitizers need another.
        command
            .args(["--sanitizer", "none", "--target-dir"])
            .arg(workspace.target.join("fuzz"));
        command.arg(target).args(corpora(workspace, target)?);
        command.args(["--", &format!("-max_total_time={FUZZ_SECONDS_PER_TARGET}")]);
        // A run that fails must fail again. Hunts, without it, are in CONTRIBUTING.md.
        command.arg("-seed=1");
        let is_success = log.run(&mut command)?.is_success;
        outcome.add(Outcome::check(
            is_success,
            format_args!("fuzz target {target} failed"),
        ));
    }
    ensure!(outcome != Outcome::default(), "there is no fuzz target");
    Ok(outcome)
}

/// What is found goes into the first directory, so that a run leaves the kept corpus as it was.
fn corpora(workspace: &Workspace, target: &str) -> Result<Vec<PathBuf>> {
    let found = workspace.tools().join("corpus").join(target);
    std::fs::create_dir_all(&found)?;
    let kept = workspace.tools_source("fuzz/corpus").join(target);
    Ok([found, kept].into_iter().filter(|d| d.is_dir()).collect())
}

/// Counts the `ok` and `not ok` lines (TAP's words) of a script; what it failed to say is a failure.
pub(crate) fn count_checks(output: &str, is_success: bool) -> Result<Outcome> {
    let line = Regex::new(r"^(not )?ok (?:\d+ )?- (.*)$")?;
    let mut outcome = Outcome::default();
    for found in output.lines().filter_map(|l| line.captures(l)) {
        let is_good = found.get(1).is_none();
        outcome.add(Outcome::check(is_good, &found[2]));
    }
    if outcome.failed == 0 && (!is_success || outcome.passed == 0) {
        outcome.add(Outcome::fail("the script did not run to its end"));
    }
    Ok(outcome)
}

/// Runs a script that speaks `ok` and `not ok`.
pub(crate) fn run_script(command: &mut Command, log: &mut Log) -> Result<Outcome> {
    let program = command
        .get_args()
        .next()
        .map(Path::new)
        .and_then(Path::file_name);
    let program = program
        .context("a script has a name")?
        .display()
        .to_string();
    let finished = log.run(command)?;
    let mut outcome = count_checks(&finished.output, finished.is_success)?;
    for remark in &mut outcome.remarks {
        *remark = format!("{program}: {remark}");
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_summed() {
        let output = "running 3 tests\ntest a::b ... FAILED\ntest result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
                      test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.03s\n";
        let outcome = count_tests(output);
        assert_eq!(
            (outcome.passed, outcome.failed, outcome.skipped),
            (42, 1, 2)
        );
        assert_eq!(outcome.remarks, ["a::b failed"]);
    }

    #[test]
    fn a_script_that_says_nothing_or_breaks_off_has_failed() {
        assert_eq!(count_checks("", true).unwrap().failed, 1);
        assert_eq!(count_checks("ok - a\n", false).unwrap().failed, 1);
        let outcome = count_checks("ok - a\nnot ok - b: late\n", false).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert_eq!(outcome.remarks, ["b: late"]);
    }
}
