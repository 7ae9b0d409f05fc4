//! The sending thread: its connections, its timer, its loop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::clock::{Clock, nanoseconds};
use crate::descriptor;
use crate::dialect::LineId;
use crate::oracle::mark::Mark;
use crate::sample;
use crate::schedule::Schedule;
use crate::sender::connection::{Connection, Pending};
use crate::sender::{Book, SenderPlan};

/// The state of the thread; made on it and never moved off it.
pub(super) struct SenderThread {
    plan: SenderPlan,
    clock: Clock,
    start: Duration,
    is_stopped: Arc<AtomicBool>,
    poll: Poll,
    timer: TimerFd,
    schedule: Option<Schedule>,
    connections: Vec<Connection>,
    turn: usize,
    random: SmallRng,
    host: String,
    body: Vec<u8>,
    book: Book,
}

const TIMER: Token = Token(usize::MAX);
const PATIENCE: Duration = Duration::from_millis(50);
/// A sleeping thread wakes about this late, so it wakes this early and looks at its sockets until it is time.
const WAKE_EARLY: Duration = Duration::from_micros(60);
const EVENTS_PER_ITERATION_MAX: usize = 256;

impl SenderThread {
    /// Takes its own descriptor table and connects.
    pub(super) fn open(
        plan: SenderPlan,
        clock: Clock,
        is_stopped: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        descriptor::separate(false)?;
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let timer_fd = timer.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&timer_fd), TIMER, Interest::READABLE)?;
        let connections = (0..plan.connections as usize)
            .map(|index| connect(&poll, plan.api, index))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            start: clock.now(),
            schedule: plan
                .rate
                .map(|rate| Schedule::new(plan.spread, rate, plan.seed)),
            random: SmallRng::seed_from_u64(plan.seed),
            book: Book::new(plan.lines),
            turn: 0,
            host: plan.api.to_string(),
            body: Vec::new(),
            plan,
            clock,
            is_stopped,
            poll,
            timer,
            connections,
        })
    }

    /// Sends until the time is over or it is told to stop, then waits for the answers under way.
    pub(super) fn run(mut self) -> io::Result<Book> {
        let cpu = sample::thread_cpu()?;
        let mut events = Events::with_capacity(EVENTS_PER_ITERATION_MAX);
        while self.is_sending() {
            self.take_arrivals();
            (0..self.connections.len()).for_each(|index| self.send_on(index));
            self.poll_once(&mut events, true)?;
        }
        let spent = sample::thread_cpu()?.saturating_sub(cpu);
        self.book.busy = spent.as_secs_f64() / (self.clock.now() - self.start).as_secs_f64();
        self.collect_answers(&mut events)?;
        Ok(self.book)
    }

    fn is_sending(&self) -> bool {
        self.clock.now() < self.plan.until
            && !self.is_stopped.load(Ordering::Relaxed)
            && !self.connections.iter().all(Connection::is_ended)
    }

    /// Gives each due arrival to the next connection.
    fn take_arrivals(&mut self) {
        let now = self.clock.now();
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        while let Some(at) = schedule.take_due(now - self.start) {
            let intended = self.start + at;
            self.connections[self.turn].backlog.push_back(intended);
            self.turn = (self.turn + 1) % self.connections.len();
            if intended >= self.plan.record_from {
                self.book.lateness.record(now - intended);
            }
        }
    }

    /// Fills the window of a connection and sends it all at once.
    fn send_on(&mut self, index: usize) {
        while !self.connections[index].is_ended()
            && self.connections[index].pending.len() < self.plan.pipeline as usize
            && let Some(intended) = self.next_push(index)
        {
            self.push(index, intended);
        }
        if let Err(error) = self.connections[index].flush() {
            self.bury(index, &error);
        }
    }

    fn next_push(&mut self, index: usize) -> Option<Duration> {
        match self.schedule {
            Some(_) => self.connections[index].backlog.pop_front(),
            None => Some(self.clock.now()),
        }
    }

    fn push(&mut self, index: usize, intended: Duration) {
        let line = self.random_line(index);
        let sequence = self.book.ledger.issue(line);
        let mark = Mark {
            line,
            sequence,
            intended_ns: nanoseconds(intended),
        };
        mark.write_body(&mut self.body, self.plan.body_bytes);
        let connection = &mut self.connections[index];
        self.plan
            .dialect
            .write_push(connection.out(), &self.host, line, &self.body);
        connection.pending.push_back(Pending {
            line,
            sequence,
            intended,
        });
    }

    /// One of the lines whose number leaves the connection's index as the rest.
    fn random_line(&mut self, index: usize) -> LineId {
        let (first, step) = (u32::try_from(index).unwrap_or(0), self.plan.connections);
        let choices = (self.plan.lines - first).div_ceil(step);
        LineId(first + step * self.random.random_range(0..choices))
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
        let (clock, record_from) = (self.clock, self.plan.record_from);
        let connection = &mut self.connections[index];
        let filled = connection.fill(is_ending, |pending, status| {
            book.settle(pending, status);
            if pending.intended >= record_from {
                book.round_trip.record(clock.now() - pending.intended);
            }
        });
        if let Err(error) = filled.and_then(|()| connection.flush()) {
            self.bury(index, &error);
        }
    }

    /// Waits for the answers under way; what is then still open stays unknown.
    fn collect_answers(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.clock.now() + self.plan.answer_timeout;
        while self.clock.now() < deadline && self.connections.iter().any(|c| !c.pending.is_empty())
        {
            self.poll_once(events, false)?;
        }
        for connection in &mut self.connections {
            self.book.unsent += connection.backlog.len() as u64;
            self.book.give_up(connection);
        }
        Ok(())
    }

    fn bury(&mut self, index: usize, error: &io::Error) {
        let connection = &mut self.connections[index];
        self.book.broken.push(error.to_string());
        self.book.give_up(connection);
    }
}

fn connect(poll: &Poll, api: SocketAddr, index: usize) -> io::Result<Connection> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_nodelay(true)?;
    poll.registry().register(
        &mut stream,
        Token(index),
        Interest::READABLE | Interest::WRITABLE,
    )?;
    Ok(Connection::new(stream))
}
