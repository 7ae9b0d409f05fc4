//! What people look at: a progress bar with live rates, then a table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Record;

/// The progress bar, or a line now and then where there is no terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: ProgressBar,
    last_line: Option<Duration>,
}

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

impl Screen {
    /// An empty screen.
    pub(crate) fn open() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>8} {wide_bar:.cyan/dim}\n{wide_msg}")
        {
            bar.set_style(style);
        }
        Self {
            bar,
            last_line: None,
        }
    }

    /// Starts a phase of so many steps.
    pub(crate) fn start_phase(&mut self, name: &'static str, steps: u64) {
        self.bar.set_prefix(name);
        self.bar.set_length(steps);
        self.bar.set_position(0);
        self.last_line = None;
    }

    /// Says something outside the phases.
    pub(crate) fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.set_message(text.to_owned());
            self.bar.tick();
        }
    }

    /// Shows how far the phase is.
    pub(crate) fn show(&mut self, step: u64, text: String, now: Duration) {
        self.bar.set_position(step);
        let is_due = self
            .last_line
            .is_none_or(|last| now - last >= LINE_INTERVAL);
        if self.bar.is_hidden() && is_due {
            eprintln!("{:>8} {text}", self.bar.prefix());
            self.last_line = Some(now);
        }
        self.bar.set_message(text);
    }

    /// Takes the bar away and shows the results.
    pub(crate) fn finish(&self, record: &Record) {
        self.bar.finish_and_clear();
        println!("{}", table(record));
        for warning in &record.warnings {
            println!("warning: {warning}");
        }
        for fault in &record.faults {
            println!("FAILED: {fault}");
        }
    }
}

/// Says where the record is.
pub(crate) fn print_record_path(path: &std::path::Path) {
    println!("record: {}", path.display());
}

/// Says why there is no result.
pub(crate) fn print_error(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

fn table(record: &Record) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header([record.scenario.as_str(), "value"]);
    for figure in &record.figures {
        table.add_row([figure.key.clone(), figure.text()]);
    }
    if let Some(values) = table.column_mut(1) {
        values.set_cell_alignment(CellAlignment::Right);
    }
    table
}
