//! Several runs of one scenario as one: what generators side by side have seen of one server.
//!
//! Their latencies come together as histograms, so that a percentile is that of all messages. What else can be said of
//! all together is for [`Rule`] to say; the rest is named and left to the records that are merged.

mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use thiserror::Error;

use crate::arg::RecordArg;
use crate::latency::Latency;
use crate::merge::rule::Rule;
use crate::report::{Figure, Record};
use crate::scenario::returning::back_figures;

/// Make one record of several runs of a scenario: what generators side by side have seen of one server
///
/// A record is the directory of a run or its record.json. Percentiles are those of all latencies together, counts and rates
/// of lines and messages are added, faults and warnings kept. What is about the server or a machine is left out.
///
/// Ends with 1 when one of the runs has failed, with 2 when they cannot be merged.
#[derive(Clone, Debug, Args)]
pub(crate) struct MergeArg {
    /// The runs
    #[arg(required = true, num_args = 2.., value_name = "RECORD")]
    pub(crate) runs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) record: RecordArg,
}

/// Why runs cannot be merged.
#[derive(Debug, Error)]
pub(crate) enum MergeError {
    /// One is no record.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// They have nothing in common.
    #[error("{0} is a run of `{1}`, and {2} one of `{3}`: merge those of one scenario, each apart")]
    Scenario(PathBuf, String, PathBuf, String),
    /// It would count twice.
    #[error("{0} is the same run as {1}: name each once")]
    Same(PathBuf, PathBuf),
    /// There are percentiles, which cannot be added.
    #[error(
        "{0}: there is no histogram of `{1}`, as in records of earlier versions: measure again"
    )]
    NoHistogram(PathBuf, String),
    /// It is not what this program has written.
    #[error("{0}: the histogram of `{1}` cannot be read: {2}")]
    BadHistogram(PathBuf, String, String),
    /// It holds medians of runs and no run.
    #[error("{0} is a comparison, and no run")]
    Comparison(PathBuf),
}

/// One of the runs.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    record: Record,
    latencies: BTreeMap<String, Latency>,
}

/// What all runs have together.
#[derive(Debug)]
struct Sum {
    latencies: BTreeMap<String, Latency>,
    /// Every figure once, with the sum of all runs.
    figures: Vec<Figure>,
}

/// Reads the runs and merges them.
pub(crate) fn run(arg: &MergeArg) -> Result<Record, MergeError> {
    let parts = arg.runs.iter().map(|path| Part::read(path));
    let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
    for (n, part) in parts.iter().enumerate() {
        parts[..n]
            .iter()
            .try_for_each(|earlier| part.check_beside(earlier))?;
    }
    let (first, rest) = parts.split_first().ok_or_else(|| {
        // The command line has two at least.
        io::Error::from(io::ErrorKind::InvalidInput)
    })?;
    Ok(merge(first, rest))
}

fn merge(first: &Part, rest: &[Part]) -> Record {
    let parts: Vec<&Part> = std::iter::once(first).chain(rest).collect();
    let mut whole = Record {
        source: first.record.source.clone(),
        machine: first.record.machine.clone(),
        ..Record::new(&first.record.scenario)
    };
    for (n, part) in parts.iter().enumerate() {
        part.adopt_into(&mut whole, n + 1);
    }
    let sum = Sum::of(&parts);
    let left_out = sum.figures_into(&mut whole);
    sum.latencies_into(&mut whole, &parts);
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        whole.notes.push(format!(
            "left out, because it is about the server or a machine, or is no sum: {names}"
        ));
    }
    if !are_simultaneous(&parts) {
        let text = "the runs were not at the same time: rates and percentiles are of no one load";
        whole.warnings.push(text.to_owned());
    }
    whole
}

impl Part {
    /// Reads one that can be merged with others.
    fn read(path: &Path) -> Result<Self, MergeError> {
        let record = Record::read(path)?;
        let path = path.to_owned();
        if record.scenario == "compare" {
            return Err(MergeError::Comparison(path));
        }
        let mut latencies = BTreeMap::new();
        for (name, distribution) in &record.latencies {
            let Some(text) = &distribution.histogram else {
                return Err(MergeError::NoHistogram(path, name.clone()));
            };
            let latency = Latency::decode(text)
                .map_err(|why| MergeError::BadHistogram(path.clone(), name.clone(), why))?;
            latencies.insert(name.clone(), latency);
        }
        let percentiles = record.figures.iter().filter_map(rule::latency_of);
        let bare = percentiles.filter(|name| !latencies.contains_key(*name));
        if let Some(name) = bare.map(str::to_owned).next() {
            return Err(MergeError::NoHistogram(path, name));
        }
        Ok(Self {
            path,
            record,
            latencies,
        })
    }

    fn check_beside(&self, other: &Self) -> Result<(), MergeError> {
        let (path, earlier) = (self.path.clone(), other.path.clone());
        let names = [&self.record.scenario, &other.record.scenario].map(Clone::clone);
        let [own, others] = names;
        if own != others {
            return Err(MergeError::Scenario(path, own, earlier, others));
        }
        if self.record == other.record {
            return Err(MergeError::Same(path, earlier));
        }
        Ok(())
    }

    /// Says who it is, and hands over what is no number of all together, under its place.
    fn adopt_into(&self, whole: &mut Record, place: usize) {
        let Record {
            machine,
            source,
            date,
            command,
            ..
        } = &self.record;
        whole.notes.push(format!(
            "{place} is {}: {date}, {} at {}, `{}`",
            self.path.display(),
            machine.host,
            source.commit,
            command.join(" ")
        ));
        let own = |texts: &[String]| -> Vec<String> {
            let texts = texts.iter();
            texts.map(|text| format!("{place}: {text}")).collect()
        };
        whole.notes.extend(own(&self.record.notes));
        whole.faults.extend(own(&self.record.faults));
        whole.warnings.extend(own(&self.record.warnings));
        let curves = self.record.series.iter();
        whole
            .series
            .extend(curves.map(|(name, curve)| (format!("{place}.{name}"), curve.clone())));
    }

    /// From when to when it went on, as far as it says.
    fn time(&self) -> Option<(SystemTime, SystemTime)> {
        let start = humantime::parse_rfc3339(&self.record.date).ok()?;
        let curves = self.record.series.values();
        let ends = curves.filter_map(|curve| Some(curve.points.last()?.0));
        let phases = self.record.phases.iter().map(|phase| phase.at_s);
        let seconds = ends.chain(phases).fold(0.0, f64::max);
        Some((start, start + Duration::try_from_secs_f64(seconds).ok()?))
    }
}

impl Sum {
    fn of(parts: &[&Part]) -> Self {
        let mut latencies: BTreeMap<String, Latency> = BTreeMap::new();
        let mut figures: Vec<Figure> = Vec::new();
        for part in parts {
            for (name, latency) in &part.latencies {
                latencies.entry(name.clone()).or_default().merge(latency);
            }
            for figure in &part.record.figures {
                match figures.iter_mut().find(|sum| sum.key == figure.key) {
                    Some(sum) => sum.value += figure.value,
                    None => figures.push(Figure::new(&*figure.key, figure.value, &figure.unit)),
                }
            }
        }
        Self { latencies, figures }
    }

    /// Adds the figures that all have together, and names the others.
    fn figures_into(&self, whole: &mut Record) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut seen = BTreeSet::new();
        for figure in &self.figures {
            match Rule::of(figure, &self.latencies) {
                Rule::Add => whole.add([figure.clone()]),
                Rule::Percentiles(name) => {
                    if seen.insert(name) {
                        whole.add(self.latencies[name].figures(name));
                    }
                }
                Rule::Back(word) => {
                    if seen.insert(word) {
                        whole.add(self.back(word));
                    }
                }
                Rule::LeaveOut => left_out.push(figure.key.clone()),
            }
        }
        left_out
    }

    fn back(&self, word: &str) -> Vec<Figure> {
        let lines = |name: &str| {
            let key = format!("{word}.{name}");
            let found = self.figures.iter().find(|figure| figure.key == key);
            found.map_or(0, Figure::whole)
        };
        let back = &self.latencies[&rule::back_latency(word)];
        back_figures(word, back, lines("lines_ended"), lines("lines_back"))
    }

    /// A plot shows what it has shown of one of the runs.
    fn latencies_into(&self, whole: &mut Record, parts: &[&Part]) {
        for (name, latency) in &self.latencies {
            let kept = parts
                .iter()
                .filter_map(|part| part.record.latencies.get(name));
            let mut kept = kept.map(|distribution| &distribution.percentiles);
            if kept.any(|percentiles| !percentiles.is_empty()) {
                whole.keep_distribution(name, latency);
            } else {
                whole.keep_histogram(name, latency);
            }
        }
    }
}

/// Whether there was a moment at which all went on, as far as that is known.
fn are_simultaneous(parts: &[&Part]) -> bool {
    let times: Option<Vec<_>> = parts.iter().map(|part| part.time()).collect();
    let times = times.unwrap_or_default();
    let last_start = times.iter().map(|(start, _)| start).max();
    let first_end = times.iter().map(|(_, end)| end).min();
    last_start <= first_end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A storm whose lines were back after these times, in milliseconds, and one more was not.
    fn storm(date: &str, back: &[u64]) -> Part {
        let mut record = Record::new("storm");
        record.date = date.to_owned();
        let lines = back.len() as f64;
        record.add([
            Figure::new("storm.back_50", 0.001, "s"),
            Figure::new("storm.return_rate", 7.0, "/s"),
            Figure::new("storm.lines_ended", lines + 1.0, ""),
            Figure::new("storm.lines_back", lines, ""),
            Figure::new("server.rss", 9.0, "B"),
        ]);
        record.faults.push("1 lines did not come back".to_owned());
        let mut latency = Latency::new();
        let times = back.iter().map(|ms| Duration::from_millis(*ms));
        times.for_each(|time| latency.record(time));
        Part {
            path: PathBuf::from(date),
            record,
            latencies: BTreeMap::from([("storm.back".to_owned(), latency)]),
        }
    }

    #[test]
    fn a_share_of_the_lines_is_one_of_all_lines() {
        let now = "2026-01-01T00:00:00Z";
        let whole = merge(&storm(now, &[1, 2]), &[storm(now, &[500, 1_000])]);
        let figure = |key: &str| whole.figure(key).map(|figure| figure.value);
        assert_eq!(figure("storm.lines_ended"), Some(6.0));
        let half = figure("storm.back_50").unwrap();
        assert!((0.5..0.501).contains(&half), "{half}");
        assert_eq!(figure("storm.back_90"), None, "two of six were not back");
        let rate = figure("storm.return_rate").unwrap();
        assert!((3.9..=4.0).contains(&rate), "{rate}");
        assert_eq!(figure("server.rss"), None);
        assert!(whole.notes.concat().contains("server.rss"));
        let faults = [1, 2].map(|n| format!("{n}: 1 lines did not come back"));
        assert_eq!(whole.faults, faults);
        assert!(whole.warnings.is_empty(), "{:?}", whole.warnings);
        assert!(whole.latencies["storm.back"].percentiles.is_empty());
    }

    #[test]
    fn runs_one_after_the_other_are_told() {
        let [first, then] = ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"];
        let whole = merge(&storm(first, &[1]), &[storm(then, &[1])]);
        assert!(whole.warnings.concat().contains("not at the same time"));
    }
}
