//! What remains of a run: figures with units, curves, and the record that says how they came about.
//!
//! A run's directory has the record for programs (`record.json`), and for people a page with plots that needs nothing
//! else (`report.html`), a summary (`summary.md`) and one picture (`chart.svg`). What servers call themselves or answer
//! is in all of them: it is escaped for each.

mod chart;
mod format;
mod page;
pub(crate) mod pivot;
mod plot;
mod summary;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::latency::{Distribution, Latency};
use crate::machine::{Machine, Source};
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
    /// Of several rounds, what each one gave; `value` is their median. Empty when there was one round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rounds: Vec<f64>,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// What went on.
    pub(crate) name: String,
    /// When it began, in seconds since the start of the run.
    pub(crate) at_s: f64,
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
    /// What was measured and how, where that is not plain from the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    /// What went on when.
    #[serde(default)]
    pub(crate) phases: Vec<Phase>,
    /// Curves over time, by the key that a figure of that kind would have.
    #[serde(default)]
    pub(crate) series: BTreeMap<String, Series>,
    /// Latencies, by the key that their figures begin with.
    #[serde(default)]
    pub(crate) latencies: BTreeMap<String, Distribution>,
}

impl Figure {
    /// Names a number.
    pub(crate) fn new(key: impl Into<String>, value: f64, unit: &str) -> Self {
        Self {
            key: key.into(),
            value,
            unit: unit.to_owned(),
            rounds: Vec::new(),
        }
    }

    /// Names what several rounds gave: its value is their median.
    pub(crate) fn of_rounds(key: impl Into<String>, mut rounds: Vec<f64>, unit: &str) -> Self {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let value = match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        if rounds.len() < 2 {
            rounds.clear();
        }
        Self {
            rounds,
            ..Self::new(key, value, unit)
        }
    }

    /// A count as it was counted.
    pub(crate) fn whole(&self) -> u64 {
        rounded(self.value)
    }

    /// The least and the most of all rounds.
    pub(crate) fn range(&self) -> (f64, f64) {
        let least = self.rounds.iter().copied().fold(self.value, f64::min);
        (
            least,
            self.rounds.iter().copied().fold(self.value, f64::max),
        )
    }

    /// The number as people read it.
    pub(crate) fn text(&self) -> String {
        number_text(self.value, &self.unit)
    }

    /// The least and the most, where there were several rounds.
    pub(crate) fn range_text(&self) -> Option<String> {
        let (least, most) = self.range();
        let is_several = !self.rounds.is_empty();
        is_several.then(|| {
            format!(
                "{} … {}",
                number_text(least, &self.unit),
                number_text(most, &self.unit)
            )
        })
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
            notes: Vec::new(),
            phases: Vec::new(),
            series: BTreeMap::new(),
            latencies: BTreeMap::new(),
        }
    }

    /// Adds figures.
    pub(crate) fn add(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.figures.extend(figures);
    }

    /// The figure of a name.
    pub(crate) fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.key == key)
    }

    /// Adds a latency: its figures, and its distribution for the plot.
    pub(crate) fn add_latency(&mut self, key: &str, latency: &Latency) {
        self.add(latency.figures(key));
        self.keep_distribution(key, latency);
    }

    /// Keeps the distribution of a latency whose figures are added elsewhere.
    pub(crate) fn keep_distribution(&mut self, key: &str, latency: &Latency) {
        self.keep(key, latency.distribution());
    }

    /// Adds a latency that no plot shows.
    pub(crate) fn add_quantiles(&mut self, key: &str, latency: &Latency) {
        self.add(latency.figures(key));
        self.keep_histogram(key, latency);
    }

    /// Keeps the histogram of a latency that no plot shows, and whose figures are added elsewhere.
    pub(crate) fn keep_histogram(&mut self, key: &str, latency: &Latency) {
        self.keep(key, latency.unplotted());
    }

    /// Reads the record of a run from its directory, or from the file itself.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let file = if path.is_dir() {
            path.join(RECORD_FILE)
        } else {
            path.to_owned()
        };
        let text = fs::read(&file).map_err(|error| named(&file, &error))?;
        serde_json::from_slice(&text).map_err(|error| named(&file, &error))
    }

    /// Writes everything below `results`, in a directory named after the run.
    pub(crate) fn write(&self, results: &Path) -> io::Result<PathBuf> {
        let directory = results.join(self.directory_name());
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(RECORD_FILE), format::json(self)?)?;
        self.write_pages(&directory)?;
        Ok(directory)
    }

    /// Writes what people read into a directory.
    pub(crate) fn write_pages(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join("summary.md"), summary::text(self))?;
        fs::write(directory.join("report.html"), page::html(self)?)?;
        fs::write(directory.join("chart.svg"), chart::overview(self)?)
    }

    fn keep(&mut self, key: &str, distribution: Option<Distribution>) {
        if let Some(distribution) = distribution {
            self.latencies.insert(key.to_owned(), distribution);
        }
    }

    fn directory_name(&self) -> String {
        let moment: String = self.date.chars().filter(|c| *c != ':').collect();
        let dirty = if self.source.dirty { "-dirty" } else { "" };
        format!(
            "{moment}-{}-{}{dirty}-{}",
            self.machine.host, self.source.commit, self.scenario
        )
    }
}

const RECORD_FILE: &str = "record.json";

fn named(file: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

/// Text from a server as it may stand in a line on a terminal or a page: control characters are spelled out.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// A number as people read it.
pub(crate) fn number_text(value: f64, unit: &str) -> String {
    match (unit, value) {
        ("B", value) if value >= 10_000.0 => ByteSize(rounded(value)).display().iec().to_string(),
        ("", value) => rounded(value).to_string(),
        ("µs", value) if value >= 1e6 => format!("{:.2} s", value / 1e6),
        ("µs", value) if value >= 1e4 => format!("{:.1} ms", value / 1e3),
        (unit, value) if value.abs() >= 100.0 => format!("{value:.0} {unit}"),
        (unit, value) => format!("{value:.2} {unit}"),
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

    pub(super) fn record() -> Record {
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
            Figure::of_rounds("ramp.rate", vec![400.0, 100.0, 200.0], "/s"),
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
        assert_eq!(Record::read(&directory).unwrap(), record());
        for page in ["summary.md", "report.html", "chart.svg"] {
            assert!(directory.join(page).exists(), "{page}");
        }
    }

    #[test]
    fn a_record_from_before_there_were_curves_is_read() {
        let mut value = serde_json::to_value(record()).unwrap();
        let fields = value.as_object_mut().unwrap();
        for late in ["series", "latencies", "phases"] {
            fields.remove(late).unwrap();
        }
        fields.insert("points".to_owned(), serde_json::json!([{"at_s": 1.0}]));
        assert_eq!(serde_json::from_value::<Record>(value).unwrap(), record());
    }

    #[test]
    fn a_file_that_is_no_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("other.json");
        fs::write(&file, "{}").unwrap();
        for path in [&file, directory.path()] {
            let error = Record::read(path).unwrap_err().to_string();
            assert!(error.contains(".json: "), "{error}");
        }
    }

    #[test]
    fn rounds_have_a_median_and_a_range() {
        let odd = Figure::of_rounds("k", vec![4.0, 1.0, 2.0], "");
        assert_eq!((odd.value, odd.range()), (2.0, (1.0, 4.0)));
        let even = Figure::of_rounds("k", vec![4.0, 1.0], "");
        assert_eq!(even.value, 2.5);
        let one = Figure::of_rounds("k", vec![4.0], "");
        assert_eq!((one.rounds.len(), one.range_text()), (0, None));
    }

    #[test]
    fn control_characters_of_a_server_reach_no_terminal() {
        assert_eq!(plain("a\u{1b}[2J\r\nb µ"), "a\\u{1b}[2J\\r\nb µ");
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
