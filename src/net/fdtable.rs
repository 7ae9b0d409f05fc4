//! A descriptor table per reactor thread.
//!
//! Accept and close of different reactors then never contend on one table, look-ups take the kernel's unshared fast
//! path, and RLIMIT_NOFILE bounds a reactor instead of the process. What a descriptor number means depends on
//! the thread from then on: no socket may be opened on one thread and used on another.

use nix::sched::{CloneFlags, unshare};

/// How a thread came by its descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTable {
    /// `unshare(CLONE_FILES)` gave the thread its own.
    Unshared,
    /// `close_range` with CLOSE_RANGE_UNSHARE did: Docker's default seccomp profile forbids `unshare`, not this.
    CloseRange,
    /// Neither was permitted: all threads share one table, and one limit.
    Shared,
}

impl FdTable {
    /// Gives the calling thread its own table, as a copy of the shared one.
    pub fn for_this_thread() -> Self {
        if unshare(CloneFlags::CLONE_FILES).is_ok() {
            return Self::Unshared;
        }
        // The empty range at the top closes nothing; only the flag acts.
        match uapi::close_range(u32::MAX, u32::MAX, uapi::c::CLOSE_RANGE_UNSHARE) {
            Ok(()) => Self::CloseRange,
            Err(_) => Self::Shared,
        }
    }

    /// How threads of this process will come by theirs: tried on one that ends at once.
    pub fn probe() -> Self {
        let probe = std::thread::spawn(Self::for_this_thread);
        probe.join().unwrap_or(Self::Shared)
    }

    /// Whether RLIMIT_NOFILE bounds this thread alone.
    pub fn is_own(self) -> bool {
        self != Self::Shared
    }
}

/// The soft RLIMIT_NOFILE: descriptors one table may hold.
pub fn descriptors_max() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    // getrlimit cannot fail for a known resource; the POSIX minimum stands in if it ever does.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(20, |(soft, _hard)| soft)
}

/// Raises the soft limit to the hard one, as far as the kernel lets it.
pub fn raise_descriptors_max() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Staying at the soft limit is no failure: start-up reports what it means for the configured limits.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;

    /// Whether the calling thread has a descriptor of the file.
    fn is_open(path: &Path) -> bool {
        let mut links = fs::read_dir("/proc/thread-self/fd").unwrap();
        links.any(|link| fs::read_link(link.unwrap().path()).is_ok_and(|target| target == path))
    }

    #[test]
    fn a_descriptor_opened_after_the_split_is_invisible_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        let (opened, is_opened) = mpsc::channel();
        let (looked, has_looked) = mpsc::channel::<()>();
        let file = path.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let table = FdTable::for_this_thread();
                let _file = File::create(&file).unwrap();
                opened.send((table.is_own(), is_open(&file))).unwrap();
                has_looked.recv().unwrap();
            });
            let (is_own, is_open_there) = is_opened.recv().unwrap();
            assert!(is_open_there);
            assert_eq!(is_open(&path), !is_own);
            looked.send(()).unwrap();
        });
    }
}
