//! Mixtures: a file says which scenarios run side by side, and which one after another, against one server.

mod file;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use thiserror::Error;

use crate::address::AddressBlock;
use crate::arg::CommonArg;
use crate::clock::Clock;
use crate::node::Node;
use crate::part::{Part, Running};
use crate::plan::file::PlanFile;
use crate::report::{Figure, Phase, Record};
use crate::scenario::{RunError, open_node, watch_signals};
use crate::screen::Screen;

/// What is to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The server for all of it.
    server: CommonArg,
    /// One after another.
    phases: Vec<PhasePlan>,
}

/// What runs side by side.
#[derive(Debug)]
struct PhasePlan {
    name: String,
    parts: Vec<Part>,
    /// Of all parts together.
    lines: u32,
}

/// Why a plan cannot be carried out.
#[derive(Debug, Error)]
pub(crate) enum PlanError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// Something in it is wrong, and where.
    #[error("{file}:{place}: {what}", file = file.display())]
    Mistake {
        /// The file.
        file: PathBuf,
        /// Line and column.
        place: String,
        /// What is wrong.
        what: String,
    },
}

impl Plan {
    /// Reads a plan, and finds every mistake that can be found before something runs.
    pub(crate) fn read(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| PlanError::File(path.to_owned(), error))?;
        PlanFile::parse(&text)
            .and_then(|file| file.plan(&text))
            .map_err(|mistake| PlanError::Mistake {
                file: path.to_owned(),
                place: mistake.place(&text),
                what: mistake.what,
            })
    }

    /// Carries it out.
    pub(crate) fn run(&self) -> Result<(Record, Screen), RunError> {
        let mut record = Record::new("plan");
        let screen = Screen::open();
        let is_interrupted = watch_signals()?;
        let mut node = open_node(&self.server, &[], &screen)?;
        record.notes.clone_from(&node.notes);
        let clock = Clock::start();
        let address = address_words(&node, &self.server);
        for phase in &self.phases {
            let at_s = clock.now().as_secs_f64();
            record.phases.push(Phase {
                name: phase.name.clone(),
                at_s,
            });
            phase.run(&address, at_s, &mut record)?;
            record.faults.extend(node.obituary());
            if is_interrupted.load(Ordering::Relaxed) {
                record.faults.push("interrupted".to_owned());
            }
            if !record.faults.is_empty() {
                break;
            }
        }
        if self.phases.iter().any(|phase| phase.parts.len() > 1) {
            let note = "the server's figures of a part include what it did for the parts beside it";
            record.warnings.push(note.to_owned());
        }
        node.stop()?;
        Ok((record, screen))
    }
}

impl PhasePlan {
    fn run(&self, address: &[String], at_s: f64, record: &mut Record) -> Result<(), RunError> {
        let start = |part: &Part| {
            let mut part = part.clone();
            part.words.extend_from_slice(address);
            part.start()
        };
        // Those that have started are waited for whatever becomes of the others.
        let running: Vec<io::Result<Running>> = self.parts.iter().map(start).collect();
        for (part, running) in self.parts.iter().zip(running) {
            let outcome = running.map_err(Into::into).and_then(Running::finish);
            match outcome {
                Ok(part_record) => adopt(record, part_record, &part.label, at_s),
                Err(error) => record.faults.push(format!("{}: {error}", part.label)),
            }
        }
        Ok(())
    }
}

/// How a part finds the server.
fn address_words(node: &Node, server: &CommonArg) -> Vec<String> {
    let scheme = if node.tls_names.is_some() {
        "wss"
    } else {
        "ws"
    };
    let names: BTreeSet<&str> = node.devices.iter().map(|d| d.authority.as_str()).collect();
    let devices = names
        .iter()
        .map(|name| format!("--target={scheme}://{name}"));
    let others = AddressBlock::all(&server.server.destinations);
    let others = others
        .iter()
        .map(|address| format!("--destinations={address}"));
    let ca = server
        .tls
        .tls_ca
        .iter()
        .map(|file| format!("--tls-ca={}", file.display()));
    let api = node
        .api
        .iter()
        .map(|api| format!("--api=http://{}", api.authority));
    let peer = node
        .peer
        .iter()
        .map(|peer| format!("--peer=ws://{}", peer.authority));
    let pid = node.pid.iter().map(|pid| format!("--pid={pid}"));
    let against = [format!("--against={}", server.lines.against)];
    let all = devices.chain(others).chain(ca).chain(api).chain(peer);
    all.chain(pid).chain(against).collect()
}

/// Takes a part's results over, under its label and at its time.
fn adopt(record: &mut Record, part: Record, label: &str, at_s: f64) {
    record.add(part.figures.into_iter().map(|figure| Figure {
        key: format!("{label}.{}", figure.key),
        ..figure
    }));
    let told = |text: String| format!("{label}: {text}");
    record.faults.extend(part.faults.into_iter().map(told));
    record.warnings.extend(part.warnings.into_iter().map(told));
    for (name, series) in part.series {
        let name = format!("{label}.{name}");
        record.series.insert(name, series.after(at_s));
    }
    let latencies = part.latencies.into_iter();
    record
        .latencies
        .extend(latencies.map(|(name, d)| (format!("{label}.{name}"), d)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Series;

    #[test]
    fn results_of_a_part_stand_under_its_label_and_at_its_time() {
        let mut whole = Record::new("plan");
        let mut part = Record::new("idle");
        part.add([Figure::new("ramp.rate", 9.0, "/s")]);
        part.faults.push("3 lines failed".to_owned());
        part.series
            .insert("lines.open".to_owned(), Series::of("", [(0.5, 1.0)]));
        adopt(&mut whole, part, "calm.idle", 10.0);
        assert_eq!(whole.figure("calm.idle.ramp.rate").unwrap().value, 9.0);
        assert_eq!(whole.faults, ["calm.idle: 3 lines failed"]);
        assert_eq!(whole.series["calm.idle.lines.open"].points, [(10.5, 1.0)]);
    }
}
