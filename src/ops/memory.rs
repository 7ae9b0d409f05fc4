//! How much memory the process uses, and of how much.
//!
//! Most of what a line takes is the kernel's, which no count of ours sees. So where nothing else is configured the bound is the
//! control group's, if there is one, and the machine's otherwise: both count sockets too.

use std::path::Path;

use crate::ops::kernel::{Files, Memory};

/// The process against a configured bound.
pub(crate) fn of_process(limit: u64) -> Option<Memory> {
    let used = resident_bytes()?;
    Some(Memory { used, limit })
}

/// The control group that is nearest to its bound, of those above the process; without any, the machine.
pub(crate) fn of_surroundings(files: &Files) -> Option<Memory> {
    let groups = files.group_memory().into_iter();
    let narrowest = groups.max_by_key(|group| group.percent());
    narrowest.or_else(|| files.machine_memory())
}

/// Resident memory of the process, if the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let kib = Files::below(Path::new("/")).field("proc/self/status", "VmRSS")?;
    Some(kib * 1024)
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
        let usage = of_surroundings(&Files::below(root.path())).unwrap();
        assert_eq!(usage.percent(), 90);
    }

    #[test]
    fn without_a_bound_on_the_group_the_machine_counts() {
        let unbounded = ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
        for files in [&[MEMINFO][..], &[MEMINFO, GROUP, unbounded]] {
            let root = root(files);
            let usage = of_surroundings(&Files::below(root.path())).unwrap();
            assert_eq!(usage.percent(), 75);
        }
    }

    #[test]
    fn of_all_groups_above_the_one_nearest_to_its_bound_counts() {
        let own = "sys/fs/cgroup/a.slice/b.service/";
        let files = [
            ("memory.max", "1000"),
            ("memory.current", "200"),
            ("../memory.max", "4000"),
            ("../memory.current", "3000"),
        ];
        let files = files.map(|(name, text)| (format!("{own}{name}"), text));
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), *text))
            .collect();
        let root = root(&[&[MEMINFO, GROUP], &files[..]].concat());
        let memory = of_surroundings(&Files::below(root.path())).unwrap();
        assert_eq!(memory.percent(), 75);
    }

    #[test]
    fn the_process_is_measured_against_what_is_configured() {
        assert_eq!(of_process(1).unwrap().percent(), u8::MAX);
        assert_eq!(of_process(u64::MAX).unwrap().percent(), 0);
    }
}
