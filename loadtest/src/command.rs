//! The scenarios as the command line, a plan and a comparison name them.

use clap::Subcommand;

use crate::arg::CommonArg;
use crate::report::Record;
use crate::scenario::RunError;
use crate::scenario::broadcast::{self, BroadcastArg};
use crate::scenario::churn::{self, ChurnArg};
use crate::scenario::connect::{self, ConnectArg};
use crate::scenario::d2d::{self, D2dArg};
use crate::scenario::drain::{self, DrainArg};
use crate::scenario::halfopen::{self, HalfopenArg};
use crate::scenario::idle::{self, IdleArg};
use crate::scenario::ladder::{self, LadderArg};
use crate::scenario::push::{self, PushArg};
use crate::scenario::slow::{self, SlowArg};
use crate::scenario::soak::{self, SoakArg};
use crate::scenario::storm::{self, StormArg};
use crate::scenario::stream::{self, StreamArg};
use crate::screen::Screen;

/// A scenario with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    #[command(mut_arg("ramp", |arg| arg.visible_alias("rate")))]
    Idle(IdleArg),
    Push(PushArg),
    #[command(mut_arg("rate", |arg| arg.default_value("5000")))]
    D2d(D2dArg),
    Stream(StreamArg),
    Broadcast(BroadcastArg),
    Storm(StormArg),
    #[command(mut_arg("comeback", |arg| arg.default_value("hint")))]
    Churn(ChurnArg),
    Slow(SlowArg),
    Halfopen(HalfopenArg),
    #[command(mut_arg("connections", |arg| arg.default_value("100000")))]
    #[command(mut_arg("ramp", |arg| arg.hide(true)), mut_arg("in_flight", |arg| arg.hide(true)))]
    Connect(ConnectArg),
    #[command(mut_arg("connections", |arg| arg.default_value("100000")))]
    Ladder(LadderArg),
    #[command(mut_arg("comeback", |arg| arg.default_value("hint")))]
    Drain(DrainArg),
    #[command(mut_arg("account_lines", |arg| arg.hide(true)))]
    Soak(SoakArg),
}

impl Scenario {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<(Record, Screen), RunError> {
        match self {
            Self::Idle(arg) => idle::run(arg),
            Self::Push(arg) => push::run(arg),
            Self::D2d(arg) => d2d::run(arg),
            Self::Stream(arg) => stream::run(arg),
            Self::Broadcast(arg) => broadcast::run(arg),
            Self::Storm(arg) => storm::run(arg),
            Self::Churn(arg) => churn::run(arg),
            Self::Slow(arg) => slow::run(arg),
            Self::Halfopen(arg) => halfopen::run(arg),
            Self::Connect(arg) => connect::run(arg),
            Self::Ladder(arg) => ladder::run(arg),
            Self::Drain(arg) => drain::run(arg),
            Self::Soak(arg) => soak::run(arg),
        }
    }

    /// What all scenarios have.
    pub(crate) fn common(&self) -> &CommonArg {
        match self {
            Self::Idle(arg) => &arg.common,
            Self::Push(arg) => &arg.common,
            Self::D2d(arg) => &arg.common,
            Self::Stream(arg) => &arg.common,
            Self::Broadcast(arg) => &arg.common,
            Self::Storm(arg) => &arg.common,
            Self::Churn(arg) => &arg.common,
            Self::Slow(arg) => &arg.common,
            Self::Halfopen(arg) => &arg.common,
            Self::Connect(arg) => &arg.common,
            Self::Ladder(arg) => &arg.common,
            Self::Drain(arg) => &arg.common,
            Self::Soak(arg) => &arg.common,
        }
    }
}
