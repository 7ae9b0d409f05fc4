//! Two runs side by side: what changed by more than such runs differ by chance.

pub(crate) mod change;

use std::io;
use std::path::PathBuf;

use clap::Args;

use crate::diff::change::{Change, Judgement, Noise};
use crate::report::{Figure, Record};
use crate::screen;

/// Compare the records of two runs, and say what is outside the noise
///
/// A record is the directory of a run or its record.json. A figure measured in several rounds is compared by all of
/// them: it has changed when no round of one run is within the range of the other's. A figure measured once has a range
/// of its value plus and minus --noise.
///
/// Ends with 0 when nothing became worse, with 1 when something did, with 2 when there is nothing to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiffArg {
    /// The earlier run
    pub(crate) before: PathBuf,
    /// The later run
    pub(crate) after: PathBuf,
    /// How far the same code's figures differ from run to run: a share, or a percentage
    #[arg(long, value_parser = parse_noise, default_value = "20%")]
    pub(crate) noise: Noise,
    /// Show what is within the noise as well
    #[arg(long)]
    pub(crate) all: bool,
}

/// All that can be said about two runs.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    /// Figures that both have.
    pub(crate) changes: Vec<Change>,
    /// What a reader must know: other machines, other commands, figures that only one has.
    pub(crate) notes: Vec<String>,
    /// Faults that the later run has and the earlier one had not.
    pub(crate) new_faults: Vec<String>,
}

/// Compares, and tells whether something became worse.
pub(crate) fn run(arg: &DiffArg) -> io::Result<bool> {
    let (before, after) = (Record::read(&arg.before)?, Record::read(&arg.after)?);
    let diff = Diff::of(&before, &after, arg.noise).map_err(io::Error::other)?;
    screen::print_diff(&diff, arg.all);
    Ok(diff.is_worse())
}

impl Diff {
    /// Compares two records of one scenario.
    pub(crate) fn of(before: &Record, after: &Record, noise: Noise) -> Result<Self, String> {
        if before.scenario != after.scenario {
            let names = (&before.scenario, &after.scenario);
            return Err(format!("one run is `{}`, the other `{}`", names.0, names.1));
        }
        let earlier = |figure: &&Figure| before.figure(&figure.key);
        let pairs = after.figures.iter().filter_map(|f| Some((earlier(&f)?, f)));
        let changes: Vec<_> = pairs.map(|(a, b)| Change::between(a, b, noise)).collect();
        if changes.is_empty() {
            return Err("the runs have no figure in common".to_owned());
        }
        let faults = after.faults.iter();
        Ok(Self {
            changes,
            notes: notes(before, after),
            new_faults: faults
                .filter(|fault| !before.faults.contains(fault))
                .cloned()
                .collect(),
        })
    }

    /// Whether something is worse than it was.
    pub(crate) fn is_worse(&self) -> bool {
        let mut judgements = self.changes.iter().map(|change| change.judgement);
        !self.new_faults.is_empty() || judgements.any(|j| j == Judgement::Worse)
    }
}

fn notes(before: &Record, after: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("another {what}: {a}, then {b}"));
        }
    };
    let (a, b) = (&before.machine, &after.machine);
    differ("machine", &a.host, &b.host);
    differ("processor", &a.cpu, &b.cpu);
    differ(
        "number of cores",
        &a.cores.to_string(),
        &b.cores.to_string(),
    );
    differ("kernel", &a.kernel, &b.kernel);
    differ("command", &arguments(before), &arguments(after));
    for (what, one, other) in [("before", before, after), ("after", after, before)] {
        let only = one
            .figures
            .iter()
            .filter(|f| other.figure(&f.key).is_none());
        let keys: Vec<&str> = only.map(|figure| figure.key.as_str()).collect();
        if !keys.is_empty() {
            notes.push(format!("only {what}: {}", keys.join(", ")));
        }
    }
    notes
}

/// The command line without the program: that it has moved makes no difference.
fn arguments(record: &Record) -> String {
    record.command.get(1..).unwrap_or_default().join(" ")
}

fn parse_noise(text: &str) -> Result<Noise, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if (0.0..1.0).contains(&(n / scale)) => Ok(Noise(n / scale)),
        Ok(_) | Err(_) => Err("noise is a share below 1, such as 0.2 or 20%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise(0.2);

    fn record(figures: &[(&str, f64, &str)]) -> Record {
        let mut record = Record::new("push");
        record.add(figures.iter().map(|(k, v, u)| Figure::new(*k, *v, u)));
        record
    }

    #[test]
    fn runs_of_one_build_differ_in_nothing() {
        let run = record(&[("push.rate", 1_000.0, "/s"), ("messages.lost", 0.0, "")]);
        let diff = Diff::of(&run, &run, NOISE).unwrap();
        assert!(!diff.is_worse());
        assert_eq!((diff.changes.len(), diff.notes.len()), (2, 0));
    }

    #[test]
    fn a_slower_run_is_worse_and_a_quicker_one_is_not() {
        let (slow, quick) = (
            record(&[("push.rate", 600.0, "/s")]),
            record(&[("push.rate", 1_000.0, "/s")]),
        );
        assert!(Diff::of(&quick, &slow, NOISE).unwrap().is_worse());
        assert!(!Diff::of(&slow, &quick, NOISE).unwrap().is_worse());
        assert!(!Diff::of(&quick, &slow, Noise(0.5)).unwrap().is_worse());
    }

    #[test]
    fn a_new_fault_is_worse_whatever_the_figures_say() {
        let before = record(&[("push.rate", 1_000.0, "/s")]);
        let mut after = before.clone();
        after.faults.push("3 messages lost".to_owned());
        assert!(Diff::of(&before, &after, NOISE).unwrap().is_worse());
        assert!(!Diff::of(&after, &before, NOISE).unwrap().is_worse());
    }

    #[test]
    fn what_is_not_the_same_on_both_sides_is_told() {
        let mut before = record(&[("push.rate", 1.0, "/s"), ("old", 1.0, "")]);
        let mut after = record(&[("push.rate", 1.0, "/s"), ("new", 1.0, "")]);
        (before.machine.cores, after.machine.cores) = (2, 64);
        before.command = vec!["loadtest".to_owned(), "push".to_owned()];
        after.command = vec!["elsewhere/loadtest".to_owned(), "push".to_owned()];
        let notes = Diff::of(&before, &after, NOISE).unwrap().notes;
        assert_eq!(
            notes,
            [
                "another number of cores: 2, then 64",
                "only before: old",
                "only after: new"
            ]
        );
    }

    #[test]
    fn other_scenarios_cannot_be_compared() {
        let push = record(&[("push.rate", 1.0, "/s")]);
        let mut idle = push.clone();
        idle.scenario = "idle".to_owned();
        assert!(Diff::of(&push, &idle, NOISE).is_err());
        assert!(Diff::of(&push, &record(&[("other", 1.0, "")]), NOISE).is_err());
    }

    #[test]
    fn noise_is_a_share_or_a_percentage() {
        assert_eq!(parse_noise("20%"), Ok(Noise(0.2)));
        assert_eq!(parse_noise("0.05"), Ok(Noise(0.05)));
        for bad in ["", "x", "-1%", "100%", "2", "NaN"] {
            assert!(parse_noise(bad).is_err(), "{bad}");
        }
    }
}
