//! What remains of a run: figures with units, and the record that says how they came about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Source};
use crate::sample::Point;
use crate::series::Series;

/// A measured number. Its key is dotted, most general word first: `server.cpu_per_line`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) key: String,
    /// The number, in `unit`.
    pub(crate) value: f64,
    /// `µs`, `B`, `/s`, `s`, `cores`, or empty for a count.
    pub(crate) unit: String,
}

/// Everything about one run, as written to `record.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which scenario ran.
    pub(crate) scenario: String,
    /// When, in UTC (RFC 3339).
    pub(crate) date: String,
    /// The source it ran from.
    pub(crate) source: Source,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// The full command line.
    pub(crate) command: Vec<String>,
    /// All figures.
    pub(crate) figures: Vec<Figure>,
    /// Why the run failed; empty when it passed.
    pub(crate) faults: Vec<String>,
    /// What a reader must know before trusting the figures, such as an overloaded generator.
    pub(crate) warnings: Vec<String>,
    /// The curve over time, one point a second.
    pub(crate) points: Vec<Point>,
    /// More curves, by the key that a figure of that kind would have.
    #[serde(default)]
    pub(crate) series: BTreeMap<String, Series>,
}

impl Figure {
    /// Names a number.
    pub(crate) fn new(key: impl Into<String>, value: f64, unit: &str) -> Self {
        Self {
            key: key.into(),
            value,
            unit: unit.to_owned(),
        }
    }

    /// The number as people read it.
    pub(crate) fn text(&self) -> String {
        match (self.unit.as_str(), self.value) {
            ("B", value) if value >= 10_000.0 => {
                ByteSize(rounded(value)).display().iec().to_string()
            }
            ("", value) => rounded(value).to_string(),
            ("µs", value) if value >= 1e6 => format!("{:.2} s", value / 1e6),
            ("µs", value) if value >= 1e4 => format!("{:.1} ms", value / 1e3),
            (unit, value) if value.abs() >= 100.0 => format!("{value:.0} {unit}"),
            (unit, value) => format!("{value:.2} {unit}"),
        }
    }
}

impl Record {
    /// An empty record of a run that starts now.
    pub(crate) fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            source: Source::describe(),
            machine: Machine::describe(),
            command: std::env::args().collect(),
            figures: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            points: Vec::new(),
            series: BTreeMap::new(),
        }
    }

    /// Adds figures.
    pub(crate) fn add(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.figures.extend(figures);
    }

    /// Writes `summary.md` and `record.json` below `results`, in a directory named after the run.
    pub(crate) fn write(&self, results: &Path) -> io::Result<PathBuf> {
        let directory = results.join(self.directory_name());
        fs::create_dir_all(&directory)?;
        fs::write(
            directory.join("record.json"),
            serde_json::to_vec_pretty(self)?,
        )?;
        fs::write(directory.join("summary.md"), self.summary())?;
        Ok(directory)
    }

    fn directory_name(&self) -> String {
        let moment: String = self.date.chars().filter(|c| *c != ':').collect();
        let dirty = if self.source.dirty { "-dirty" } else { "" };
        format!(
            "{moment}-{}-{}{dirty}-{}",
            self.machine.host, self.source.commit, self.scenario
        )
    }

    fn summary(&self) -> String {
        let Machine {
            host,
            cpu,
            cores,
            memory_bytes,
            kernel,
        } = &self.machine;
        let memory = ByteSize(*memory_bytes).display().iec();
        let dirty = if self.source.dirty {
            " (with changes)"
        } else {
            ""
        };
        let outcome = if self.faults.is_empty() {
            "passed"
        } else {
            "**failed**"
        };
        let mut text = format!(
            "# {}: {outcome}\n\n- command: `{}`\n- date: {}\n- commit: {}{dirty}\n\
             - machine: {host}, {cpu}, {cores} cores, {memory}, Linux {kernel}\n\n",
            self.scenario,
            self.command.join(" "),
            self.date,
            self.source.commit,
        );
        let notes = self
            .faults
            .iter()
            .chain(&self.warnings)
            .map(|note| format!("- {note}\n"));
        text.extend(notes);
        text.push_str("\n| figure | value |\n|---|---|\n");
        for figure in &self.figures {
            let written = writeln!(text, "| {} | {} |", figure.key, figure.text());
            debug_assert!(written.is_ok(), "a string takes every byte");
        }
        text
    }
}

/// Figures are far below 2⁵³, so nothing is lost.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative counts and sizes do not occur; the cast saturates"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new("idle");
        record.source = Source {
            commit: "abc1234".to_owned(),
            dirty: true,
        };
        record.machine.host = "box".to_owned();
        record.date = "2026-11-21T11:03:12Z".to_owned();
        record.add([
            Figure::new("server.bytes_per_line", 187.25, "B"),
            Figure::new("lines.opened", 240_000.0, ""),
        ]);
        record.faults.push("3 lines failed".to_owned());
        record
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let results = tempfile::tempdir().unwrap();
        let directory = record().write(results.path()).unwrap();
        assert_eq!(
            directory.file_name().unwrap(),
            "2026-11-21T110312Z-box-abc1234-dirty-idle"
        );
        let text = fs::read_to_string(directory.join("record.json")).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record());
    }

    #[test]
    fn a_summary_names_command_commit_faults_and_figures() {
        let text = record().summary();
        for part in [
            "failed",
            "abc1234 (with changes)",
            "3 lines failed",
            "| lines.opened | 240000 |",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("| server.bytes_per_line | 187 B |"));
    }

    #[test]
    fn numbers_are_shown_with_the_digits_that_matter() {
        assert_eq!(Figure::new("k", 11.256, "µs").text(), "11.26 µs");
        assert_eq!(Figure::new("k", 35_560.0, "µs").text(), "35.6 ms");
        assert_eq!(Figure::new("k", 3_556_770.0, "µs").text(), "3.56 s");
        assert_eq!(Figure::new("k", 15_234.5, "/s").text(), "15234 /s");
        assert_eq!(
            Figure::new("k", 48.0 * 1024.0 * 1024.0, "B").text(),
            "48.0 MiB"
        );
    }
}
