//! How much memory the process uses, and of how much.
//!
//! Most of what a line takes is the kernel's, which no count of ours sees. So where nothing else is configured the bound is the
//! control group's, if there is one, and the machine's otherwise: both count sockets too.

use std::path::Path;

/// Memory in use, and how much may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    used_bytes: u64,
    limit_bytes: u64,
}

impl Usage {
    /// The process against a configured bound.
    pub(crate) fn of_process(limit_bytes: u64) -> Option<Self> {
        Some(Self {
            used_bytes: resident_bytes()?,
            limit_bytes,
        })
    }

    /// The control group against its bound, else the machine. `root` is `/`, but for tests.
    pub(crate) fn of_surroundings(root: &Path) -> Option<Self> {
        Self::of_group(root).or_else(|| Self::of_machine(root))
    }

    /// What is used, in percent of what may be.
    pub(crate) fn percent(self) -> u8 {
        let percent = u128::from(self.used_bytes) * 100 / u128::from(self.limit_bytes.max(1));
        u8::try_from(percent).unwrap_or(u8::MAX)
    }

    /// Control groups of version 2. Cached files give way before anybody is killed, so they do not count as used.
    fn of_group(root: &Path) -> Option<Self> {
        let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let directory = root.join("sys/fs/cgroup").join(group);
        let read = |name| std::fs::read_to_string(directory.join(name)).ok();
        let limit_bytes = read("memory.max")?.trim().parse().ok()?;
        let current: u64 = read("memory.current")?.trim().parse().ok()?;
        let files = read("memory.stat")
            .and_then(|stat| field(&stat, "inactive_file "))
            .unwrap_or(0);
        Some(Self {
            used_bytes: current.saturating_sub(files),
            limit_bytes,
        })
    }

    fn of_machine(root: &Path) -> Option<Self> {
        let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let limit_bytes = field(&meminfo, "MemTotal:")?;
        let available = field(&meminfo, "MemAvailable:")?;
        Some(Self {
            used_bytes: limit_bytes.saturating_sub(available),
            limit_bytes,
        })
    }
}

/// Resident memory of the process, if the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(field(&status, "VmRSS:")? * 1024)
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n",
    );
    const GROUP: (&str, &str) = ("proc/self/cgroup", "1:cpu:/old\n0::/a.slice/b.service\n");

    #[test]
    fn a_bounded_group_comes_before_the_machine() {
        let root = root(&[
            MEMINFO,
            GROUP,
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "1000\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.current", "950\n"),
            (
                "sys/fs/cgroup/a.slice/b.service/memory.stat",
                "anon 1\ninactive_file 50\n",
            ),
        ]);
        let usage = Usage::of_surroundings(root.path()).unwrap();
        assert_eq!(usage.percent(), 90);
    }

    #[test]
    fn without_a_bound_on_the_group_the_machine_counts() {
        let unbounded = ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
        for files in [&[MEMINFO][..], &[MEMINFO, GROUP, unbounded]] {
            let root = root(files);
            let usage = Usage::of_surroundings(root.path()).unwrap();
            assert_eq!(usage.percent(), 75);
        }
    }

    #[test]
    fn the_process_is_measured_against_what_is_configured() {
        assert_eq!(Usage::of_process(1).unwrap().percent(), u8::MAX);
        assert_eq!(Usage::of_process(u64::MAX).unwrap().percent(), 0);
    }
}
