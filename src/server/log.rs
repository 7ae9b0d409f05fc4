//! Log lines go to a writer thread: no reactor waits for a terminal or a disk.

use std::sync::Arc;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::config::section::{Log, LogFormat, LogLevel};
use crate::ops::LogWriter;

/// The log. Lines are written as long as it lives.
pub(super) struct Logger {
    set_level: Box<dyn Fn(EnvFilter)>,
    drops: ErrorCounter,
    _writer: WorkerGuard,
}

/// What the writer had no room for.
#[derive(Debug)]
struct Drops(ErrorCounter);

impl LogWriter for Drops {
    fn dropped_lines(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

impl Logger {
    /// Starts logging to standard error. When the writer cannot keep up, lines are dropped and counted rather than anyone
    /// held up.
    pub(super) fn start(log: &Log) -> Self {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LINES_WAITING_MAX)
            .finish(std::io::stderr());
        let drops = writer.error_counter();
        let builder = SubscriberBuilder::default()
            .with_writer(writer)
            .with_env_filter(filter(log.level))
            .with_ansi(false);
        // A second server in one process, as in tests, keeps the first one's subscriber.
        let set_level: Box<dyn Fn(EnvFilter)> = match log.format {
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                builder.try_init().ok();
                Box::new(move |level| handle.reload(level).unwrap_or_default())
            }
            LogFormat::Json => {
                let builder = builder.json().with_filter_reloading();
                let handle = builder.reload_handle();
                builder.try_init().ok();
                Box::new(move |level| handle.reload(level).unwrap_or_default())
            }
        };
        Self {
            set_level,
            drops,
            _writer: guard,
        }
    }

    /// What a scrape may ask.
    pub(super) fn writer(&self) -> Arc<dyn LogWriter> {
        Arc::new(Drops(self.drops.clone()))
    }

    /// Writes lines of this level and above from now on.
    pub(super) fn set_level(&self, level: LogLevel) {
        (self.set_level)(filter(level));
    }
}

/// Lines that wait for the writer. The crate's own 128,000 are 4 MB that are paid at the start.
const LINES_WAITING_MAX: usize = 8_192;

fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    EnvFilter::default().add_directive(level.into())
}
