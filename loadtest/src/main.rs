//! Load generator for push servers.
//!
//! It opens many WebSocket lines, pushes messages to them, and judges what it sees from outside: nothing of the
//! server's own code is linked here. Each scenario is a subcommand; see `loadtest help`.
#![expect(
    clippy::disallowed_methods,
    reason = "the ban on reading clocks is for the server; this measures with them"
)]

mod arg;
mod baseline;
mod clock;
mod descriptor;
mod dialect;
mod latency;
mod line;
mod machine;
mod name;
mod node;
mod oracle;
mod report;
mod sample;
mod scenario;
mod schedule;
mod screen;
mod sender;
mod series;
mod swarm;
mod timeline;
mod tls;
mod token;
mod transport;

use std::process::ExitCode;

use clap::Parser;

use crate::arg::{CommonArg, RecordArg};
use crate::report::Record;
use crate::scenario::RunError;
use crate::scenario::churn::{self, ChurnArg};
use crate::scenario::d2d::{self, D2dArg};
use crate::scenario::halfopen::{self, HalfopenArg};
use crate::scenario::idle::{self, IdleArg};
use crate::scenario::push::{self, PushArg};
use crate::scenario::slow::{self, SlowArg};
use crate::scenario::storm::{self, StormArg};
use crate::scenario::stream::{self, StreamArg};

/// Load generator for push servers
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true)]
enum Command {
    #[command(mut_arg("ramp", |arg| arg.visible_alias("rate")))]
    Idle(IdleArg),
    Push(PushArg),
    #[command(mut_arg("rate", |arg| arg.default_value("5000")))]
    D2d(D2dArg),
    Stream(StreamArg),
    Storm(StormArg),
    #[command(mut_arg("comeback", |arg| arg.default_value("hint")))]
    Churn(ChurnArg),
    Slow(SlowArg),
    Halfopen(HalfopenArg),
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
        Command::D2d(arg) => d2d::run(arg)?,
        Command::Stream(arg) => stream::run(arg)?,
        Command::Storm(arg) => storm::run(arg)?,
        Command::Churn(arg) => churn::run(arg)?,
        Command::Slow(arg) => slow::run(arg)?,
        Command::Halfopen(arg) => halfopen::run(arg)?,
    };
    screen.finish(&record);
    keep(&record, &command.common().record)?;
    Ok(record)
}

impl Command {
    fn common(&self) -> &CommonArg {
        match self {
            Self::Idle(arg) => &arg.common,
            Self::Push(arg) => &arg.common,
            Self::D2d(arg) => &arg.common,
            Self::Stream(arg) => &arg.common,
            Self::Storm(arg) => &arg.common,
            Self::Churn(arg) => &arg.common,
            Self::Slow(arg) => &arg.common,
            Self::Halfopen(arg) => &arg.common,
        }
    }
}

fn keep(record: &Record, arg: &RecordArg) -> Result<(), RunError> {
    if !arg.no_record {
        screen::print_record_path(&record.write(&arg.record_dir)?);
    }
    Ok(())
}
