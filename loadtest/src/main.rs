//! Load generator for push servers.
//!
//! It opens many WebSocket lines, pushes messages to them, and judges what it sees from outside: nothing of the
//! server's own code is linked here. Each scenario is a subcommand; see `loadtest help`.
#![expect(
    clippy::disallowed_methods,
    reason = "the ban on reading clocks is for the server; this measures with them"
)]

mod address;
mod arg;
mod baseline;
mod clock;
mod command;
mod compare;
mod descriptor;
mod dialect;
mod diff;
mod latency;
mod line;
mod machine;
mod make;
mod merge;
mod name;
mod node;
mod oracle;
mod part;
mod plan;
mod precedence;
mod report;
mod sample;
mod scenario;
mod schedule;
mod screen;
mod sender;
mod series;
mod swarm;
mod task;
mod timeline;
mod tls;
mod token;
mod transport;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::arg::RecordArg;
use crate::command::Scenario;
use crate::compare::CompareArg;
use crate::diff::DiffArg;
use crate::make::Make;
use crate::merge::MergeArg;
use crate::node::rival::store::Store;
use crate::plan::Plan;
use crate::report::Record;
use crate::scenario::RunError;
use crate::screen::Screen;

/// Load generator for push servers
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct CommandLine {
    /// Run what a file says: several scenarios side by side and one after another, against one server
    #[arg(long, value_name = "FILE", required = true)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    record: RecordArg,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    Compare(CompareArg),
    Diff(DiffArg),
    Merge(MergeArg),
    Report(ReportArg),
    Install(InstallArg),
}

/// Write the page, the summary and the picture of a record again
#[derive(Clone, Debug, Args)]
struct ReportArg {
    /// The directories of runs
    #[arg(required = true)]
    runs: Vec<PathBuf>,
}

/// Fetch servers to compare with, through apt-get, npm and go, into target/tools/rivals or $LOADTEST_RIVALS_DIR
///
/// What the system has is used as it is, and nothing is installed into it.
#[derive(Clone, Debug, Args)]
struct InstallArg {
    /// Which
    #[arg(value_enum, required = true)]
    makes: Vec<Make>,
}

/// What `diff` and `merge` end with when records do not go together; clap ends with it when it does not understand.
const NO_MATCH: u8 = 2;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match &line.command {
        None => ended(run_plan(&line)),
        Some(Command::Scenario(scenario)) => ended(run_scenario(scenario)),
        Some(Command::Compare(arg)) => ended(run_comparison(arg)),
        Some(Command::Diff(arg)) => match diff::run(arg) {
            Ok(false) => ExitCode::SUCCESS,
            Ok(true) => ExitCode::FAILURE,
            Err(error) => unmatched(&error),
        },
        Some(Command::Merge(arg)) => match merge::run(arg) {
            Ok(record) => ended(finish(&record, &Screen::open(), &arg.record)),
            Err(error) => unmatched(&error),
        },
        Some(Command::Report(arg)) => ended(write_reports(arg)),
        Some(Command::Install(arg)) => ended(install(arg)),
    }
}

/// Passed, failed, or without a result.
fn ended<E: std::error::Error>(outcome: Result<bool, E>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn unmatched(error: &dyn std::error::Error) -> ExitCode {
    screen::print_error(error);
    NO_MATCH.into()
}

fn run_scenario(scenario: &Scenario) -> Result<bool, RunError> {
    let (record, screen) = scenario.run()?;
    Ok(finish(&record, &screen, &scenario.common().record)?)
}

fn run_plan(line: &CommandLine) -> Result<bool, RunError> {
    // Without a subcommand it is required.
    let path = line.plan.clone().unwrap_or_default();
    let (record, screen) = Plan::read(&path)?.run()?;
    Ok(finish(&record, &screen, &line.record)?)
}

fn run_comparison(arg: &CompareArg) -> Result<bool, RunError> {
    Ok(keep(&compare::run(arg)?, &arg.record)?)
}

fn write_reports(arg: &ReportArg) -> io::Result<bool> {
    for run in &arg.runs {
        Record::read(run)?.write_pages(run)?;
        screen::print_record_path(run);
    }
    Ok(true)
}

fn install(arg: &InstallArg) -> Result<bool, node::rival::store::StoreError> {
    for make in &arg.makes {
        screen::print_install(*make, Store::open().install(*make)?);
    }
    Ok(true)
}

/// Shows the results and keeps them.
fn finish(record: &Record, screen: &Screen, arg: &RecordArg) -> io::Result<bool> {
    screen.finish(record);
    keep(record, arg)
}

/// Writes the record, and tells whether the run passed.
fn keep(record: &Record, arg: &RecordArg) -> io::Result<bool> {
    if !arg.no_record {
        screen::print_record_path(&record.write(&arg.record_dir)?);
    }
    Ok(record.faults.is_empty())
}
