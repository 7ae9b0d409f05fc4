//! One thread of the swarm: its poll, its lines, its loop.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, SockRef, Socket, Type};

use crate::clock::{Clock, nanoseconds};
use crate::descriptor;
use crate::line::{Failure, Found, OpenLine, Upgrade};
use crate::name::LineId;
use crate::oracle::mark::Mark;
use crate::oracle::witness::Witness;
use crate::swarm::ramp::{Ramp, Share, Step};
use crate::swarm::tally::Tally;
use crate::swarm::{Catch, Cut, Order, SwarmPlan, source, sum};
use crate::transport::Transport;

/// The state of a thread; made on it and never moved off it.
pub(super) struct SwarmThread {
    index: usize,
    share: Share,
    plan: Arc<SwarmPlan>,
    order: Arc<Order>,
    tallies: Arc<[Tally]>,
    clock: Clock,
    ramp_start: Duration,
    poll: Poll,
    ramp: Ramp,
    lines: Vec<Line>,
    /// Lines under way with the time each must be open by: in order, since all have the same patience.
    deadlines: VecDeque<(Duration, LineId)>,
    in_flight: u32,
    scratch: Box<[u8]>,
    catch: Catch,
    witness: Witness,
}

/// Where a line is in its life.
#[derive(Debug)]
enum Line {
    /// Not started.
    Unborn,
    /// Under way to 101.
    Upgrading(Box<Upgrade>),
    /// On the line.
    Open(Box<OpenLine>),
    /// Failed or lost.
    Down,
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
            deadlines: VecDeque::new(),
            in_flight: 0,
            scratch: vec![0; SCRATCH_BYTES].into(),
            catch: Catch::new(Vec::new()),
            witness: Witness::new(share.first, share.count),
            plan,
            order,
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
            let patience = self.open_due();
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            events.iter().for_each(|event| self.handle_event(event));
            self.expire();
        };
        self.cut_all(cut);
        self.catch.witnesses.push(self.witness);
        Ok(self.catch)
    }

    fn tally(&self) -> &Tally {
        &self.tallies[self.index]
    }

    fn now(&self) -> Duration {
        self.clock.now().saturating_sub(self.ramp_start)
    }

    /// Opens the lines that are due and tells how long to wait for the next.
    fn open_due(&mut self) -> Duration {
        let settled = u32::try_from(sum(&self.tallies).settled()).unwrap_or(u32::MAX);
        for _ in 0..OPENS_PER_ITERATION_MAX {
            let now = self.now();
            match self.ramp.step(self.in_flight, settled, now) {
                Step::Open(line, intended) => {
                    self.tally().count_start(now - intended > LATE);
                    self.open_line(line, intended);
                }
                Step::Wait(wait) => return wait.min(PATIENCE),
                Step::Done => return PATIENCE,
            }
        }
        Duration::ZERO
    }

    fn open_line(&mut self, id: LineId, intended: Duration) {
        match self.connect(id, intended) {
            Ok(upgrade) => {
                self.in_flight += 1;
                self.deadlines
                    .push_back((self.now() + self.plan.open_timeout, id));
                *self.line(id) = Line::Upgrading(Box::new(upgrade));
            }
            Err(failure) => {
                *self.line(id) = Line::Down;
                self.tally().count_failed(failure);
            }
        }
    }

    /// Connects and sends the request at once where the connection stands at once, as it does on loopback.
    fn connect(&self, id: LineId, intended: Duration) -> Result<Upgrade, Failure> {
        let target = id.0 as usize % self.plan.targets.len();
        let stream = self
            .socket(id, self.plan.targets[target].address)
            .map_err(|e| Failure::socket(&e))?;
        let request = |out: &mut Vec<u8>, key: &str| {
            self.plan
                .dialect
                .write_upgrade(out, &self.plan.targets[target].authority, id, key);
        };
        let tls = self.plan.tls.as_ref().map(|tls| tls.open(id, target));
        let tls = tls
            .transpose()
            .map_err(|e| Failure::Protocol(e.to_string()))?;
        let mut upgrade = Upgrade::new(Transport::new(stream, tls), request, intended);
        let is_sent = upgrade.flush()?;
        let interest = if is_sent {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let registered = self
            .poll
            .registry()
            .register(upgrade.source(), self.token(id), interest);
        registered.map_err(|e| Failure::socket(&e))?;
        Ok(upgrade)
    }

    fn socket(&self, id: LineId, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM.nonblocking(),
            None,
        )?;
        if let Some(source) = source(&self.plan.sources, &self.plan.dialect.names, id) {
            // The port is chosen at connect, so that it is only taken for this pair of addresses.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
                Err(error)
            }
            Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
        }
    }

    fn handle_event(&mut self, event: &Event) {
        let index = event.token().0;
        let id = LineId(self.share.first.0 + u32::try_from(index).unwrap_or(u32::MAX));
        match mem::replace(&mut self.lines[index], Line::Down) {
            Line::Upgrading(upgrade) => self.advance_upgrade(id, upgrade),
            Line::Open(open) => self.visit(id, open, event.is_read_closed() || event.is_error()),
            line @ (Line::Unborn | Line::Down) => self.lines[index] = line,
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
                self.tally().count_open(upgrade.is_resumed());
                let waited = self.now().saturating_sub(upgrade.intended());
                self.catch.opening.record(waited);
                self.visit(id, Box::new(upgrade.into_open(tail)), false);
            }
            Err(failure) => {
                self.in_flight -= 1;
                self.tally().count_failed(failure);
            }
        }
    }

    /// Reads an open line until nothing is left, and puts it back unless it ended.
    fn visit(&mut self, id: LineId, mut open: Box<OpenLine>, is_ending: bool) {
        open.wake(is_ending);
        loop {
            match open.read() {
                Ok(Found::Ping) => self.tally().count_ping(),
                Ok(Found::Message(message)) => self.receive(id, &message),
                Ok(Found::Other) => {}
                Ok(Found::Nothing) => break *self.line(id) = Line::Open(open),
                Err(failure) => break self.tally().count_lost(failure),
            }
        }
    }

    /// What bears no mark is the server's own talk: a welcome, a go-away.
    fn receive(&mut self, id: LineId, message: &[u8]) {
        let Some(mark) = Mark::find(message) else {
            if memchr::memchr(crate::oracle::mark::FENCE, message).is_some() {
                self.witness.see_foreign();
            }
            return;
        };
        self.witness.see(id, mark);
        self.tally().count_message(message.len());
        if let Some(lap) = self.order.lap(mark.intended_ns) {
            let late_ns = nanoseconds(self.clock.now()).saturating_sub(mark.intended_ns);
            self.catch.record(lap, Duration::from_nanos(late_ns));
        }
    }

    fn expire(&mut self) {
        while let Some((_, id)) = self
            .deadlines
            .pop_front_if(|(deadline, _)| *deadline <= self.clock.now() - self.ramp_start)
        {
            if matches!(self.line(id), Line::Upgrading(_)) {
                *self.line(id) = Line::Down;
                self.in_flight -= 1;
                self.tally().count_failed(Failure::Timeout);
            }
        }
    }

    fn cut_all(&mut self, cut: Cut) {
        for line in mem::take(&mut self.lines) {
            if let Line::Open(mut open) = line {
                match cut {
                    Cut::Close => open.close(),
                    // Without it the port stays taken for a minute; that the socket may be gone already is fine.
                    Cut::Reset => {
                        drop(SockRef::from(open.stream()).set_linger(Some(Duration::ZERO)))
                    }
                }
            }
        }
    }

    fn token(&self, id: LineId) -> Token {
        Token((id.0 - self.share.first.0) as usize)
    }

    fn line(&mut self, id: LineId) -> &mut Line {
        let Token(index) = self.token(id);
        &mut self.lines[index]
    }
}
