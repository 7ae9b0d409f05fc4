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
    returned: AtomicU64,
    ended: AtomicU64,
    cut: AtomicU64,
    left: AtomicU64,
    handed_over: AtomicU64,
    unanswered: AtomicU64,
    goaways: AtomicU64,
    attempts: AtomicU64,
    refused_told: AtomicU64,
    refused_untold: AtomicU64,
    unreached: AtomicU64,
    failures: Mutex<BTreeMap<Failure, u64>>,
    setbacks: Mutex<BTreeMap<Failure, u64>>,
}

/// The counts of all threads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// Lines started.
    pub(crate) started: u64,
    /// Lines that reached 101 for the first time.
    pub(crate) opened: u64,
    /// Openings of all kinds that resumed a TLS session.
    pub(crate) resumed: u64,
    /// Lines that did not.
    pub(crate) failed: u64,
    /// Lines that had been open and ended for good.
    pub(crate) lost: u64,
    /// Lines that started later than intended because this generator was late.
    pub(crate) late: u64,
    /// Pings answered.
    pub(crate) pings: u64,
    /// Marked messages received.
    pub(crate) messages: u64,
    /// Their bytes, with what the server wrapped around them and without frame headers.
    pub(crate) message_bytes: u64,
    /// Lines that came back, each time.
    pub(crate) returned: u64,
    /// Open lines that ended and are to come back, each time.
    pub(crate) ended: u64,
    /// Of these, lines that were cut on purpose.
    pub(crate) cut: u64,
    /// Lines that said goodbye.
    pub(crate) left: u64,
    /// Of these, lines whose successor was open before they ended.
    pub(crate) handed_over: u64,
    /// Of those that said goodbye, lines whose goodbye the server did not answer.
    pub(crate) unanswered: u64,
    /// Requests of the server to leave.
    pub(crate) goaways: u64,
    /// Attempts to come back.
    pub(crate) attempts: u64,
    /// Of these, attempts refused with a status and a `Retry-After`.
    pub(crate) refused_told: u64,
    /// Attempts refused with a status alone.
    pub(crate) refused_untold: u64,
    /// Attempts that got no answer at all: refused connections, resets, hang-ups, time that ran out.
    pub(crate) unreached: u64,
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

    pub(super) fn count_return(&self, is_resumed: bool) {
        add(&self.returned, 1);
        add(&self.resumed, u64::from(is_resumed));
    }

    /// Counts a line that was handed over and has ended: it returned before that.
    pub(super) fn count_hand_over(&self) {
        add(&self.handed_over, 1);
    }

    /// Counts the successor of such a line among those that resumed a TLS session.
    pub(super) fn count_resumption(&self, is_resumed: bool) {
        add(&self.resumed, u64::from(is_resumed));
    }

    pub(super) fn count_end(&self) {
        add(&self.ended, 1);
    }

    pub(super) fn count_cut(&self) {
        add(&self.cut, 1);
    }

    pub(super) fn count_leave(&self) {
        add(&self.left, 1);
    }

    pub(super) fn count_silence(&self) {
        add(&self.unanswered, 1);
    }

    pub(super) fn count_goaway(&self) {
        add(&self.goaways, 1);
    }

    pub(super) fn count_attempt(&self) {
        add(&self.attempts, 1);
    }

    /// Counts an attempt to come back that failed; `is_told` if the server said when to try again.
    pub(super) fn count_setback(&self, failure: Failure, is_told: bool) {
        let counter = match (&failure, is_told) {
            (Failure::Status(_), true) => &self.refused_told,
            (Failure::Status(_), false) => &self.refused_untold,
            _ => &self.unreached,
        };
        add(counter, 1);
        *self.setbacks.lock().entry(failure).or_default() += 1;
    }

    /// Counts what ended a line that is to come back.
    pub(super) fn count_setback_of_open(&self, failure: Failure) {
        *self.setbacks.lock().entry(failure).or_default() += 1;
    }

    /// The counts by now.
    pub(super) fn read(&self) -> Total {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // A line that was handed over left, ended and returned in one: nobody sees it missing in between, or there twice.
        let handed_over = read(&self.handed_over);
        Total {
            started: read(&self.started),
            opened: read(&self.opened),
            resumed: read(&self.resumed),
            failed: read(&self.failed),
            lost: read(&self.lost),
            late: read(&self.late),
            pings: read(&self.pings),
            messages: read(&self.messages),
            message_bytes: read(&self.message_bytes),
            returned: read(&self.returned) + handed_over,
            ended: read(&self.ended) + handed_over,
            cut: read(&self.cut),
            left: read(&self.left) + handed_over,
            handed_over,
            unanswered: read(&self.unanswered),
            goaways: read(&self.goaways),
            attempts: read(&self.attempts),
            refused_told: read(&self.refused_told),
            refused_untold: read(&self.refused_untold),
            unreached: read(&self.unreached),
        }
    }

    /// Adds the failures by kind to `all`.
    pub(super) fn collect_failures(&self, all: &mut BTreeMap<Failure, u64>) {
        collect(&self.failures, all);
    }

    /// Adds what ended lines that were to come back, or kept them from it, by kind to `all`.
    pub(super) fn collect_setbacks(&self, all: &mut BTreeMap<Failure, u64>) {
        collect(&self.setbacks, all);
    }
}

impl Total {
    /// Lines that are open now.
    pub(crate) fn open(&self) -> u64 {
        (self.opened + self.returned).saturating_sub(self.lost + self.ended)
    }

    /// Lines that are to come back.
    pub(crate) fn away(&self) -> u64 {
        self.ended.saturating_sub(self.returned)
    }

    /// Attempts to come back that were refused with a status.
    pub(crate) fn refused(&self) -> u64 {
        self.refused_told + self.refused_untold
    }

    /// Lines whose start has ended, one way or the other.
    pub(crate) fn settled(&self) -> u64 {
        self.opened + self.failed
    }
}

impl AddAssign<&Self> for Total {
    fn add_assign(&mut self, other: &Self) {
        self.started += other.started;
        self.opened += other.opened;
        self.resumed += other.resumed;
        self.failed += other.failed;
        self.lost += other.lost;
        self.late += other.late;
        self.pings += other.pings;
        self.messages += other.messages;
        self.message_bytes += other.message_bytes;
        self.returned += other.returned;
        self.ended += other.ended;
        self.cut += other.cut;
        self.left += other.left;
        self.handed_over += other.handed_over;
        self.unanswered += other.unanswered;
        self.goaways += other.goaways;
        self.attempts += other.attempts;
        self.refused_told += other.refused_told;
        self.refused_untold += other.refused_untold;
        self.unreached += other.unreached;
    }
}

fn collect(from: &Mutex<BTreeMap<Failure, u64>>, all: &mut BTreeMap<Failure, u64>) {
    for (failure, count) in &*from.lock() {
        *all.entry(failure.clone()).or_default() += count;
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
