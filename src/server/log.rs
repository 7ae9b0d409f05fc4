//! Log lines go to a writer thread: no reactor waits for a terminal or a disk.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::config::section::{Log, LogFormat, LogLevel};

/// Starts logging to standard error. Lines are written as long as the guard lives; when the writer cannot keep up,
/// lines are dropped rather than anyone held up.
pub(super) fn start(log: &Log) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = SubscriberBuilder::default()
        .with_writer(writer)
        .with_max_level(level)
        .with_ansi(false);
    // A second server in one process, as in tests, keeps the first one's subscriber.
    match log.format {
        LogFormat::Text => builder.try_init().ok(),
        LogFormat::Json => builder.json().try_init().ok(),
    };
    guard
}
