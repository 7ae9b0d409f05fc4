//! Messages from device to device among many idle lines.

use std::sync::Arc;

use clap::Args;

use crate::arg::{CommonArg, LineArg, SendArg};
use crate::dialect::{Dialect, Template};
use crate::name::{ACCOUNT_LINES, Names, Row};
use crate::report::Record;
use crate::scenario::sending::Sent;
use crate::scenario::{RunError, Stage};
use crate::screen::Screen;
use crate::sender::Medium;
use crate::sender::record::{Form, RecordPlan};
use crate::swarm::Habit;

/// Send messages from lines to random other lines; every one is accounted for
///
/// A sender reaches the lines of its own account, or all with --may-send-to. The lines that several senders reach are
/// shared out among them, so that the order of what a line gets is known. A server that is started has its limits on
/// what devices send and get lifted; a running one may answer `rate_limited`.
#[derive(Clone, Debug, Args)]
pub(crate) struct D2dArg {
    /// Lines that send, among those that are opened
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 64)]
    pub(crate) senders: u32,
    /// Unanswered messages of each sender
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 16)]
    pub(crate) window: u32,
    /// Level to wait for; lines acknowledge nothing
    #[arg(long, default_value = "written", value_parser = ["queued", "stored", "written"])]
    pub(crate) wait: String,
    #[command(flatten)]
    pub(crate) send: SendArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

/// What is measured is a message's cost, not the limits that keep one device from harming others.
pub(super) const LIMITS: [&str; 6] = [
    "limits.frames_per_second=0",
    "limits.bytes_per_second=0",
    "limits.sends_per_second=1000000",
    "limits.sends_burst=1000000",
    "limits.receives_per_second=1000000",
    "limits.receives_burst=1000000",
];

/// Runs the scenario.
pub(crate) fn run(arg: &D2dArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    let (names, rows) = cast(arg)?;
    let dialect = lines.dialect(names, arg.senders, Template::root())?;
    let settings = LIMITS.map(str::to_owned);
    let (mut stage, before) = Stage::open(
        "d2d",
        &arg.common,
        &settings,
        dialect.clone(),
        Habit::default(),
    )?;
    let medium = device_lines(&stage, &dialect, lines, arg.window, &arg.wait);
    let ramped = stage.ramp()?;
    let sent = Sent::send(&mut stage, &arg.send, dialect, medium, rows)?;
    let limits = (lines.failures_max, arg.send.refusals_max);
    sent.close(stage, "d2d", (&before, &ramped), limits)
}

/// Lines of devices that send, each with so many messages unanswered.
pub(super) fn device_lines(
    stage: &Stage,
    dialect: &Dialect,
    lines: &LineArg,
    window_max: u32,
    wait: &str,
) -> Medium {
    Medium::Record(Arc::new(RecordPlan {
        targets: stage.node.devices.clone(),
        tls: stage.tls.clone(),
        upgrade: Dialect {
            subprotocol: None,
            ..dialect.clone()
        },
        form: Form::Device,
        window_max,
        wait: wait.to_owned(),
        open_timeout: lines.open_timeout,
    }))
}

/// Who receives, and what of it each sender sends to.
fn cast(arg: &D2dArg) -> Result<(Names, Vec<Row>), RunError> {
    let lines = &arg.common.lines;
    let receivers = lines.connections.saturating_sub(arg.senders);
    if receivers < arg.senders {
        return Err(RunError::Usage(
            "more than half of the lines would be senders",
        ));
    }
    let is_free = !lines.may_send_to.is_empty();
    let usual = if is_free {
        ACCOUNT_LINES
    } else {
        receivers.div_ceil(arg.senders)
    };
    let account_lines = lines.account_lines.unwrap_or(usual);
    let names = Names::new(lines.first_line, receivers, account_lines);
    let rows = if is_free {
        names.all().rows_of(arg.senders)
    } else {
        names.account_rows(arg.senders)
    };
    Ok((names, rows))
}
