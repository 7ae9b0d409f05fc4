//! Messages over pipelined streams to random lines: what one costs the server, beside what it costs the kernel.

use std::sync::Arc;
use std::thread;

use clap::Args;

use crate::arg::{CommonArg, SendArg};
use crate::baseline::{Baseline, BaselinePlan};
use crate::dialect::{Dialect, Template};
use crate::node::Node;
use crate::report::{Figure, Record};
use crate::scenario::reading::count;
use crate::scenario::sending::{CPU_PER_MESSAGE, Sent};
use crate::scenario::{RunError, Stage};
use crate::screen::Screen;
use crate::sender::Medium;
use crate::sender::record::{Form, RecordPlan};
use crate::swarm::Habit;

/// Send messages over pipelined streams to random lines; every one is accounted for
#[derive(Clone, Debug, Args)]
pub(crate) struct StreamArg {
    /// WebSockets that send
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 4)]
    pub(crate) streams: u32,
    /// Records without a reply on each, if the server's window is not smaller
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 256)]
    pub(crate) window: u32,
    /// Level to wait for; lines acknowledge nothing
    #[arg(long, default_value = "written", value_parser = ["queued", "stored", "written"])]
    pub(crate) wait: String,
    /// Where a stream is opened
    #[arg(long, value_name = "PATH", default_value = "/v1/stream")]
    pub(crate) stream_path: Template,
    /// Measure a bare loop that sends frames of the same size to as many plain sockets, for as long
    #[arg(long)]
    pub(crate) baseline: bool,
    #[command(flatten)]
    pub(crate) send: SendArg,
    #[command(flatten)]
    pub(crate) common: CommonArg,
}

const SUBPROTOCOL: &str = "tautline.v1.stream.json";
/// A server that is started listens for streams where there is room.
const SETTING: &str = "listen.peer=127.0.0.1:0";

/// Runs the scenario.
pub(crate) fn run(arg: &StreamArg) -> Result<(Record, Screen), RunError> {
    let lines = &arg.common.lines;
    if arg.streams > lines.connections {
        return Err(RunError::Usage("there are more streams than lines"));
    }
    let names = lines.names();
    let rows = names.all().rows_of(arg.streams);
    let dialect = lines.dialect(names, 0, Template::root())?;
    let settings = [SETTING.to_owned()];
    let (mut stage, before) = Stage::open(
        "stream",
        &arg.common,
        &settings,
        dialect.clone(),
        Habit::default(),
    )?;
    let medium = Medium::Record(Arc::new(record_plan(arg, &stage.node, &dialect)?));
    let ramped = stage.ramp()?;
    let sent = Sent::send(&mut stage, &arg.send, dialect, medium, rows)?;
    let baseline = if arg.baseline {
        Some(measure_baseline(arg, &mut stage, &sent)?)
    } else {
        None
    };
    let limits = (lines.failures_max, arg.send.refusals_max);
    let (mut record, screen) = sent.close(stage, "stream", (&before, &ramped), limits)?;
    if let Some((plan, baseline)) = &baseline {
        let figures = baseline_figures(plan, baseline, &record);
        record.add(figures);
    }
    Ok((record, screen))
}

fn record_plan(arg: &StreamArg, node: &Node, lines: &Dialect) -> Result<RecordPlan, RunError> {
    let missing = if node.is_own() {
        "this server does not say where it takes streams"
    } else {
        "streaming to a --target needs --peer"
    };
    let peer = node.peer.clone().ok_or(RunError::Usage(missing))?;
    Ok(RecordPlan {
        targets: vec![peer],
        tls: None,
        // A stream is no device's: it has the headers of a back end, and no token.
        upgrade: Dialect {
            line_path: arg.stream_path.clone(),
            subprotocol: Some(SUBPROTOCOL.to_owned()),
            tokens: None,
            ..lines.clone()
        },
        form: Form::Stream,
        window_max: arg.window,
        wait: arg.wait.clone(),
        open_timeout: arg.common.lines.open_timeout,
    })
}

/// Runs the bare loop beside the lines, which stay open: caches and sockets are as they were.
fn measure_baseline(
    arg: &StreamArg,
    stage: &mut Stage,
    sent: &Sent,
) -> Result<(BaselinePlan, Baseline), RunError> {
    let plan = BaselinePlan {
        sinks: arg.common.lines.connections,
        frame_bytes: sent.frame_bytes(),
        window: arg.window.saturating_mul(arg.streams),
        duration: arg.send.duration,
        seed: arg.send.seed,
    };
    let loop_thread = thread::Builder::new()
        .name("baseline".to_owned())
        .spawn(move || Baseline::measure(plan))?;
    stage.watch_done("baseline", || loop_thread.is_finished())?;
    let panicked = |_| std::io::Error::other("the bare loop panicked");
    Ok((plan, loop_thread.join().map_err(panicked)??))
}

fn baseline_figures(plan: &BaselinePlan, baseline: &Baseline, record: &Record) -> Vec<Figure> {
    let us = baseline.cpu_per_frame().as_secs_f64() * 1e6;
    let rate = count(baseline.frames) / baseline.time.as_secs_f64();
    let mut figures = vec![
        Figure::new("baseline.frame_bytes", count(plan.frame_bytes as u64), "B"),
        Figure::new("baseline.rate", rate, "/s"),
        Figure::new("baseline.cpu_per_message", us, "µs"),
    ];
    let server = record.figures.iter().find(|f| f.key == CPU_PER_MESSAGE);
    let ratio = server.map(|figure| figure.value / us);
    figures.extend(ratio.map(|x| Figure::new("stream.cpu_over_baseline", x, "×")));
    figures
}
