//! Many lines on few threads.
//!
//! A thread opens its share of the lines, answers their pings, shows every marked message to its witness, lets lines
//! leave and come back as its [`Habit`] says, does to them what a [`Strike`] says, and cuts them when told. Threads share
//! nothing but counters and one order; each has its own descriptor table, so it opens, polls and drops everything itself
//! and is never woken from outside: it looks at the order when its poll times out.

mod agenda;
pub(crate) mod catch;
pub(crate) mod comeback;
mod dial;
mod elder;
mod life;
mod order;
pub(crate) mod ramp;
pub(crate) mod source;
pub(crate) mod strike;
pub(crate) mod tally;
mod thread;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::line::Failure;
use crate::node::target::Target;
use crate::oracle::shadow::Shadows;
use crate::precedence;
use crate::swarm::catch::Catch;
use crate::swarm::comeback::Comeback;
use crate::swarm::order::Order;
use crate::swarm::ramp::{Pacing, shares};
use crate::swarm::source::Sources;
use crate::swarm::strike::Strike;
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
    /// How many of these serve at first.
    pub(crate) serving: usize,
    /// Where to connect from.
    pub(crate) sources: Sources,
    /// How to speak TLS, if at all.
    pub(crate) tls: Option<Arc<TlsPlan>>,
    /// How to speak, and how many lines there are.
    pub(crate) dialect: Dialect,
    /// How fast to open lines.
    pub(crate) pacing: Pacing,
    /// How long a line may take to open.
    pub(crate) open_timeout: Duration,
    /// How lines behave.
    pub(crate) habit: Habit,
}

/// What lines do by themselves. Without any habit they stay, and one that ends is lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habit {
    /// Whether and when a line that has been open once comes back. Threads of such lines are load, and let others go first.
    pub(crate) comeback: Option<Comeback>,
    /// The share of the lines that leave when the server asks them to; the others do not listen.
    pub(crate) heed: f64,
    /// Whether these open their new line before they close the old one. Strikes know nothing of lines that do.
    pub(crate) hands_over: bool,
    /// Lines leave at an age of their own, anything up to this.
    pub(crate) age_max: Option<Duration>,
    /// What lines leave behind that are silenced, if any are.
    pub(crate) ghosts: Option<Ghosts>,
    /// Where it is noted which lines are about to be cut.
    pub(crate) shadows: Option<Arc<Shadows>>,
    /// The longest TCP segment: loopback's are so long that the kernel takes in megabytes for a line that does not read.
    pub(crate) segment_bytes: Option<u32>,
    /// The run whose broadcasts lines are to get; those of others are no business of theirs.
    pub(crate) broadcasts: Option<u16>,
    /// Keep latencies over time, in windows of this length.
    pub(crate) window: Option<Duration>,
}

/// Sockets of silenced lines, which nothing passes through any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ghosts {
    /// How long they stay open. To close one that the server has not noticed yet would tell.
    pub(crate) stay: Duration,
    /// How many there are for each line at a time, on average over those of a thread.
    pub(crate) per_line: f64,
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Swarm {
    threads: Vec<JoinHandle<io::Result<Catch>>>,
    /// The tallies of all threads that were started together.
    tallies: Vec<Arc<[Tally]>>,
    order: Arc<Order>,
    laps: usize,
}

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A close frame: for servers that live on.
    Close,
    /// RST at once: quick, and leaves no port waiting.
    Reset,
}

impl Ghosts {
    /// Each line is silenced once at most.
    pub(crate) const ONE_EACH: Self = Self {
        stay: Duration::MAX,
        per_line: 1.0,
    };
}

impl Swarm {
    /// Starts the threads, and with them the ramp.
    pub(crate) fn start(plan: SwarmPlan, clock: Clock) -> io::Result<Self> {
        let mut swarm = Self::empty(plan.serving);
        swarm.grow(plan, clock)?;
        Ok(swarm)
    }

    /// A swarm without a thread, of whose targets so many serve at first.
    pub(crate) fn empty(serving: usize) -> Self {
        Self {
            threads: Vec::new(),
            tallies: Vec::new(),
            order: Arc::new(Order::new(serving)),
            laps: 0,
        }
    }

    /// Starts more threads, with lines of their own.
    pub(crate) fn grow(&mut self, plan: SwarmPlan, clock: Clock) -> io::Result<()> {
        let names = &plan.dialect.names;
        let shares = shares(
            names.first(),
            names.lines(),
            plan.thread_lines_max,
            plan.lanes,
        );
        let plan = Arc::new(plan);
        let tallies: Arc<[Tally]> = shares.iter().map(|_| Tally::default()).collect();
        let ramp_start = clock.now();
        for (index, share) in shares.into_iter().enumerate() {
            let (plan, order, tallies) = (plan.clone(), self.order.clone(), tallies.clone());
            let thread = std::thread::Builder::new()
                .name(format!("swarm-{}", self.threads.len()))
                .stack_size(256 * 1024)
                .spawn(move || {
                    if plan.habit.comeback.is_some() {
                        precedence::step_back();
                    }
                    SwarmThread::open(index, share, plan, order, tallies, (clock, ramp_start))?
                        .run()
                })?;
            self.threads.push(thread);
        }
        self.tallies.push(tallies);
        Ok(())
    }

    /// The counts by now.
    pub(crate) fn total(&self) -> Total {
        let mut total = Total::default();
        self.tallies.iter().for_each(|part| total += &sum(part));
        total
    }

    /// Failures and losses by kind.
    pub(crate) fn failures(&self) -> BTreeMap<Failure, u64> {
        let mut all = BTreeMap::new();
        self.tallies
            .iter()
            .flat_map(|part| part.iter())
            .for_each(|tally| tally.collect_failures(&mut all));
        all
    }

    /// What ended lines that were to come back, or kept them from it, by kind.
    pub(crate) fn setbacks(&self) -> BTreeMap<Failure, u64> {
        let mut all = BTreeMap::new();
        self.tallies
            .iter()
            .flat_map(|part| part.iter())
            .for_each(|tally| tally.collect_setbacks(&mut all));
        all
    }

    /// Whether a thread has given up.
    pub(crate) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Records the latencies of messages that are meant to leave at `from` or later, apart from those of earlier laps.
    pub(crate) fn start_lap(&mut self, from: Duration) {
        self.order.start_lap(self.laps, from);
        self.laps += 1;
    }

    /// Records them together with those of an earlier lap again: each lap is a histogram in every thread.
    pub(crate) fn resume_lap(&self, lap: usize, from: Duration) {
        self.order.start_lap(lap, from);
    }

    /// Does something to many lines.
    pub(crate) fn strike(&self, strike: Strike) {
        self.order.add_strike(strike);
    }

    /// Has lines stay from now on, whatever their age.
    pub(crate) fn settle(&self) {
        self.order.settle();
    }

    /// Measures comebacks from this moment on.
    pub(crate) fn start_storm(&self, at: Duration) {
        self.order.start_storm(at);
    }

    /// Has lines connect to these of the targets from now on.
    pub(crate) fn direct(&self, targets: Range<usize>) {
        self.order.direct(targets);
    }

    /// Ends all lines and threads.
    pub(crate) fn stop(self, cut: Cut) -> io::Result<Catch> {
        self.order.begin_cut(cut);
        let mut catch = Catch::default();
        for thread in self.threads {
            let part = thread
                .join()
                .map_err(|_| io::Error::other("a swarm thread panicked"))??;
            catch.merge(part);
        }
        Ok(catch)
    }
}

fn sum(tallies: &[Tally]) -> Total {
    let mut total = Total::default();
    tallies.iter().for_each(|tally| total += &tally.read());
    total
}
