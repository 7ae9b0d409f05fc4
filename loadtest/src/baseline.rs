//! What the kernel alone costs: a bare loop that sends frames over plain TCP sockets to random sinks.
//!
//! It is the ceiling a push server is held against. The sending threads do nothing but choose a socket and `send`; the
//! reading ones stand for the devices. Loopback delivers within `send`, so its cost has the receiving kernel's share in
//! it, as the server's has.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender as Post, channel};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use socket2::{Domain, Socket, Type};

use crate::clock::Clock;
use crate::descriptor;
use crate::name::{LineId, Names};
use crate::sample;
use crate::swarm::ramp::{Share, shares};
use crate::swarm::source::Sources;

/// A loop to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaselinePlan {
    /// Sockets to send to.
    pub(crate) sinks: u32,
    /// Bytes of a frame, its header included.
    pub(crate) frame_bytes: usize,
    /// Frames that may be sent and not yet read.
    pub(crate) window: u32,
    /// How long to send.
    pub(crate) duration: Duration,
    /// Fixes the choice of sockets.
    pub(crate) seed: u64,
}

/// What a loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Baseline {
    /// Frames sent.
    pub(crate) frames: u64,
    /// CPU time of the sending threads.
    pub(crate) cpu: Duration,
    /// The longest time one of them sent.
    pub(crate) time: Duration,
}

/// What the two threads of a share have in common.
#[derive(Debug, Default)]
struct Gauge {
    read_bytes: AtomicU64,
    is_done: AtomicBool,
}

const SINK_NET: u8 = 96;
const BACKLOG: i32 = 1_024;
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const OPEN_POLL: Duration = Duration::from_millis(1);
/// How long a sender waits for the sinks at a time; it then sends half a window before it looks again.
const WINDOW_POLL: Duration = Duration::from_micros(200);
const SINK_PATIENCE: Duration = Duration::from_millis(20);
const EVENTS_PER_ITERATION_MAX: usize = 1_024;
const SCRATCH_BYTES: usize = 16 * 1024;

impl Baseline {
    /// Runs the loop, on as many threads as the limit on descriptors asks for.
    pub(crate) fn measure(plan: BaselinePlan) -> io::Result<Self> {
        let names = Names::new(0, plan.sinks, 1);
        let share_max = descriptor::lines_per_thread(1.0)?;
        let shares = shares(names.first(), plan.sinks, share_max, 1);
        let (names, clock) = (&names, Clock::start());
        thread::scope(|scope| {
            let start = |share: Share| {
                let gauge = Arc::new(Gauge::default());
                let sink_gauge = gauge.clone();
                let (address_post, address) = channel();
                let (ready_post, ready) = channel();
                let sinks = scope.spawn(move || {
                    descriptor::separate(false)?;
                    read_all(share, names, &address, ready_post, &sink_gauge)
                });
                let sender = scope.spawn(move || {
                    descriptor::separate(false)?;
                    let sent = send_all(plan, share, &address_post, &ready, &gauge, clock);
                    gauge.is_done.store(true, Ordering::Relaxed);
                    sent
                });
                (sender, sinks)
            };
            let mut all = Self::default();
            let threads: Vec<_> = shares.into_iter().map(start).collect();
            for (sender, sinks) in threads {
                let panicked = |_| io::Error::other("a thread of the bare loop panicked");
                let (sent, read) = (sender.join(), sinks.join());
                read.map_err(panicked)??;
                all.add(sent.map_err(panicked)??);
            }
            Ok(all)
        })
    }

    /// CPU time of a frame.
    pub(crate) fn cpu_per_frame(&self) -> Duration {
        self.cpu / u32::try_from(self.frames.max(1)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, part: Self) {
        self.frames += part.frames;
        self.cpu += part.cpu;
        self.time = self.time.max(part.time);
    }
}

/// The bare loop.
fn send_all(
    plan: BaselinePlan,
    share: Share,
    address: &Post<SocketAddr>,
    ready: &Receiver<()>,
    gauge: &Gauge,
    clock: Clock,
) -> io::Result<Baseline> {
    let mut sockets = accept_all(share.count, address, clock)?;
    ready.recv().map_err(io::Error::other)?;
    let frame = vec![b'.'; plan.frame_bytes.max(1)];
    let window_bytes = u64::from(plan.window.max(2)) * frame.len() as u64;
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let (cpu, start) = (sample::thread_cpu()?, clock.now());
    let (mut frames, mut sent_bytes) = (0, 0);
    let mut time = Duration::ZERO;
    while time < plan.duration {
        while sent_bytes - gauge.read_bytes.load(Ordering::Relaxed) > window_bytes / 2
            && clock.now() < start + plan.duration
        {
            thread::park_timeout(WINDOW_POLL);
        }
        for _ in 0..plan.window.max(2) / 2 {
            let socket = &mut sockets[random.random_range(0..share.count as usize)];
            match socket.write(&frame) {
                Ok(count) => sent_bytes += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            frames += 1;
        }
        time = clock.now() - start;
    }
    let cpu = sample::thread_cpu()?.saturating_sub(cpu);
    Ok(Baseline { frames, cpu, time })
}

fn accept_all(count: u32, address: &Post<SocketAddr>, clock: Clock) -> io::Result<Vec<TcpStream>> {
    let listener = listen()?;
    address
        .send(listener.local_addr()?)
        .map_err(io::Error::other)?;
    let deadline = clock.now() + OPEN_TIMEOUT;
    let mut sockets = Vec::with_capacity(count as usize);
    while sockets.len() < count as usize {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                sockets.push(socket);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if clock.now() > deadline => return Err(ErrorKind::TimedOut.into()),
            Err(_) => thread::park_timeout(OPEN_POLL),
        }
    }
    Ok(sockets)
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The sinks of a share: connects, then reads until the sender is done.
fn read_all(
    share: Share,
    names: &Names,
    address: &Receiver<SocketAddr>,
    ready: Post<()>,
    gauge: &Gauge,
) -> io::Result<()> {
    let address = address.recv().map_err(io::Error::other)?;
    let sources = Sources::Loopback(SINK_NET);
    let mut poll = Poll::new()?;
    let mut sockets = Vec::with_capacity(share.count as usize);
    for index in 0..share.count {
        let line = LineId(share.first.0 + index);
        let mut socket = connect(address, sources.of(names, line, 0))?;
        let token = Token(index as usize);
        poll.registry()
            .register(&mut socket, token, Interest::READABLE)?;
        sockets.push(socket);
    }
    ready.send(()).map_err(io::Error::other)?;
    let mut events = Events::with_capacity(EVENTS_PER_ITERATION_MAX);
    let mut scratch = vec![0; SCRATCH_BYTES];
    while !gauge.is_done.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(SINK_PATIENCE)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for event in &events {
            drain(&mut sockets[event.token().0], &mut scratch, gauge)?;
        }
    }
    Ok(())
}

fn drain(socket: &mut mio::net::TcpStream, scratch: &mut [u8], gauge: &Gauge) -> io::Result<()> {
    loop {
        match socket.read(scratch) {
            Ok(count) => {
                gauge.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
                if count < scratch.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The sender is done before its sinks are.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<mio::net::TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(source) = source {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_loop_sends_to_all_its_sinks_and_costs_time() {
        let plan = BaselinePlan {
            sinks: 50,
            frame_bytes: 100,
            window: 64,
            duration: Duration::from_millis(50),
            seed: 1,
        };
        let baseline = Baseline::measure(plan).unwrap();
        assert!(baseline.frames > 0 && baseline.cpu > Duration::ZERO);
        assert!(baseline.time >= plan.duration && baseline.cpu_per_frame() > Duration::ZERO);
    }
}
