//! What each thread of a process uses, through `/proc`: a server whose threads share the work unevenly is full when the
//! first of them is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The CPU time of each thread so far, by thread id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskSample(BTreeMap<u32, Duration>);

impl TaskSample {
    /// Reads the threads of a process. One that ends meanwhile is left out.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let mut tasks = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.parse().ok());
            if let (Some(id), Some(cpu)) = (id, read_cpu(&path)) {
                tasks.insert(id, cpu);
            }
        }
        Ok(Self(tasks))
    }

    /// What the busiest thread used since an earlier sample.
    pub(crate) fn busiest_since(&self, earlier: &Self) -> Duration {
        let spent = self.0.iter().map(|(id, cpu)| {
            let before = earlier.0.get(id).copied().unwrap_or_default();
            cpu.saturating_sub(before)
        });
        spent.max().unwrap_or_default()
    }
}

/// The first number of `schedstat`: nanoseconds on a core.
fn read_cpu(task: &Path) -> Option<Duration> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    let ns = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_is_the_one_that_used_most_since() {
        let sample = |cpu: [u64; 2]| {
            let tasks = cpu.map(Duration::from_millis).into_iter();
            TaskSample((1..).zip(tasks).collect())
        };
        let spent = sample([500, 90]).busiest_since(&sample([490, 20]));
        assert_eq!(spent, Duration::from_millis(70));
    }

    #[test]
    fn this_process_has_threads() {
        let sample = TaskSample::read(std::process::id()).unwrap();
        assert!(!sample.0.is_empty());
        assert_eq!(sample.busiest_since(&sample), Duration::ZERO);
    }
}
