//! What the kernel says of this machine and this process: files below a root, and what no file tells.

use std::path::{Path, PathBuf};

use crate::net::fdtable::{FdTable, descriptors_max};

/// The machine, as this process sees it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    root: PathBuf,
    /// What no file tells.
    pub(super) process: Process,
}

/// What this process may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    /// Cores it may run on: affinity, cpusets and quotas counted.
    pub(super) cores: u16,
    /// Descriptors one table may hold.
    pub(super) descriptors: u64,
    /// How a thread comes by a table of its own.
    pub(super) table: FdTable,
}

/// Memory that may still be used, and whose limit that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headroom {
    /// Bytes that are left.
    pub(super) bytes: u64,
    /// A control group has the last word, not the machine.
    pub(super) is_grouped: bool,
}

impl Machine {
    /// This one. The soft limit on descriptors should have been raised before.
    pub(crate) fn of_this_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let process = Process {
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            descriptors: descriptors_max(),
            table: FdTable::probe(),
        };
        Self::new(Path::new("/"), process)
    }

    /// A machine whose `proc`, `sys` and `etc` are below a root.
    pub(super) fn new(root: &Path, process: Process) -> Self {
        Self {
            root: root.into(),
            process,
        }
    }

    /// Cores it may run on.
    pub(crate) fn cores(&self) -> u16 {
        self.process.cores
    }

    /// Descriptors one table may hold.
    pub(crate) fn descriptors(&self) -> u64 {
        self.process.descriptors
    }

    /// A file's text, if it can be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// A file's first number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).first().copied()
    }

    /// A file's numbers; what is none ends them.
    pub(super) fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.text(path).unwrap_or_default();
        let words = text.split_whitespace();
        words.map_while(|word| word.parse().ok()).collect()
    }

    /// The number behind a name, as in `MemAvailable:  12 kB` and `inactive_file 12`.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let word = rest.trim_start_matches(':').split_whitespace().next()?;
        word.parse().ok()
    }

    /// The names of a directory's files, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path));
        let entries = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Memory that is left until so many percent of it are used: of the machine's, and of the limit of every control group
    /// above this process.
    pub(super) fn memory(&self, percent: u8) -> Option<Headroom> {
        let groups = self.groups("memory").into_iter();
        let grouped = groups.filter_map(|group| self.group_memory(&group));
        let grouped = grouped.map(|usage| (usage, true));
        let machine = self.machine_memory().map(|usage| (usage, false));
        let left = machine
            .into_iter()
            .chain(grouped)
            .map(|((used, limit), is_grouped)| {
                let limit = u128::from(limit) * u128::from(percent) / 100;
                let limit = u64::try_from(limit).unwrap_or(u64::MAX);
                let bytes = limit.saturating_sub(used);
                Headroom { bytes, is_grouped }
            });
        left.min_by_key(|left| left.bytes)
    }

    /// Cores that a control group's quota comes to, in hundredths; `None` without a quota.
    pub(super) fn quota_percent(&self) -> Option<u64> {
        let quota = |group: String| {
            let (quota, period) = match self.numbers(&format!("{group}/cpu.max"))[..] {
                [quota, period, ..] => (quota, period),
                // The first version's files; "-1" is no number here, and no quota.
                _ => (
                    self.number(&format!("{group}/cpu.cfs_quota_us"))?,
                    self.number(&format!("{group}/cpu.cfs_period_us"))?,
                ),
            };
            (quota * 100).checked_div(period)
        };
        self.groups("cpu").into_iter().filter_map(quota).min()
    }

    /// What is used, and of how much.
    fn machine_memory(&self) -> Option<(u64, u64)> {
        let bytes = |name| Some(self.field("proc/meminfo", name)? * 1024);
        let (total, available) = (bytes("MemTotal")?, bytes("MemAvailable")?);
        Some((total.saturating_sub(available), total))
    }

    fn group_memory(&self, group: &str) -> Option<(u64, u64)> {
        let file = |name: &str| format!("{group}/{name}");
        let first_of = |names: [&str; 2]| names.iter().find_map(|name| self.number(&file(name)));
        let limit = first_of(["memory.max", "memory.limit_in_bytes"])?;
        let used = first_of(["memory.current", "memory.usage_in_bytes"])?;
        // Pages of files that nobody looks at are given up for whoever needs memory.
        let stat = file("memory.stat");
        let reclaimable = self.field(&stat, "total_inactive_file ");
        let reclaimable = reclaimable.or_else(|| self.field(&stat, "inactive_file "));
        Some((used.saturating_sub(reclaimable.unwrap_or(0)), limit))
    }

    /// The directories of this process's control group and of those above it, for one controller.
    fn groups(&self, controller: &str) -> Vec<String> {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine made of files.
    pub(in crate::server::doctor) struct Fake {
        dir: tempfile::TempDir,
        pub(in crate::server::doctor) process: Process,
    }

    impl Fake {
        pub(in crate::server::doctor) fn new(files: &[(&str, &str)]) -> Self {
            let process = Process {
                cores: 2,
                descriptors: 1_000_000,
                table: FdTable::Unshared,
            };
            let dir = tempfile::tempdir().unwrap();
            let fake = Self { dir, process };
            for (path, content) in files {
                fake.write(path, content);
            }
            fake
        }

        pub(in crate::server::doctor) fn write(&self, path: &str, content: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        pub(in crate::server::doctor) fn machine(&self) -> Machine {
            Machine::new(self.dir.path(), self.process)
        }
    }

    fn headroom(fake: &Fake) -> Option<(u64, bool)> {
        let left = fake.machine().memory(100);
        left.map(|left| (left.bytes, left.is_grouped))
    }

    #[test]
    fn memory_is_the_machines_without_groups() {
        assert_eq!(headroom(&Fake::new(&[])), None);
        let fake = Fake::new(&[("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   7 kB\n")]);
        assert_eq!(headroom(&fake), Some((7_168, false)));
        // 2 KiB of 9 are in use, so 4.3 are left until 70 % are.
        let left = fake.machine().memory(70).unwrap();
        assert_eq!(left.bytes, 9_216 * 70 / 100 - 2_048);
    }

    #[test]
    fn the_narrowest_group_above_a_process_has_the_last_word() {
        let fake = Fake::new(&[
            ("proc/meminfo", "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n"),
            ("proc/self/cgroup", "0::/system.slice/tautline.service\n"),
            (
                "sys/fs/cgroup/system.slice/tautline.service/memory.max",
                "max\n",
            ),
            (
                "sys/fs/cgroup/system.slice/tautline.service/memory.current",
                "5\n",
            ),
            ("sys/fs/cgroup/system.slice/memory.max", "9000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "4000\n"),
            (
                "sys/fs/cgroup/system.slice/memory.stat",
                "anon 1\ninactive_file 1500\n",
            ),
        ]);
        assert_eq!(headroom(&fake), Some((6_500, true)));
        fake.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 1 kB\n");
        assert_eq!(headroom(&fake), Some((1_024, false)));
    }

    #[test]
    fn groups_of_the_first_version_count_as_well() {
        let fake = Fake::new(&[
            (
                "proc/self/cgroup",
                "9:name=systemd:/\n4:memory:/box\n1:cpu,cpuacct:/\n0::/\n",
            ),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "3000\n"),
            (
                "sys/fs/cgroup/memory/box/memory.stat",
                "total_inactive_file 500\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(headroom(&fake), Some((2_500, true)));
        assert_eq!(fake.machine().quota_percent(), None);
        fake.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
        assert_eq!(fake.machine().quota_percent(), Some(250));
    }

    #[test]
    fn a_quota_is_read_where_there_is_one() {
        let fake = Fake::new(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(fake.machine().quota_percent(), None);
        fake.write("sys/fs/cgroup/cpu.max", "150000 100000\n");
        assert_eq!(fake.machine().quota_percent(), Some(150));
        fake.write("sys/fs/cgroup/cpu.max", "150000 0\n");
        assert_eq!(fake.machine().quota_percent(), None);
    }

    #[test]
    fn nonsense_is_as_good_as_nothing() {
        let fake = Fake::new(&[
            ("proc/meminfo", "MemAvailable: lots\n"),
            ("proc/self/cgroup", "nonsense\n\n:::\n"),
        ]);
        assert_eq!(headroom(&fake), None);
        assert_eq!(fake.machine().number("proc/meminfo"), None);
    }
}
