//! Many lines on few threads.
//!
//! A thread opens its share of the lines, answers their pings, shows every marked message to its witness, and cuts
//! its lines when told. Threads share nothing but counters and one order; each has its own descriptor table, so it
//! opens, polls and drops everything itself and is never woken from outside: it looks at the order when its poll
//! times out.

pub(crate) mod ramp;
pub(crate) mod tally;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, nanoseconds};
use crate::dialect::Dialect;
use crate::latency::Latency;
use crate::line::Failure;
use crate::name::{LineId, Names};
use crate::node::target::Target;
use crate::oracle::witness::Witness;
use crate::swarm::ramp::{Pacing, shares};
use crate::swarm::tally::{Tally, Total};
use crate::swarm::thread::SwarmThread;
use crate::tls::TlsPlan;

/// What a swarm is to be.
#[derive(Clone, Debug)]
pub(crate) struct SwarmPlan {
    /// How many threads open lines at a time.
    pub(crate) lanes: u32,
    /// At most so many lines on one thread.
    pub(crate) thread_lines_max: u32,
    /// Where to connect; lines take turns.
    pub(crate) targets: Vec<Target>,
    /// Where to connect from, each for [`SOURCE_LINES`] lines in turn. Empty leaves it to the kernel.
    pub(crate) sources: Vec<IpAddr>,
    /// How to speak TLS, if at all.
    pub(crate) tls: Option<Arc<TlsPlan>>,
    /// How to speak, and how many lines there are.
    pub(crate) dialect: Dialect,
    /// How fast to open lines.
    pub(crate) pacing: Pacing,
    /// How long a line may take to open.
    pub(crate) open_timeout: Duration,
}

/// Lines from one source address. Linux gives `connect` every other port of its range first, 14,000 of the usual
/// 28,000; with these taken, each further connect searches them all in vain before it tries the others.
const SOURCE_LINES: u32 = 12_000;

/// The running threads.
#[derive(Debug)]
pub(crate) struct Swarm {
    threads: Vec<JoinHandle<io::Result<Catch>>>,
    tallies: Arc<[Tally]>,
    order: Arc<Order>,
    laps: usize,
}

/// What a swarm brings home.
#[derive(Debug)]
pub(crate) struct Catch {
    /// From the intended start of a line to its 101.
    pub(crate) opening: Latency,
    /// From the intended time of a message to its arrival, for each lap.
    pub(crate) laps: Vec<Latency>,
    /// What was seen, one for each thread.
    pub(crate) witnesses: Vec<Witness>,
}

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A close frame: for servers that live on.
    Close,
    /// RST at once: quick, and leaves no port waiting.
    Reset,
}

/// What all threads are told. Nothing else is published with it, so all of it is relaxed.
#[derive(Debug)]
struct Order {
    /// 0: go on; else a [`Cut`].
    phase: AtomicU8,
    /// When each lap starts. A message belongs to the lap it was meant to leave in; one of no lap is in no latency.
    lap_starts_ns: [AtomicU64; LAPS_MAX],
}

/// Laps of a swarm; the last one takes in what would be more.
const LAPS_MAX: usize = 8;

impl Swarm {
    /// Starts the threads, and with them the ramp.
    pub(crate) fn start(plan: SwarmPlan, clock: Clock) -> io::Result<Self> {
        let names = &plan.dialect.names;
        let shares = shares(
            names.first(),
            names.lines(),
            plan.thread_lines_max,
            plan.lanes,
        );
        let plan = Arc::new(plan);
        let order = Arc::new(Order::new());
        let tallies: Arc<[Tally]> = shares.iter().map(|_| Tally::default()).collect();
        let ramp_start = clock.now();
        let spawn = |(index, share)| {
            let (plan, order, tallies) = (plan.clone(), order.clone(), tallies.clone());
            std::thread::Builder::new()
                .name(format!("swarm-{index}"))
                .stack_size(256 * 1024)
                .spawn(move || {
                    SwarmThread::open(index, share, plan, order, tallies, (clock, ramp_start))?
                        .run()
                })
        };
        let threads = shares
            .into_iter()
            .enumerate()
            .map(spawn)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            threads,
            tallies,
            order,
            laps: 0,
        })
    }

    /// The counts by now.
    pub(crate) fn total(&self) -> Total {
        sum(&self.tallies)
    }

    /// Failures and losses by kind.
    pub(crate) fn failures(&self) -> BTreeMap<Failure, u64> {
        let mut all = BTreeMap::new();
        self.tallies
            .iter()
            .for_each(|tally| tally.collect_failures(&mut all));
        all
    }

    /// Whether a thread has given up.
    pub(crate) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Records the latencies of messages that are meant to leave at `from` or later, apart from those of earlier laps.
    pub(crate) fn start_lap(&mut self, from: Duration) {
        if let Some(start) = self.order.lap_starts_ns.get(self.laps) {
            start.store(nanoseconds(from), Ordering::Relaxed);
            self.laps += 1;
        }
    }

    /// Ends all lines and threads.
    pub(crate) fn stop(self, cut: Cut) -> io::Result<Catch> {
        self.order.phase.store(cut as u8 + 1, Ordering::Relaxed);
        let mut catch = Catch::new(Vec::new());
        for thread in self.threads {
            let part = thread
                .join()
                .map_err(|_| io::Error::other("a swarm thread panicked"))??;
            catch.merge(part);
        }
        Ok(catch)
    }
}

impl Catch {
    fn new(witnesses: Vec<Witness>) -> Self {
        Self {
            opening: Latency::new(),
            laps: Vec::new(),
            witnesses,
        }
    }

    /// The latencies of all laps.
    pub(crate) fn delivery(&self) -> Latency {
        let mut all = Latency::new();
        self.laps.iter().for_each(|lap| all.merge(lap));
        all
    }

    fn record(&mut self, lap: usize, latency: Duration) {
        if self.laps.len() <= lap {
            self.laps.resize_with(lap + 1, Latency::new);
        }
        self.laps[lap].record(latency);
    }

    fn merge(&mut self, part: Self) {
        self.opening.merge(&part.opening);
        if self.laps.len() < part.laps.len() {
            self.laps.resize_with(part.laps.len(), Latency::new);
        }
        for (lap, more) in self.laps.iter_mut().zip(&part.laps) {
            lap.merge(more);
        }
        self.witnesses.extend(part.witnesses);
    }
}

impl Order {
    fn new() -> Self {
        Self {
            phase: AtomicU8::new(0),
            lap_starts_ns: std::array::from_fn(|_| AtomicU64::new(u64::MAX)),
        }
    }

    /// The lap of a message that was meant to leave then.
    fn lap(&self, intended_ns: u64) -> Option<usize> {
        let starts = self.lap_starts_ns.iter();
        starts
            .map(|start| start.load(Ordering::Relaxed))
            .rposition(|start| start <= intended_ns)
    }

    fn cut(&self) -> Option<Cut> {
        match self.phase.load(Ordering::Relaxed) {
            0 => None,
            phase if phase == Cut::Close as u8 + 1 => Some(Cut::Close),
            _ => Some(Cut::Reset),
        }
    }
}

/// Source addresses for a loopback swarm: 127/8 has room for as many as it takes. `net` keeps swarms apart, and the
/// numbers of their lines those of runs side by side.
pub(crate) fn loopback_sources(net: u8, names: &Names) -> Vec<IpAddr> {
    let zero = u32::from(Ipv4Addr::new(127, net, 0, 1));
    let LineId(first) = names.first();
    let turns = first / SOURCE_LINES..=(first + names.lines()) / SOURCE_LINES;
    turns
        .map(|turn| Ipv4Addr::from(zero + turn).into())
        .collect()
}

/// The source address of a line.
pub(crate) fn source(sources: &[IpAddr], names: &Names, LineId(n): LineId) -> Option<IpAddr> {
    let turn = n / SOURCE_LINES - names.first().0 / SOURCE_LINES;
    let count = sources.len().max(1);
    sources.get(turn as usize % count).copied()
}

fn sum(tallies: &[Tally]) -> Total {
    let mut total = Total::default();
    tallies.iter().for_each(|tally| total += tally);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_no_more_lines_than_connect_is_quick_for() {
        for (first, lines) in [(0, 50_000), (6_000, 23_999), (19_000, 19_000), (0, 1)] {
            let names = Names::new(first, lines, 4);
            let sources = loopback_sources(1, &names);
            let mut counts = BTreeMap::<_, u32>::new();
            for n in first..first + lines {
                *counts
                    .entry(source(&sources, &names, LineId(n)))
                    .or_default() += 1;
            }
            assert!(
                counts.values().all(|count| *count <= SOURCE_LINES),
                "{counts:?}"
            );
            assert!(!counts.contains_key(&None));
        }
        assert_eq!(source(&[], &Names::new(0, 9, 4), LineId(8)), None);
    }

    #[test]
    fn a_message_belongs_to_the_lap_it_was_meant_to_leave_in() {
        let order = Order::new();
        assert_eq!(order.lap(5), None);
        for (start, ns) in order.lap_starts_ns.iter().zip([10, 20]) {
            start.store(ns, Ordering::Relaxed);
        }
        let laps = [9, 10, 19, 20, 1 << 40].map(|ns| order.lap(ns));
        assert_eq!(laps, [None, Some(0), Some(0), Some(1), Some(1)]);
    }

    #[test]
    fn laps_of_all_threads_come_together() {
        let mut all = Catch::new(Vec::new());
        for lap in [2, 0] {
            let mut part = Catch::new(Vec::new());
            part.record(lap, Duration::from_millis(1));
            all.merge(part);
        }
        let counts: Vec<_> = all.laps.iter().map(Latency::count).collect();
        assert_eq!((counts, all.delivery().count()), (vec![1, 0, 1], 2));
    }
}
