//! Many lines on few threads.
//!
//! A thread opens its share of the lines, answers their pings, shows every marked message to its witness, and cuts
//! its lines when told. Threads share nothing but counters and one order; each has its own descriptor table, so it
//! opens, polls and drops everything itself and is never woken from outside: it looks at the order when its poll
//! times out.

pub(crate) mod line;
pub(crate) mod ramp;
pub(crate) mod tally;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, nanoseconds};
use crate::dialect::Dialect;
use crate::latency::Latency;
use crate::machine;
use crate::oracle::witness::Witness;
use crate::swarm::line::Failure;
use crate::swarm::ramp::{Pacing, shares};
use crate::swarm::tally::{Tally, Total};
use crate::swarm::thread::SwarmThread;

/// What a swarm is to be.
#[derive(Clone, Debug)]
pub(crate) struct SwarmPlan {
    /// How many lines.
    pub(crate) lines: u32,
    /// At most so many on one thread.
    pub(crate) thread_lines_max: u32,
    /// Where to connect; lines take turns.
    pub(crate) targets: Vec<SocketAddr>,
    /// Where to connect from, each for [`SOURCE_LINES`] lines in turn. Empty leaves it to the kernel.
    pub(crate) sources: Vec<IpAddr>,
    /// How to speak.
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
}

/// What a swarm brings home.
#[derive(Debug)]
pub(crate) struct Catch {
    /// From the intended start of a line to its 101.
    pub(crate) opening: Latency,
    /// From the intended time of a message to its arrival.
    pub(crate) delivery: Latency,
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

/// What all threads are told.
#[derive(Debug, Default)]
struct Order {
    /// 0: go on; else a [`Cut`]. Publishes nothing else, so relaxed.
    phase: AtomicU8,
    /// Messages intended earlier are warm-up. Set before the first message; relaxed.
    record_from_ns: AtomicU64,
}

impl Swarm {
    /// Starts the threads, and with them the ramp.
    pub(crate) fn start(plan: SwarmPlan, clock: Clock) -> io::Result<Self> {
        let lanes = u32::try_from(machine::cores()).unwrap_or(1);
        let shares = shares(plan.lines, plan.thread_lines_max, lanes);
        let plan = Arc::new(plan);
        let order = Arc::new(Order::default());
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

    /// Leaves messages intended before `from` out of the latencies.
    pub(crate) fn record_from(&self, from: Duration) {
        self.order
            .record_from_ns
            .store(nanoseconds(from), Ordering::Relaxed);
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
            delivery: Latency::new(),
            witnesses,
        }
    }

    fn merge(&mut self, part: Self) {
        self.opening.merge(&part.opening);
        self.delivery.merge(&part.delivery);
        self.witnesses.extend(part.witnesses);
    }
}

impl Order {
    fn cut(&self) -> Option<Cut> {
        match self.phase.load(Ordering::Relaxed) {
            0 => None,
            phase if phase == Cut::Close as u8 + 1 => Some(Cut::Close),
            _ => Some(Cut::Reset),
        }
    }
}

/// Source addresses for a loopback swarm: 127/8 has room for as many as it takes.
pub(crate) fn loopback_sources(lines: u32) -> Vec<IpAddr> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let last = first + lines / SOURCE_LINES;
    (first..=last).map(|n| Ipv4Addr::from(n).into()).collect()
}

fn sum(tallies: &[Tally]) -> Total {
    let mut total = Total::default();
    tallies.iter().for_each(|tally| total += tally);
    total
}
