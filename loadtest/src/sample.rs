//! What the kernel says about a process and about itself, mostly through `/proc`.

use std::fs;
use std::io;
use std::ops::Sub;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessSample {
    /// CPU time of all threads so far, ended ones included, to the nanosecond: what counts where server and
    /// generator share the cores.
    pub(crate) cpu: Duration,
    /// Resident bytes.
    pub(crate) rss: u64,
    /// Of these, anonymous ones: without the program's own pages.
    pub(crate) rss_anon: u64,
    /// Most resident bytes so far; of several processes each one's, shared pages included.
    pub(crate) rss_peak: u64,
}

/// The kernel's memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelSample {
    /// Slab bytes: sockets, inodes, descriptors of both ends.
    pub(crate) slab: u64,
    /// Bytes in TCP queues.
    pub(crate) tcp: u64,
}

impl ProcessSample {
    /// Reads a process by its id, together with those it has started. What several share counts once.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let mut tree = vec![pid];
        let mut next = 0;
        while let Some(parent) = tree.get(next) {
            tree.extend(children(*parent));
            next += 1;
        }
        if tree.len() == 1 {
            return Self::read_one(pid);
        }
        let mut sum = Self::default();
        for pid in tree {
            // One that has ended since is no reason to know nothing of the others.
            let Ok(one) = Self::read_one(pid).and_then(|one| one.with_fair_share(pid)) else {
                continue;
            };
            sum.cpu += one.cpu;
            sum.rss += one.rss;
            sum.rss_anon += one.rss_anon;
            sum.rss_peak += one.rss_peak;
        }
        Ok(sum)
    }

    /// Reads this process.
    pub(crate) fn read_own() -> io::Result<Self> {
        Self::read_one(std::process::id())
    }

    fn read_one(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu: process_cpu(pid)?,
            rss: kib_field(&status, "VmRSS:"),
            rss_anon: kib_field(&status, "RssAnon:"),
            rss_peak: kib_field(&status, "VmHWM:"),
        })
    }

    /// Counts a page that several processes have as so many parts of one.
    fn with_fair_share(self, pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let shared = kib_field(&rollup, "Pss_Shmem:");
        Ok(Self {
            rss: kib_field(&rollup, "Pss:"),
            rss_anon: kib_field(&rollup, "Pss_Anon:") + shared,
            ..self
        })
    }
}

/// What a process used between two samples: the CPU time and the growth, never below zero.
impl Sub for ProcessSample {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            rss: self.rss.saturating_sub(earlier.rss),
            rss_anon: self.rss_anon.saturating_sub(earlier.rss_anon),
            rss_peak: self.rss_peak.saturating_sub(earlier.rss_peak),
        }
    }
}

impl KernelSample {
    /// Reads the kernel's own figures.
    pub(crate) fn read() -> io::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        Ok(Self {
            slab: kib_field(&memory, "Slab:"),
            tcp: tcp_pages(&sockets) * page_bytes(),
        })
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    let ids = text.split_ascii_whitespace().map(str::parse);
    ids.filter_map(Result::ok).collect()
}

fn process_cpu(pid: u32) -> io::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    Ok(clock_gettime(clock_getcpuclockid(pid)?)?.into())
}

/// A `Name:   123 kB` line, in bytes; 0 when it is missing.
fn kib_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The `mem` of the `TCP:` line of `sockstat`, in pages.
fn tcp_pages(sockstat: &str) -> u64 {
    let mut words = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .into_iter()
        .flat_map(str::split_ascii_whitespace);
    words.find(|word| *word == "mem");
    words.next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn page_bytes() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|n| u64::try_from(n).ok()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, killpg};

    use super::*;

    #[test]
    fn memory_lines_are_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t   120 kB\nVmRSS:\t   111 kB\nRssAnon:\t    96 kB\n";
        assert_eq!(kib_field(status, "VmRSS:"), 111 * 1024);
        assert_eq!(kib_field(status, "RssAnon:"), 96 * 1024);
        assert_eq!(kib_field(status, "Slab:"), 0);
    }

    #[test]
    fn tcp_memory_is_found_by_name() {
        let text =
            "sockets: used 9\nTCP: inuse 4 orphan 0 tw 2 alloc 6 mem 77\nUDP: inuse 1 mem 3\n";
        assert_eq!(tcp_pages(text), 77);
        assert_eq!(tcp_pages("UDP: mem 3"), 0);
    }

    #[test]
    fn a_process_is_read_with_those_it_started() {
        let script = ["-c", "tail -f /dev/null & tail -f /dev/null & echo; wait"];
        let mut parent = Command::new("sh")
            .args(script)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(parent.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        let pid = parent.id();
        let (all, one) = (ProcessSample::read(pid), ProcessSample::read_one(pid));
        let count = children(pid).len();
        killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        parent.wait().unwrap();
        assert_eq!(count, 2);
        let (all, one) = (all.unwrap(), one.unwrap());
        assert!(
            all.rss_peak > one.rss_peak && all.rss_anon > 0,
            "{all:?} {one:?}"
        );
    }

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let sample = ProcessSample::read_own().unwrap();
        assert!(sample.rss > 0 && sample.rss_peak >= sample.rss && sample.cpu > Duration::ZERO);
        assert!(KernelSample::read().unwrap().slab > 0);
    }
}
