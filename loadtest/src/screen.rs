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

use crate::compare::table::Table as Comparison;
use crate::diff::Diff;
use crate::diff::change::{Change, Judgement};
use crate::make::Make;
use crate::report::pivot::Pivot;
use crate::report::{Figure, Record, plain};

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
        let (pivot, rest) = Pivot::split(&record.figures);
        println!("{}", table(&record.scenario, &rest));
        if let Some(pivot) = &pivot {
            println!("{}", pivot_table(pivot));
        }
        print_outcome(record);
    }
}

fn print_outcome(record: &Record) {
    for warning in &record.warnings {
        println!("warning: {}", plain(warning));
    }
    for fault in &record.faults {
        println!("FAILED: {}", plain(fault));
    }
}

/// Shows what two runs differ in; `is_whole` shows the rest too.
pub(crate) fn print_diff(diff: &Diff, is_whole: bool) {
    let is_shown = |change: &&Change| is_whole || change.judgement != Judgement::Noise;
    let shown: Vec<_> = diff.changes.iter().filter(is_shown).collect();
    if shown.is_empty() {
        println!("{} figures, all within the noise", diff.changes.len());
    } else {
        println!("{}", diff_table(&shown));
    }
    for note in &diff.notes {
        println!("note: {}", plain(note));
    }
    for fault in &diff.new_faults {
        println!("FAILED, and did not before: {}", plain(fault));
    }
}

fn diff_table(changes: &[&Change]) -> Table {
    let mut table = table_of(["", "before", "after", "change", ""].map(str::to_owned));
    let with_range = |figure: &Figure| match figure.range_text() {
        Some(range) => format!("{}\n{range}", figure.text()),
        None => figure.text(),
    };
    for change in changes {
        let share = change.share().map(|x| format!("{:+.1} %", x * 100.0));
        table.add_row([
            plain(&change.after.key),
            with_range(&change.before),
            with_range(&change.after),
            share.unwrap_or_default(),
            change.judgement.text().to_owned(),
        ]);
    }
    table
}

/// A table whose columns but the first are numbers.
fn table_of(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.into_iter().collect::<Vec<_>>());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Shows what a part of something larger says.
pub(crate) fn print_part(label: &str, line: &str) {
    eprintln!("{label}: {}", plain(line));
}

/// Says what became of fetching a rival.
pub(crate) fn print_install(make: Make, is_new: bool) {
    let outcome = if is_new {
        "fetched"
    } else {
        "needs nothing, or is there"
    };
    println!("{make}: {outcome}");
}

/// Shows a comparison: median, range, and share of ours.
pub(crate) fn print_comparison(comparison: &Comparison, record: &Record) {
    let makes = comparison.makes().map(|make| make.name());
    let mut table = table_of(std::iter::once(String::new()).chain(makes));
    for (name, cells) in comparison.rows() {
        let cell = |cell: Option<(Figure, Option<f64>)>| match cell {
            None => "not measured".to_owned(),
            Some((figure, share)) => {
                let share = share.map(|share| format!("{share:.2} × ours"));
                let parts = [Some(figure.text()), figure.range_text(), share];
                parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
            }
        };
        table.add_row(std::iter::once(name.to_owned()).chain(cells.into_iter().map(cell)));
    }
    println!("{table}");
    print_outcome(record);
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

fn table(scenario: &str, figures: &[&Figure]) -> Table {
    let mut table = table_of([scenario, "value"].map(str::to_owned));
    for figure in figures {
        table.add_row([plain(&figure.key), figure.text()]);
    }
    table
}

fn pivot_table(pivot: &Pivot<'_>) -> Table {
    let header = std::iter::once(String::new()).chain(pivot.columns.iter().cloned());
    let mut table = table_of(header);
    for (name, cells) in &pivot.rows {
        table.add_row(std::iter::once(plain(name)).chain(cells.iter().cloned()));
    }
    table
}
