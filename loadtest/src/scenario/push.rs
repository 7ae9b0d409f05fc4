//! Messages over HTTP to random lines: what one costs, how long it takes, and whether all arrive.

use clap::Args;

use crate::arg::{CommonArg, SendArg};
use crate::dialect::Template;
use crate::report::Record;
use crate::scenario::sending::Sent;
use crate::scenario::{NO_API, RunError, Stage, api, push_path};
use crate::screen::Screen;
use crate::sender::Medium;
use crate::swarm::Habit;

/// Push messages over HTTP to random lines; every one is accounted for
#[derive(Clone, Debug, Args)]
pub(crate) struct PushArg {
    /// Keep-alive connections that send
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 16)]
    pub(crate) senders: u32,
    /// Unanswered messages on each connection
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1)]
    pub(crate) pipeline: u32,
    /// Level to wait for, added to the path as `wait`
    #[arg(long)]
    pub(crate) wait: Option<String>,
    /// Where messages go; {device} and {account} are filled in [default: as for --against]
    #[arg(long)]
    pub(crate) push_path: Option<Template>,
    #[command(flatten)]
    pub(crate) send: SendArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// Runs the scenario.
pub(crate) fn run(arg: &PushArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    if arg.senders > lines.connections {
        return Err(RunError::Usage("there are more senders than lines"));
    }
    let names = lines.names();
    let rows = names.all().rows_of(arg.senders);
    let path = push_path(arg.push_path.as_ref(), lines.against)?;
    let path = match &arg.wait {
        Some(level) => path.with_query("wait", level),
        None => path,
    };
    let dialect = lines.dialect(names, 0, path)?;
    let (mut stage, before) =
        Stage::open("push", &arg.common, &[], dialect.clone(), Habit::default())?;
    let medium = Medium::Http {
        api: api(&stage.node, NO_API)?,
        pipeline: arg.pipeline,
    };
    let ramped = stage.ramp()?;
    let sent = Sent::send(&mut stage, &arg.send, dialect, medium, rows)?;
    let limits = (lines.failures_max, arg.send.refusals_max);
    sent.close(stage, "push", (&before, &ramped), limits)
}
