//! Tautline's own tasks, run as `cargo tool <command>`.

#![expect(
    clippy::print_stdout,
    reason = "a command line speaks on its standard output"
)]

mod conformance;
mod install;
mod interop;
mod package;
mod process;
mod rival;
mod stage;
mod test;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::stage::Stage;
use self::workspace::Workspace;

/// Tautline's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo tool")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the tests need and run all of them, or only the stages named.
    Test {
        /// Stages to run, in the order of the list; all when none is named.
        #[arg(value_enum)]
        stages: Vec<Stage>,
        /// Name the stages and what they do, and stop.
        #[arg(long)]
        list: bool,
    },
    /// Check the rules of the house: layers, vendor owners, words, shape.
    Tidy,
    /// Run Autobahn's fuzzing client against the echo application.
    Conformance {
        /// An echo application to test instead of ours.
        #[arg(long)]
        echo: Option<PathBuf>,
    },
    /// Connect devices of other people's making to the real server.
    Interop,
}

fn main() -> Result<ExitCode> {
    let command = Arguments::parse().command;
    process::stop_children_on_signal()?;
    let mut workspace = Workspace::find()?;
    let stages = match command {
        Command::Test { list: true, .. } => return Ok(test::list()),
        Command::Test { stages, .. } => stages,
        Command::Tidy => return test::tidy(&workspace),
        Command::Conformance { echo } => {
            workspace.echo = echo;
            vec![Stage::Conformance]
        }
        Command::Interop => vec![Stage::Interop, Stage::Browser],
    };
    test::run(&workspace, stages)
}
