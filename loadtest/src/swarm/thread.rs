//! One thread of the swarm: its poll, its lines, its loop.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::clock::Clock;
use crate::descriptor;
use crate::line::{Failure, OpenLine, Upgrade};
use crate::name::LineId;
use crate::oracle::witness::Witness;
use crate::swarm::agenda::{Agenda, Entry, Task};
use crate::swarm::catch::Catch;
use crate::swarm::elder::{Elder, Start};
use crate::swarm::order::{Laps, Order};
use crate::swarm::ramp::{Ramp, Share, Step};
use crate::swarm::strike::{Blow, SHADOW_LEAD, Strike};
use crate::swarm::tally::Tally;
use crate::swarm::{SwarmPlan, sum};

/// The state of a thread; made on it and never moved off it.
pub(super) struct SwarmThread {
    index: usize,
    share: Share,
    pub(super) plan: Arc<SwarmPlan>,
    pub(super) order: Arc<Order>,
    pub(super) laps: Laps,
    tallies: Arc<[Tally]>,
    clock: Clock,
    ramp_start: Duration,
    pub(super) poll: Poll,
    ramp: Ramp,
    lines: Vec<Line>,
    /// Lines that were asked to leave and stay until their successors are open.
    pub(super) elders: BTreeMap<Start, Elder>,
    pasts: Vec<Past>,
    /// Lines under way with the time each must be open by, and which start of the line it is about: in order, since all
    /// have the same patience.
    deadlines: VecDeque<(Duration, LineId, u16)>,
    pub(super) agenda: Agenda,
    /// Strikes to come, and whether their shadows have fallen.
    strikes: Vec<(Strike, bool)>,
    strikes_seen: usize,
    /// Sockets that nothing passes through any more, and until when they stay: in order, since all stay equally long.
    pub(super) ghosts: VecDeque<(Duration, TcpStream)>,
    /// Lines that did not read for a while and read again, and have not ended since.
    pub(super) steady: BTreeMap<LineId, Steady>,
    in_flight: u32,
    scratch: Box<[u8]>,
    pub(super) random: SmallRng,
    pub(super) catch: Catch,
    pub(super) witness: Witness,
}

/// Where a line is in its life.
#[derive(Debug)]
pub(super) enum Line {
    /// Not started.
    Unborn,
    /// Under way to 101.
    Upgrading(Box<Upgrade>),
    /// On the line.
    Open(Box<OpenLine>),
    /// It has said goodbye, and reads on until the server has answered.
    Leaving(Box<Farewell>),
    /// On the line, and does not read.
    Deaf(Box<OpenLine>),
    /// It is going to come back.
    Away,
    /// Failed or lost, for good.
    Down,
}

/// A line that has said goodbye.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) line: OpenLine,
    /// When it is to come back.
    pub(super) back_at: Duration,
}

/// A line that did not read for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// When its shadow fell.
    pub(super) since: Duration,
    /// When it read again.
    pub(super) read_at: Duration,
}

/// What there is to know of a line's earlier times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    /// When its absence began, on the clock of the run.
    pub(super) away_since: Duration,
    /// Its starts so far; they turn over, and only serve to tell neighbours apart.
    pub(super) starts: u16,
    /// Attempts to come back that have failed.
    pub(super) failures: u16,
    /// Whether it has been open, so that its next start is a comeback.
    pub(super) has_been_open: bool,
}

/// How long a thread with nothing to do waits before it looks at its order again.
const PATIENCE: Duration = Duration::from_millis(100);
/// Lines opened between two looks at the open ones: pings are answered while the ramp is late.
const OPENS_PER_ITERATION_MAX: u32 = 32;
/// A line started later than this was kept waiting by this generator, not by the server.
const LATE: Duration = Duration::from_millis(20);
const EVENTS_PER_ITERATION_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 16 * 1024;

impl SwarmThread {
    /// Takes its own descriptor table and opens what the loop needs.
    pub(super) fn open(
        index: usize,
        share: Share,
        plan: Arc<SwarmPlan>,
        order: Arc<Order>,
        tallies: Arc<[Tally]>,
        (clock, ramp_start): (Clock, Duration),
    ) -> io::Result<Self> {
        descriptor::separate(plan.dialect.names.lines() > plan.thread_lines_max)?;
        Ok(Self {
            index,
            share,
            poll: Poll::new()?,
            ramp: Ramp::new(share, plan.pacing),
            lines: (0..share.count).map(|_| Line::Unborn).collect(),
            elders: BTreeMap::new(),
            pasts: vec![Past::default(); share.count as usize],
            deadlines: VecDeque::new(),
            agenda: Agenda::default(),
            strikes: Vec::new(),
            strikes_seen: 0,
            ghosts: VecDeque::new(),
            steady: BTreeMap::new(),
            in_flight: 0,
            scratch: vec![0; SCRATCH_BYTES].into(),
            random: SmallRng::seed_from_u64(share.first.0.into()),
            catch: Catch::new(plan.habit.window),
            witness: Witness::new(share.first, share.count),
            plan,
            order,
            laps: Laps::default(),
            tallies,
            clock,
            ramp_start,
        })
    }

    /// Runs until told to cut the lines.
    pub(super) fn run(mut self) -> io::Result<Catch> {
        let mut events = Events::with_capacity(EVENTS_PER_ITERATION_MAX);
        let cut = loop {
            if let Some(cut) = self.order.cut() {
                break cut;
            }
            self.strike_due();
            let patience = self.open_due().min(self.return_due());
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            events.iter().for_each(|event| self.handle_event(event));
            self.expire();
            self.lay_ghosts(self.clock.now());
        };
        self.cut_all(cut);
        self.catch.witnesses.push(self.witness);
        Ok(self.catch)
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tallies[self.index]
    }

    /// The time of the run.
    pub(super) fn clock_now(&self) -> Duration {
        self.clock.now()
    }

    /// Opens the lines that are due for the first time and tells how long to wait for the next.
    fn open_due(&mut self) -> Duration {
        // Most of its life a thread is here, and counting all threads' lines takes its time.
        if self.ramp.is_done() {
            return PATIENCE;
        }
        let settled = u32::try_from(sum(&self.tallies).settled()).unwrap_or(u32::MAX);
        for _ in 0..OPENS_PER_ITERATION_MAX {
            let now = self.clock.now().saturating_sub(self.ramp_start);
            match self.ramp.step(self.in_flight, settled, now) {
                Step::Open(line, intended) => {
                    self.tally().count_start(now - intended > LATE);
                    self.open_line(line, self.ramp_start + intended);
                }
                Step::Wait(wait) => return wait.min(PATIENCE),
                Step::Done => return PATIENCE,
            }
        }
        Duration::ZERO
    }

    /// Does what has fallen due for lines, comebacks first of all, and tells how long to wait for the next.
    fn return_due(&mut self) -> Duration {
        for _ in 0..OPENS_PER_ITERATION_MAX {
            let now = self.clock.now();
            let Some(entry) = self.agenda.take_due(now) else {
                let strikes = self.strikes.iter().map(|(strike, _)| strike.at);
                let next = strikes.chain(self.agenda.next_at()).min();
                return next.map_or(PATIENCE, |at| at.saturating_sub(now).min(PATIENCE));
            };
            if self.past(entry.line).starts == entry.start {
                match entry.task {
                    Task::Return => self.come_back(entry, now),
                    Task::Leave => self.leave(entry.line),
                    Task::GiveUp => self.give_up(entry.line),
                }
            } else if entry.task == Task::GiveUp {
                self.give_elder_up((entry.line, entry.start));
            }
        }
        Duration::ZERO
    }

    fn come_back(&mut self, Entry { at, line, .. }: Entry, now: Duration) {
        if matches!(self.line(line), Line::Away) {
            self.tally().count_attempt();
            self.catch.lateness.record(now - at);
            self.open_line(line, at);
        }
    }

    fn open_line(&mut self, id: LineId, intended: Duration) {
        let past = self.past(id);
        past.starts = past.starts.wrapping_add(1);
        let start = past.starts;
        match self.connect(id, start, intended) {
            Ok(upgrade) => {
                self.in_flight += 1;
                let deadline = self.clock.now() + self.plan.open_timeout;
                self.deadlines.push_back((deadline, id, start));
                *self.line(id) = Line::Upgrading(Box::new(upgrade));
            }
            Err(failure) => self.fail(id, failure, None),
        }
    }

    fn handle_event(&mut self, event: &Event) {
        let Token(index) = event.token();
        let is_ending = event.is_read_closed() || event.is_error();
        if let Some(index) = index.checked_sub(self.lines.len()) {
            return self.hear_elders((self.line_at(index), u16::MAX), is_ending);
        }
        let id = self.line_at(index);
        match mem::replace(&mut self.lines[index], Line::Away) {
            Line::Upgrading(upgrade) => self.advance_upgrade(id, upgrade),
            Line::Open(open) => self.visit(id, open, is_ending),
            Line::Leaving(open) => self.visit_leaving(id, open, is_ending),
            line @ (Line::Unborn | Line::Deaf(_) | Line::Away | Line::Down) => {
                self.lines[index] = line;
            }
        }
    }

    fn advance_upgrade(&mut self, id: LineId, mut upgrade: Box<Upgrade>) {
        let answer = match upgrade.flush() {
            Ok(true) => upgrade.read(&mut self.scratch),
            other => other.map(|_| None),
        };
        match answer {
            Ok(None) => *self.line(id) = Line::Upgrading(upgrade),
            Ok(Some(tail)) => {
                self.in_flight -= 1;
                self.arrive(id, upgrade.intended(), upgrade.is_resumed());
                self.visit(id, Box::new(upgrade.into_open(tail)), false);
            }
            Err(failure) => {
                self.in_flight -= 1;
                self.fail(id, failure, upgrade.retry_after());
            }
        }
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        while let Some((_, id, start)) = self
            .deadlines
            .pop_front_if(|(deadline, ..)| *deadline <= now)
        {
            if self.past(id).starts == start && matches!(self.line(id), Line::Upgrading(_)) {
                self.in_flight -= 1;
                self.fail(id, Failure::Timeout, None);
            }
        }
    }

    /// Takes up new strikes and does those that are due. Shadows have half of their lead at least, even if this thread is
    /// late.
    fn strike_due(&mut self) {
        let new = self.order.strikes_since(self.strikes_seen);
        self.strikes_seen += new.len();
        self.strikes
            .extend(new.into_iter().map(|strike| (strike, false)));
        let now = self.clock.now();
        for (mut strike, mut is_dark) in mem::take(&mut self.strikes) {
            let Strike { at, lines, blow } = strike;
            let first = self.share.first.0;
            let all = (0..self.share.count).map(|n| LineId(first + n));
            let struck = all.filter(|line| lines.has(*line));
            if blow.casts_shadow() && !is_dark {
                if at <= now + SHADOW_LEAD {
                    struck.for_each(|line| self.darken(line, blow, now));
                    is_dark = true;
                    strike.at = at.max(now + SHADOW_LEAD / 2);
                }
                self.strikes.push((strike, is_dark));
            } else if at <= now {
                struck.for_each(|line| self.suffer(line, blow, now));
            } else {
                self.strikes.push((strike, is_dark));
            }
        }
    }

    /// Whether the node is about to die: then a line that opens now is no safer than the others.
    pub(super) fn is_doomed(&self) -> bool {
        let mut strikes = self.strikes.iter();
        strikes.any(|(strike, is_dark)| strike.blow == Blow::Doom && *is_dark)
    }

    pub(super) fn schedule(&mut self, at: Duration, line: LineId, task: Task) {
        let start = self.past(line).starts;
        self.agenda.schedule(Entry {
            at,
            line,
            start,
            task,
        });
    }

    pub(super) fn line_at(&self, index: usize) -> LineId {
        LineId(self.share.first.0 + u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn token(&self, id: LineId) -> Token {
        Token((id.0 - self.share.first.0) as usize)
    }

    /// The token of a line's elders, which share it.
    pub(super) fn elder_token(&self, id: LineId) -> Token {
        let Token(index) = self.token(id);
        Token(self.lines.len() + index)
    }

    pub(super) fn line(&mut self, id: LineId) -> &mut Line {
        let Token(index) = self.token(id);
        &mut self.lines[index]
    }

    pub(super) fn past(&mut self, id: LineId) -> &mut Past {
        let Token(index) = self.token(id);
        &mut self.pasts[index]
    }

    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        mem::take(&mut self.lines)
    }
}
