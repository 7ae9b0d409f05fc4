//! Load generator for push servers.
//!
//! It opens many WebSocket lines, pushes messages to them, and judges what it sees from outside: nothing of the
//! server's own code is linked here. Each scenario is a subcommand; see `loadtest help`.
#![expect(
    clippy::disallowed_methods,
    reason = "the ban on reading clocks is for the server; this measures with them"
)]

mod arg;
mod clock;
mod descriptor;
mod dialect;
mod latency;
mod machine;
mod node;
mod oracle;
mod report;
mod sample;
mod scenario;
mod schedule;
mod screen;
mod sender;
mod swarm;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::arg::RecordArg;
use crate::report::Record;
use crate::scenario::RunError;
use crate::scenario::idle::{self, IdleArg};
use crate::scenario::push::{self, PushArg};

/// Load generator for push servers
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
enum Command {
    #[command(mut_arg("ramp", |arg| arg.visible_alias("rate")))]
    Idle(IdleArg),
    Push(PushArg),
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(record) if record.faults.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            screen::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<Record, RunError> {
    let (record, screen) = match command {
        Command::Idle(arg) => idle::run(arg)?,
        Command::Push(arg) => push::run(arg)?,
    };
    screen.finish(&record);
    keep(&record, command.record())?;
    Ok(record)
}

impl Command {
    fn record(&self) -> &RecordArg {
        match self {
            Self::Idle(arg) => &arg.record,
            Self::Push(arg) => &arg.record,
        }
    }
}

fn keep(record: &Record, arg: &RecordArg) -> Result<(), RunError> {
    if !arg.no_record {
        screen::print_record_path(&record.write(&arg.record_dir)?);
    }
    Ok(())
}
