//! What a node holds at one moment: memory, descriptors, gauges. Trouble that is over has left nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::deadline::{Deadline, PATIENCE, pause};
use crate::node::Node;

/// What was counted.
#[derive(Debug)]
pub(crate) struct Census {
    memory: u64,
    /// Open descriptors by thread: each reactor has a table of its own.
    descriptors: BTreeMap<String, usize>,
    gauges: BTreeMap<String, f64>,
}

impl Census {
    /// Counts a node on which nothing is under way.
    pub(crate) fn of_quiet(node: &Node) -> Self {
        let deadline = Deadline::after(PATIENCE);
        let mut last = Self::of(node);
        loop {
            pause(LOOK_AGAIN);
            let census = Self::of(node);
            let busy = census.busy();
            let is_steady = census.differences(&last).is_empty();
            if busy.is_empty() && is_steady {
                return census;
            }
            assert!(!deadline.has_passed(), "not quiet: {busy:?}");
            last = census;
        }
    }

    fn of(node: &Node) -> Self {
        // Descriptors first: a scrape takes one.
        let descriptors = descriptors(node.pid());
        Self {
            gauges: gauges(&node.ops("/metrics").text()),
            memory: node.memory(),
            descriptors,
        }
    }

    /// The gauges that show something under way.
    fn busy(&self) -> Vec<(&str, f64)> {
        let of_moment = |name: &str| self.gauges.get(name).copied().unwrap_or_default();
        MOMENTARY
            .map(|name| (name, of_moment(name)))
            .into_iter()
            .filter(|(_, value)| *value != 0.0)
            .collect()
    }

    /// Waits until the node holds what it held: descriptors and gauges exactly, memory but for [`MEMORY_TOLERANCE`].
    #[track_caller]
    pub(crate) fn await_return(&self, node: &Node) {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let now = Self::of(node);
            let differences = self.differences(&now);
            if differences.is_empty() {
                let (before, after) = (self.memory >> 10, now.memory >> 10);
                println!("census: back, memory from {before} to {after} KiB");
                return;
            }
            assert!(
                !deadline.has_passed(),
                "not back where it was: {}",
                differences.join("; ")
            );
            pause(LOOK_AGAIN);
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let grown = now.memory.saturating_sub(self.memory);
        if grown > MEMORY_TOLERANCE {
            differences.push(format!("memory grew by {grown} bytes from {}", self.memory));
        }
        // A thread that has ended, as idle ones of the runtime do, holds nothing.
        let mut open = self.descriptors.clone();
        open.retain(|thread, _| now.descriptors.contains_key(thread));
        compare("descriptors", &open, &now.descriptors, &mut differences);
        compare("gauge", &self.gauges, &now.gauges, &mut differences);
        differences
    }
}

fn compare<T: Copy + PartialEq + std::fmt::Debug>(
    what: &str,
    before: &BTreeMap<String, T>,
    now: &BTreeMap<String, T>,
    differences: &mut Vec<String>,
) {
    for (name, was) in before {
        let is = now.get(name);
        if is != Some(was) {
            differences.push(format!("{what} {name}: {was:?} before, now {is:?}"));
        }
    }
}

/// The gauges of a scrape, but for memory, which the kernel tells better.
fn gauges(page: &str) -> BTreeMap<String, f64> {
    let mut gauges = BTreeMap::new();
    let mut name = "";
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            name = declared.strip_suffix(" gauge").unwrap_or_default();
        } else if let Some((series, value)) = line.rsplit_once(' ')
            && !line.starts_with('#')
            && !name.is_empty()
            && !NOT_COUNTED.contains(&name)
        {
            gauges.insert(series.to_owned(), value.parse().unwrap());
        }
    }
    assert!(gauges.len() > MOMENTARY.len(), "no gauges: {page}");
    gauges
}

/// Open descriptors of each thread. A thread that ends while it is looked at has none.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let paths = tasks.map(|task| task.unwrap().path());
    paths.filter_map(|task| thread(&task)).collect()
}

fn thread(task: &Path) -> Option<(String, usize)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let open = fs::read_dir(task.join("fd")).ok()?.count();
    let id = task.file_name()?.to_string_lossy().into_owned();
    Some((format!("{} ({id})", name.trim()), open))
}

/// What a node may keep of its own memory after trouble: the allocator's arenas, tables that have grown, code paths
/// run for the first time. An attack that is to show itself must be able to pin more.
pub(crate) const MEMORY_TOLERANCE: u64 = 8 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Gauges that are 0 while nothing is under way.
const MOMENTARY: [&str; 4] = [
    "tautline_handshakes",
    "tautline_outbox_bytes",
    "tautline_undelivered",
    "tautline_messages_imbalance",
];
const NOT_COUNTED: [&str; 1] = ["tautline_memory_bytes"];
