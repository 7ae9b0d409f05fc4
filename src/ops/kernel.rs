//! What the kernel tells in files: numbers, memory, and the control groups that bound this process.
//!
//! One reader for the watch over memory (`ops::memory`) and for the doctor (`server::doctor`), so that both see the same bounds.

use std::path::{Path, PathBuf};

/// The files below a root, which is `/` but for tests.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

/// Bytes in use, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// In use, without what is given up for whoever needs memory.
    pub(crate) used: u64,
    /// All there is, or may be used.
    pub(crate) limit: u64,
}

impl Memory {
    /// What is used, in percent of what may be.
    pub(crate) fn percent(self) -> u8 {
        let percent = u128::from(self.used) * 100 / u128::from(self.limit.max(1));
        u8::try_from(percent).unwrap_or(u8::MAX)
    }
}

impl Files {
    /// The files below a root.
    pub(crate) fn below(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// A file's text, if it can be read.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// A file's first number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).first().copied()
    }

    /// A file's numbers; what is none ends them.
    pub(crate) fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.text(path).unwrap_or_default();
        let words = text.split_whitespace();
        words.map_while(|word| word.parse().ok()).collect()
    }

    /// The number behind a name, as in `MemAvailable:  12 kB` and `inactive_file 12`.
    pub(crate) fn field(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let word = rest.trim_start_matches(':').split_whitespace().next()?;
        word.parse().ok()
    }

    /// The names of a directory's files, in order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path));
        let entries = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// The machine's memory.
    pub(crate) fn machine_memory(&self) -> Option<Memory> {
        let bytes = |name| Some(self.field("proc/meminfo", name)? * 1024);
        let (total, available) = (bytes("MemTotal")?, bytes("MemAvailable")?);
        Some(Memory {
            used: total.saturating_sub(available),
            limit: total,
        })
    }

    /// The memory of every bounded control group that this process is in: its own, and those above it.
    pub(crate) fn group_memory(&self) -> Vec<Memory> {
        let groups = self.groups("memory");
        let bounded = groups.iter().filter_map(|group| self.memory_of(group));
        bounded.collect()
    }

    fn memory_of(&self, group: &str) -> Option<Memory> {
        let file = |name: &str| format!("{group}/{name}");
        let first_of = |names: [&str; 2]| names.iter().find_map(|name| self.number(&file(name)));
        let limit = first_of(["memory.max", "memory.limit_in_bytes"])?;
        let used = first_of(["memory.current", "memory.usage_in_bytes"])?;
        // Pages of files that nobody looks at are given up for whoever needs memory.
        let stat = file("memory.stat");
        let reclaimable = self.field(&stat, "total_inactive_file ");
        let reclaimable = reclaimable.or_else(|| self.field(&stat, "inactive_file "));
        Some(Memory {
            used: used.saturating_sub(reclaimable.unwrap_or(0)),
            limit,
        })
    }

    /// The directories of this process's control group and of those above it, for one controller.
    pub(crate) fn groups(&self, controller: &str) -> Vec<String> {
        let Some((base, group)) = self.group(controller) else {
            return Vec::new();
        };
        let ancestors = Path::new(group.trim_start_matches('/')).ancestors();
        let below = |path: &Path| format!("{base}/{}", path.display());
        ancestors.map(below).collect()
    }

    /// Where the controller's groups are mounted, and this process's own. A controller that stands in a line of its own
    /// is of the first version.
    fn group(&self, controller: &str) -> Option<(String, String)> {
        let text = self.text("proc/self/cgroup")?;
        let mut unified = None;
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, group) = (parts.next()?, parts.next()?);
            if controllers.is_empty() {
                unified = Some(group);
            } else if controllers.split(',').any(|name| name == controller) {
                let base = format!("sys/fs/cgroup/{controllers}");
                return Some((base, group.into()));
            }
        }
        Some(("sys/fs/cgroup".into(), unified?.into()))
    }
}
