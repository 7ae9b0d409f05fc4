//! A scenario as part of something larger: it runs in a process of its own, so that no part inherits another's memory,
//! descriptors or signals, and several can run side by side.

use std::env;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use clap::{Parser, Subcommand as _};
use tempfile::TempDir;
use thiserror::Error;

use crate::command::Scenario;
use crate::report::Record;
use crate::screen;

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// What to call it.
    pub(crate) label: String,
    /// The scenario, and its arguments.
    pub(crate) words: Vec<String>,
}

/// A part under way.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    results: TempDir,
    said: JoinHandle<Vec<String>>,
}

/// Why a part has no record.
#[derive(Debug, Error)]
pub(crate) enum PartError {
    /// It ended without one; what it said last.
    #[error("{0}")]
    Failed(String),
    /// It could not be started or followed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Words {
    #[command(subcommand)]
    scenario: Scenario,
}

/// How its reason begins.
const ERROR: &str = "error: ";
/// What a part says before it gives up.
const LAST_WORDS_MAX: usize = 20;

impl Part {
    /// Reads the words as the command line would.
    pub(crate) fn parse(&self) -> Result<Scenario, clap::Error> {
        Words::try_parse_from(&self.words).map(|words| words.scenario)
    }

    /// The names of all arguments of a scenario; `None` if there is no such scenario.
    pub(crate) fn argument_names(scenario: &str) -> Option<Vec<String>> {
        let all = Scenario::augment_subcommands(clap::Command::new("loadtest"));
        let found = all.find_subcommand(scenario)?;
        let names = found
            .get_arguments()
            .filter_map(|argument| argument.get_long_and_visible_aliases());
        Some(names.flatten().map(str::to_owned).collect())
    }

    /// The names of all scenarios.
    pub(crate) fn scenario_names() -> Vec<String> {
        let all = Scenario::augment_subcommands(clap::Command::new("loadtest"));
        let names = all
            .get_subcommands()
            .map(|command| command.get_name().to_owned());
        names.collect()
    }

    /// Starts it; what it says is shown with its label before it.
    pub(crate) fn start(&self) -> io::Result<Running> {
        let results = tempfile::tempdir()?;
        let mut child = Command::new(env::current_exe()?)
            .args(&self.words)
            .arg("--record-dir")
            .arg(results.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let label = self.label.clone();
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            let lines = stderr
                .into_iter()
                .flat_map(|stderr| BufReader::new(stderr).lines());
            for line in lines.map_while(Result::ok) {
                screen::print_part(&label, &line);
                said.push(line);
                if said.len() > LAST_WORDS_MAX {
                    said.remove(0);
                }
            }
            said
        });
        Ok(Running {
            child,
            results,
            said,
        })
    }
}

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Record, PartError> {
        let status = self.child.wait()?;
        let said = self.said.join().unwrap_or_default();
        let mut directories = self.results.path().read_dir()?;
        match directories.next() {
            Some(directory) => Ok(Record::read(&directory?.path())?),
            None => {
                let from = said.iter().position(|line| line.starts_with(ERROR));
                let words = said[from.unwrap_or(0)..].join("\n");
                let words = words.trim_start_matches(ERROR).to_owned();
                Err(PartError::Failed(if words.is_empty() {
                    format!("it ended with {status}")
                } else {
                    words
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(words: &[&str]) -> Part {
        Part {
            label: "x".to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn words_are_read_as_the_command_line_reads_them() {
        let scenario = part(&["push", "--connections=7", "--rate=500/s"])
            .parse()
            .unwrap();
        assert_eq!(scenario.common().lines.connections, 7);
        assert!(part(&["push", "--nonsense"]).parse().is_err());
        assert!(part(&["nonsense"]).parse().is_err());
    }

    #[test]
    fn scenarios_and_their_arguments_are_known_by_name() {
        assert!(Part::scenario_names().contains(&"idle".to_owned()));
        let names = Part::argument_names("idle").unwrap();
        for name in ["connections", "ramp", "rate", "hold", "against"] {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
        assert_eq!(Part::argument_names("nonsense"), None);
    }
}
