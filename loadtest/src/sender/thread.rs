//! The sending thread: its connections, its timer, its loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::clock::{Clock, nanoseconds};
use crate::descriptor;
use crate::name::Row;
use crate::oracle::mark::Mark;
use crate::sample;
use crate::schedule::Schedule;
use crate::sender::book::Book;
use crate::sender::connection::{Connection, Pending};
use crate::sender::http::HttpConnection;
use crate::sender::record::RecordConnection;
use crate::sender::{Medium, SenderPlan, Span};

/// The state of the thread; made on it and never moved off it.
pub(super) struct SenderThread {
    plan: SenderPlan,
    clock: Clock,
    start: Duration,
    record_from: Duration,
    until: Duration,
    is_stopped: Arc<AtomicBool>,
    poll: Poll,
    timer: TimerFd,
    schedule: Option<Schedule>,
    lanes: Vec<Lane>,
    turn: usize,
    random: SmallRng,
    body: Vec<u8>,
    book: Book,
}

/// A connection with what it is to send.
struct Lane {
    connection: Box<dyn Connection>,
    /// Lines it sends to.
    row: Row,
    /// Intended times of messages that wait for room in the window.
    backlog: VecDeque<Duration>,
    /// When to open a broken connection again.
    mend_at: Option<Duration>,
}

const TIMER: Token = Token(usize::MAX);
const PATIENCE: Duration = Duration::from_millis(50);
/// A sleeping thread wakes about this late, so it wakes this early and looks at its sockets until it is time.
const WAKE_EARLY: Duration = Duration::from_micros(60);
const EVENTS_PER_ITERATION_MAX: usize = 256;
/// How long the last answers may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broken connection rests before it is opened again.
const MEND_AFTER: Duration = Duration::from_millis(100);

impl SenderThread {
    /// Takes its own descriptor table and connects.
    pub(super) fn open(
        plan: SenderPlan,
        book: Book,
        clock: Clock,
        is_stopped: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        descriptor::separate(false)?;
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let timer_fd = timer.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&timer_fd), TIMER, Interest::READABLE)?;
        Ok(Self {
            start: Duration::ZERO,
            record_from: Duration::ZERO,
            until: Duration::ZERO,
            schedule: plan
                .rate
                .map(|rate| Schedule::new(plan.spread, rate, plan.seed)),
            random: SmallRng::seed_from_u64(plan.seed),
            book: book.under(plan.shadows.clone()),
            turn: 0,
            body: Vec::new(),
            lanes: open_lanes(&plan, &poll)?,
            plan,
            clock,
            is_stopped,
            poll,
            timer,
        })
    }

    /// Sends until the time is over or it is told to stop, then waits for the answers under way.
    pub(super) fn run(mut self, span: Span) -> io::Result<Book> {
        let cpu = sample::thread_cpu()?;
        self.start = self.clock.now();
        (self.record_from, self.until) = (span.record_from, span.until);
        let mut events = Events::with_capacity(EVENTS_PER_ITERATION_MAX);
        while self.is_sending() {
            self.mend_due();
            self.take_arrivals();
            (0..self.lanes.len()).for_each(|index| self.send_on(index));
            self.poll_once(&mut events, true)?;
        }
        let spent = sample::thread_cpu()?.saturating_sub(cpu);
        self.book.busy = spent.as_secs_f64() / (self.clock.now() - self.start).as_secs_f64();
        self.collect_answers(&mut events)?;
        Ok(self.book)
    }

    fn is_sending(&self) -> bool {
        self.clock.now() < self.until
            && !self.is_stopped.load(Ordering::Relaxed)
            && !self
                .lanes
                .iter()
                .all(|lane| lane.connection.is_ended() && lane.mend_at.is_none())
    }

    /// Opens connections again that broke a while ago.
    fn mend_due(&mut self) {
        let now = self.clock.now();
        for index in 0..self.lanes.len() {
            if self.lanes[index].mend_at.is_none_or(|at| at > now) {
                continue;
            }
            match open_connection(&self.plan, &self.poll, index) {
                Ok(connection) => {
                    self.lanes[index].connection = connection;
                    self.lanes[index].mend_at = None;
                    self.book.mended += 1;
                }
                Err(_) => self.lanes[index].mend_at = Some(now + MEND_AFTER),
            }
        }
    }

    /// Gives each due arrival to the next connection.
    fn take_arrivals(&mut self) {
        let now = self.clock.now();
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        while let Some(at) = schedule.take_due(now - self.start) {
            let intended = self.start + at;
            self.lanes[self.turn].backlog.push_back(intended);
            self.turn = (self.turn + 1) % self.lanes.len();
            if intended >= self.record_from {
                self.book.lateness.record(now - intended);
            }
        }
    }

    /// Fills the window of a connection and sends it all at once.
    fn send_on(&mut self, index: usize) {
        if self.lanes[index].connection.is_ended() {
            return;
        }
        let mut outcome = Ok(());
        while outcome.is_ok()
            && self.lanes[index].connection.has_room()
            && let Some(intended) = self.next_push(index)
        {
            outcome = self.push(index, intended);
        }
        if let Err(error) = outcome.and_then(|()| self.lanes[index].connection.flush()) {
            self.bury(index, &error);
        }
    }

    fn next_push(&mut self, index: usize) -> Option<Duration> {
        match self.schedule {
            Some(_) => self.lanes[index].backlog.pop_front(),
            None => Some(self.clock.now()),
        }
    }

    fn push(&mut self, index: usize, intended: Duration) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        let line = lane.row.line(self.random.random_range(0..lane.row.count));
        let sequence = self.book.ledger.issue(line);
        let mark = Mark {
            line,
            sequence,
            intended_ns: nanoseconds(intended),
        };
        mark.write_body(&mut self.body, self.plan.body_bytes);
        let pending = Pending {
            line,
            sequence,
            intended,
        };
        lane.connection.push(pending, &self.body)
    }

    fn poll_once(&mut self, events: &mut Events, is_sending: bool) -> io::Result<()> {
        let patience = if is_sending {
            self.patience()?
        } else {
            PATIENCE
        };
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for event in events.iter() {
            match event.token() {
                TIMER => drop(self.timer.wait()),
                Token(index) => self.handle_ready(index, event.is_read_closed()),
            }
        }
        Ok(())
    }

    /// How long to poll. Polls count in milliseconds, so a nearer arrival sets the timer instead.
    fn patience(&self) -> io::Result<Duration> {
        let Some(schedule) = &self.schedule else {
            return Ok(PATIENCE);
        };
        let wait = (self.start + schedule.next_at()).saturating_sub(self.clock.now());
        if wait <= WAKE_EARLY {
            return Ok(Duration::ZERO);
        }
        let alarm = TimeSpec::nanoseconds(
            i64::try_from((wait - WAKE_EARLY).as_nanos()).unwrap_or(i64::MAX),
        );
        self.timer
            .set(Expiration::OneShot(alarm), TimerSetTimeFlags::empty())?;
        Ok(PATIENCE)
    }

    fn handle_ready(&mut self, index: usize, is_ending: bool) {
        let book = &mut self.book;
        let (clock, record_from) = (self.clock, self.record_from);
        let connection = &mut self.lanes[index].connection;
        if connection.is_ended() {
            return;
        }
        let filled = connection.fill(is_ending, &mut |reply| {
            let settled = book.settle(reply, clock.now());
            if let Some(pending) = settled.filter(|pending| pending.intended >= record_from) {
                book.round_trip.record(clock.now() - pending.intended);
            }
        });
        if let Err(error) = filled.and_then(|()| connection.flush()) {
            self.bury(index, &error);
        }
    }

    /// Waits for the answers under way; what is then still open was never answered.
    fn collect_answers(&mut self, events: &mut Events) -> io::Result<()> {
        let start = self.clock.now();
        let deadline = start + ANSWER_TIMEOUT;
        while self.clock.now() < deadline
            && self.lanes.iter().any(|lane| !lane.connection.is_idle())
        {
            self.poll_once(events, false)?;
        }
        for lane in &mut self.lanes {
            self.book.unsent += lane.backlog.len() as u64;
            let pending = lane.connection.abandon();
            self.book.give_up(pending, start, self.clock.now());
        }
        Ok(())
    }

    fn bury(&mut self, index: usize, error: &io::Error) {
        let now = self.clock.now();
        let lane = &mut self.lanes[index];
        let pending = lane.connection.abandon();
        if self.plan.mends {
            lane.mend_at = Some(now + MEND_AFTER);
            self.book.lose(pending, now);
        } else {
            self.book.broken.push(error.to_string());
            self.book.give_up(pending, now, now);
        }
    }
}

fn open_lanes(plan: &SenderPlan, poll: &Poll) -> io::Result<Vec<Lane>> {
    let open = |(index, row): (usize, &Row)| {
        Ok(Lane {
            connection: open_connection(plan, poll, index)?,
            row: *row,
            backlog: VecDeque::new(),
            mend_at: None,
        })
    };
    plan.rows.iter().enumerate().map(open).collect()
}

fn open_connection(
    plan: &SenderPlan,
    poll: &Poll,
    index: usize,
) -> io::Result<Box<dyn Connection>> {
    let mut connection: Box<dyn Connection> = match &plan.medium {
        Medium::Http { api, pipeline } => {
            let (dialect, pipeline) = (plan.dialect.clone(), *pipeline as usize);
            Box::new(HttpConnection::open(api, dialect, pipeline)?)
        }
        Medium::Record(records) => {
            let index = u32::try_from(index).map_err(io::Error::other)?;
            Box::new(RecordConnection::open(records.clone(), index)?)
        }
    };
    connection.register(poll.registry(), Token(index))?;
    Ok(connection)
}
