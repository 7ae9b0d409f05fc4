//! Where a figure comes from: the machine, the moment and the source it was measured with.

use std::fs;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine a run was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Its name.
    pub(crate) host: String,
    /// The processor's model.
    pub(crate) cpu: String,
    /// Cores this process may use.
    pub(crate) cores: u32,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Kernel release.
    pub(crate) kernel: String,
}

/// The source a run was measured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Short commit, or `unknown` outside a repository.
    pub(crate) commit: String,
    /// Whether files differed from that commit.
    pub(crate) dirty: bool,
}

impl Machine {
    /// This machine.
    pub(crate) fn describe() -> Self {
        Self {
            host: first_line("/proc/sys/kernel/hostname"),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: cores(),
            memory_bytes: memory_bytes(&field("/proc/meminfo", "MemTotal")),
            kernel: first_line("/proc/sys/kernel/osrelease"),
        }
    }
}

impl Source {
    /// The repository of the working directory.
    pub(crate) fn describe() -> Self {
        let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
        Self {
            commit: git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
            dirty: changes.is_some_and(|text| !text.is_empty()),
        }
    }
}

/// Cores this process may use, at least one.
pub(crate) fn cores() -> u32 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The value of the first `name : value` line of a file.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

fn memory_bytes(total: &str) -> u64 {
    let kib = total
        .split_ascii_whitespace()
        .next()
        .and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_cores_and_memory() {
        let machine = Machine::describe();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20);
        assert_ne!(machine.kernel, "unknown");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("2048 kB"), 2 << 20);
        assert_eq!(memory_bytes("unknown"), 0);
    }
}
