//! What the kernel says of this machine and this process: its files (`ops::kernel`), and what no file tells.

use std::path::Path;

use crate::net::fdtable::{FdTable, descriptors_max};
use crate::ops::kernel::Files;

/// The machine, as this process sees it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What the kernel tells in files.
    pub(super) files: Files,
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
            files: Files::below(root),
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

    /// Memory that is left until so many percent of it are used: of the machine's, and of the limit of every control group
    /// above this process.
    pub(super) fn memory(&self, percent: u8) -> Option<Headroom> {
        let grouped = self.files.group_memory().into_iter();
        let grouped = grouped.map(|memory| (memory, true));
        let machine = self.files.machine_memory().map(|memory| (memory, false));
        let left = machine
            .into_iter()
            .chain(grouped)
            .map(|(memory, is_grouped)| {
                let limit = u128::from(memory.limit) * u128::from(percent) / 100;
                let limit = u64::try_from(limit).unwrap_or(u64::MAX);
                let bytes = limit.saturating_sub(memory.used);
                Headroom { bytes, is_grouped }
            });
        left.min_by_key(|left| left.bytes)
    }

    /// Cores that a control group's quota comes to, in hundredths; `None` without a quota.
    pub(super) fn quota_percent(&self) -> Option<u64> {
        let quota = |group: String| {
            let (quota, period) = match self.files.numbers(&format!("{group}/cpu.max"))[..] {
                [quota, period, ..] => (quota, period),
                // The first version's files; "-1" is no number here, and no quota.
                _ => (
                    self.files.number(&format!("{group}/cpu.cfs_quota_us"))?,
                    self.files.number(&format!("{group}/cpu.cfs_period_us"))?,
                ),
            };
            (quota * 100).checked_div(period)
        };
        self.files.groups("cpu").into_iter().filter_map(quota).min()
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
        assert_eq!(fake.machine().files.number("proc/meminfo"), None);
    }
}
