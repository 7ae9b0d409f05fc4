//! Live counts of a swarm: each thread adds to its own, the screen sums them up.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::line::Failure;

/// The counts of one thread. All are plain counters: nothing else is published with them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    started: AtomicU64,
    opened: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    late: AtomicU64,
    pings: AtomicU64,
    messages: AtomicU64,
    message_bytes: AtomicU64,
    failures: Mutex<BTreeMap<Failure, u64>>,
}

/// The counts of all threads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// Lines started.
    pub(crate) started: u64,
    /// Lines that reached 101.
    pub(crate) opened: u64,
    /// Of these, lines that resumed a TLS session.
    pub(crate) resumed: u64,
    /// Lines that did not.
    pub(crate) failed: u64,
    /// Lines that had been open and ended.
    pub(crate) lost: u64,
    /// Lines that started later than intended because this generator was late.
    pub(crate) late: u64,
    /// Pings answered.
    pub(crate) pings: u64,
    /// Marked messages received.
    pub(crate) messages: u64,
    /// Their bytes, with what the server wrapped around them and without frame headers.
    pub(crate) message_bytes: u64,
}

impl Tally {
    pub(super) fn count_start(&self, is_late: bool) {
        add(&self.started, 1);
        add(&self.late, u64::from(is_late));
    }

    pub(super) fn count_open(&self, is_resumed: bool) {
        add(&self.opened, 1);
        add(&self.resumed, u64::from(is_resumed));
    }

    pub(super) fn count_ping(&self) {
        add(&self.pings, 1);
    }

    pub(super) fn count_message(&self, bytes: usize) {
        add(&self.messages, 1);
        add(&self.message_bytes, bytes as u64);
    }

    /// Counts a line that never opened.
    pub(super) fn count_failed(&self, failure: Failure) {
        add(&self.failed, 1);
        *self.failures.lock().entry(failure).or_default() += 1;
    }

    /// Counts a line that had been open.
    pub(super) fn count_lost(&self, failure: Failure) {
        add(&self.lost, 1);
        *self.failures.lock().entry(failure).or_default() += 1;
    }

    /// Adds the failures by kind to `all`.
    pub(super) fn collect_failures(&self, all: &mut BTreeMap<Failure, u64>) {
        for (failure, count) in &*self.failures.lock() {
            *all.entry(failure.clone()).or_default() += count;
        }
    }
}

impl Total {
    /// Lines that are open now.
    pub(crate) fn open(&self) -> u64 {
        self.opened.saturating_sub(self.lost)
    }

    /// Lines whose start has ended, one way or the other.
    pub(crate) fn settled(&self) -> u64 {
        self.opened + self.failed
    }
}

impl AddAssign<&Tally> for Total {
    fn add_assign(&mut self, tally: &Tally) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.started += read(&tally.started);
        self.opened += read(&tally.opened);
        self.resumed += read(&tally.resumed);
        self.failed += read(&tally.failed);
        self.lost += read(&tally.lost);
        self.late += read(&tally.late);
        self.pings += read(&tally.pings);
        self.messages += read(&tally.messages);
        self.message_bytes += read(&tally.message_bytes);
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
