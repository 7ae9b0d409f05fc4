//! The same scenarios against us and against others, in turn, on one machine.
//!
//! Each measurement is a run of its own with a server of its own; in every round another make comes first, so that what
//! a machine does over time meets all of them. What cannot be measured is a fault of the comparison: it is never left
//! out in silence.

pub(crate) mod table;
mod yardstick;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use crate::arg::RecordArg;
use crate::compare::table::Table;
use crate::compare::yardstick::{TRIALS, Yardstick};
use crate::descriptor;
use crate::machine;
use crate::make::Make;
use crate::node::rival::store::Store;
use crate::part::Part;
use crate::report::Record;
use crate::scenario::{RunError, watch_signals};
use crate::screen;

/// Measure us and others by the same scenarios, in rotated rounds
///
/// Nothing is fetched unless --install says so. The record has what each make ran with. Ends with 0 when all makes could
/// be measured and ours made no mistake; what others lose is told as a warning.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArg {
    /// Whom to compare with
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "nchan,nchan-default,axum,bun"
    )]
    pub(crate) rivals: Vec<Make>,
    /// How often to measure each
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Lines; others have one table of descriptors for all of them
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..), default_value_t = 19_000)]
    pub(crate) connections: u32,
    /// How long to hold the lines with heartbeats
    #[arg(long, value_parser = humantime::parse_duration, default_value = "45s")]
    pub(crate) hold: Duration,
    /// Silence after which every server pings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s")]
    pub(crate) ping_after: Duration,
    /// How long to push
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// Keep-alive connections that push, each with one unanswered message
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 16)]
    pub(crate) senders: u32,
    /// Threads of each server [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: Option<u32>,
    /// What to compare by [default: all that others can take part in]
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(TRIALS))]
    pub(crate) trials: Vec<String>,
    /// Fetch what is missing first
    #[arg(long)]
    pub(crate) install: bool,
    /// Our server, instead of building it
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// The server on axum, instead of building it
    #[arg(long, value_name = "PATH")]
    pub(crate) axum_server: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) record: RecordArg,
}

/// Lines that a server with one table of descriptors cannot have: it has other files as well.
const OTHER_FILES: u32 = 1_000;

/// Runs the comparison.
pub(crate) fn run(arg: &CompareArg) -> Result<Record, RunError> {
    check_room(arg)?;
    let mut record = Record::new("compare");
    record.notes.push(terms(arg));
    if arg.install {
        install(&arg.rivals, &mut record);
    }
    let is_interrupted = watch_signals()?;
    let makes = makes(arg);
    let mut table = Table::new(&makes);
    for round in 0..arg.rounds {
        for make in rotated(&makes, round) {
            for trial in trials(arg) {
                if is_interrupted.load(Ordering::Relaxed) {
                    record.faults.push("interrupted".to_owned());
                    return Ok(finish(table, record, arg));
                }
                let part = part(arg, make, trial, round);
                let outcome = part
                    .start()
                    .map_err(Into::into)
                    .and_then(|running| running.finish());
                table.take(make, trial, outcome);
            }
        }
    }
    Ok(finish(table, record, arg))
}

fn finish(table: Table, mut record: Record, arg: &CompareArg) -> Record {
    table.judge(&mut record, &trials(arg));
    screen::print_comparison(&table, &record);
    record
}

/// Ours first, and each once.
fn makes(arg: &CompareArg) -> Vec<Make> {
    let mut makes = vec![Make::Tautline];
    for rival in &arg.rivals {
        if !makes.contains(rival) {
            makes.push(*rival);
        }
    }
    makes
}

fn rotated(makes: &[Make], round: u32) -> Vec<Make> {
    let mut makes = makes.to_vec();
    let turn = round as usize % makes.len();
    makes.rotate_left(turn);
    makes
}

fn trials(arg: &CompareArg) -> Vec<&'static str> {
    let is_asked = |name: &&str| arg.trials.is_empty() || arg.trials.iter().any(|t| t == name);
    TRIALS.into_iter().filter(is_asked).collect()
}

fn threads(arg: &CompareArg) -> u32 {
    arg.threads.unwrap_or_else(machine::cores)
}

fn part(arg: &CompareArg, make: Make, trial: &str, round: u32) -> Part {
    let mut words = Yardstick::words(trial, make, arg);
    words.extend([
        format!("--against={make}"),
        format!("--connections={}", arg.connections),
        format!("--reactors={}", threads(arg)),
    ]);
    let program = match make {
        Make::Tautline => arg.server.as_ref(),
        Make::Axum => arg.axum_server.as_ref(),
        Make::Nchan | Make::NchanDefault | Make::Bun | Make::Centrifugo | Make::Raw => None,
    };
    words.extend(program.map(|path| format!("--server={}", path.display())));
    Part {
        label: format!("{make} {trial} {}/{}", round + 1, arg.rounds),
        words,
    }
}

fn check_room(arg: &CompareArg) -> Result<(), RunError> {
    let limit = descriptor::limit()?;
    let room = limit.saturating_sub(OTHER_FILES);
    if arg.connections > room {
        return Err(RunError::Room(arg.connections, room, limit));
    }
    Ok(())
}

fn terms(arg: &CompareArg) -> String {
    format!(
        "every server has {} threads or processes unless noted below, pings after {} of silence, writes no access log, \
         and has {} lines; the generator is the same process image with the same arguments on the same machine, and \
         shares the cores with the server, which is why costs are CPU time of the server's processes and not rates. \
         Memory of a server with several processes is their proportional share (PSS). {} rounds, each beginning with \
         the next make.",
        threads(arg),
        humantime::format_duration(arg.ping_after),
        arg.connections,
        arg.rounds,
    )
}

/// Who cannot be fetched shows up as a fault when it is measured; why is told here.
fn install(rivals: &[Make], record: &mut Record) {
    for rival in rivals {
        match Store::open().install(*rival) {
            Ok(true) => record
                .notes
                .push(format!("{rival} was fetched for this run")),
            Ok(false) => {}
            Err(error) => record
                .faults
                .push(format!("{rival} cannot be fetched: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arg: CompareArg,
    }

    fn arg(words: &[&str]) -> CompareArg {
        Line::parse_from([&["x"], words].concat()).arg
    }

    #[test]
    fn every_round_begins_with_another_make_and_has_all() {
        let arg = arg(&["--rivals=axum,bun,axum,tautline"]);
        let makes = makes(&arg);
        assert_eq!(makes, [Make::Tautline, Make::Axum, Make::Bun]);
        let firsts: Vec<_> = (0..4).map(|round| rotated(&makes, round)[0]).collect();
        assert_eq!(
            firsts,
            [Make::Tautline, Make::Axum, Make::Bun, Make::Tautline]
        );
        assert!((0..4).all(|round| rotated(&makes, round).len() == 3));
    }

    #[test]
    fn every_part_is_a_command_line_that_can_be_read() {
        let arg = arg(&["--server=/x/ours", "--axum-server=/x/theirs"]);
        for make in makes(&arg) {
            for trial in trials(&arg) {
                let part = part(&arg, make, trial, 0);
                let read = part.parse().unwrap_or_else(|e| panic!("{part:?}: {e}"));
                assert_eq!(read.common().lines.against, make);
                let program = read.common().server.server.clone();
                let is_given = matches!(make, Make::Tautline | Make::Axum);
                assert_eq!(program.is_some(), is_given, "{make}");
            }
        }
    }

    #[test]
    fn trials_can_be_chosen() {
        assert_eq!(trials(&arg(&["--trials=push"])), ["push"]);
        assert_eq!(trials(&arg(&[])), TRIALS);
    }
}
