//! `cargo tool test`: every stage, one line each, and a closing line that sums them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::process::Log;
use crate::stage::{Outcome, Stage};
use crate::tidy;
use crate::workspace::Workspace;

/// How much of a failed stage's log is shown.
const LOG_LINES_SHOWN_MAX: usize = 80;

/// Prints the stages and what they do.
pub(crate) fn list() -> ExitCode {
    for stage in Stage::value_variants() {
        let value = stage.to_possible_value();
        let help = value.as_ref().and_then(|v| v.get_help());
        println!(
            "{:<13}{}",
            name(*stage),
            help.map(ToString::to_string).unwrap_or_default()
        );
    }
    ExitCode::SUCCESS
}

/// Prints every rule that is broken.
pub(crate) fn tidy(workspace: &Workspace) -> Result<ExitCode> {
    let scan = tidy::scan(&workspace.root)?;
    for violation in &scan.violations {
        println!("{violation}");
    }
    println!("{} files, {} violations", scan.files, scan.violations.len());
    Ok(if scan.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the stages named, or all, each to its end whatever became of the one before.
pub(crate) fn run(workspace: &Workspace, mut stages: Vec<Stage>) -> Result<ExitCode> {
    if stages.is_empty() {
        stages = Stage::value_variants().to_vec();
    }
    stages.sort_unstable();
    stages.dedup();
    let mut total = Outcome::default();
    for stage in stages {
        let outcome = run_stage(stage, workspace)?;
        total.add(outcome);
    }
    println!();
    for remark in &total.remarks {
        println!("{remark}");
    }
    println!("{}", closing_line(&total));
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_stage(stage: Stage, workspace: &Workspace) -> Result<Outcome> {
    print!("{:<13}", name(stage));
    std::io::stdout().flush()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a stage's duration is the clock's business"
    )]
    let start = Instant::now();
    let path = workspace
        .tools()
        .join("log")
        .join(format!("{}.log", name(stage)));
    let mut log = Log::create(path)?;
    let mut outcome = stage
        .run(workspace, &mut log)
        .unwrap_or_else(|e| Outcome::fail(format!("{e:#}")));
    println!(
        "{:>4}  {:>7.1} s  {}",
        verdict(&outcome),
        start.elapsed().as_secs_f64(),
        counts(&outcome)
    );
    for remark in &mut outcome.remarks {
        println!("    {remark}");
        *remark = format!("{}: {remark}", name(stage));
    }
    let excerpt = log.excerpt(LOG_LINES_SHOWN_MAX);
    if outcome.failed > 0 && !excerpt.is_empty() {
        println!("{excerpt}\n    … {}", log.path.display());
    }
    Ok(outcome)
}

fn name(stage: Stage) -> String {
    stage
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned())
}

fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome { failed: 1.., .. } => "FAIL",
        Outcome { passed: 0, .. } => "SKIP",
        _ => "ok",
    }
}

/// The counts that are not zero.
fn counts(outcome: &Outcome) -> String {
    let counts = [
        (outcome.passed, "passed"),
        (outcome.failed, "failed"),
        (outcome.skipped, "skipped"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    counts
        .map(|(count, word)| format!("{count} {word}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn closing_line(total: &Outcome) -> String {
    format!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_never_looks_like_a_pass_and_a_failure_wins() {
        assert_eq!(verdict(&Outcome::skip("no browser")), "SKIP");
        assert_eq!(verdict(&Outcome::pass()), "ok");
        let mut both = Outcome::pass();
        both.add(Outcome::fail("late"));
        assert_eq!(verdict(&both), "FAIL");
    }

    #[test]
    fn the_closing_line_has_all_three_counts() {
        let mut total = Outcome::pass();
        total.add(Outcome::skip("no Python 2.7"));
        assert_eq!(closing_line(&total), "1 passed, 0 failed, 1 skipped");
    }
}
