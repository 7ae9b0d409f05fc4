//! The reactors: what they share, how they start, how they stop.
//!
//! The order matters, because each reactor thread splits its own descriptor table off: polls and wakers are made
//! before the first does, so that their numbers mean the same everywhere; sockets are opened after the last has, so
//! that no table holds a stray copy that keeps a listener or a device alive.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use crate::api::ControlPlane;
use crate::base::close::CloseReason;
use crate::base::id::{NodeEpoch, ShardId};
use crate::config::Config;
use crate::error::StartError;
use crate::mailbox::command::{Command, Post};
use crate::metrics::node_cells;
use crate::net::fdtable::FdTable;
use crate::net::listener::{self, Listener, ListenerOptions};
use crate::net::tls::policy::TlsCell;
use crate::reactor::acceptor::Port;
use crate::reactor::idempotency::Window;
use crate::reactor::node::Node;
use crate::reactor::pressure::PressureGauge;
use crate::reactor::settings::Settings;
use crate::reactor::{Parts, Reactor, Seed};
use crate::route::account::Accounts;
use crate::route::address::Addresses;
use crate::route::event::Feed;
use crate::route::presence::Presence;
use crate::server::capacity::Capacity;

/// Everything that must exist before the first reactor splits its table off.
pub(super) struct Prepared {
    node: Arc<Node>,
    posts: Vec<Post>,
    seeds: Vec<Seed>,
    capacity: Capacity,
}

/// The running reactors.
pub(super) struct Engine {
    /// Where devices and back ends connect.
    pub(super) bound: Bound,
    /// How its reactors came by their descriptor tables.
    pub(super) table: FdTable,
    posts: Vec<Post>,
    threads: Vec<JoinHandle<()>>,
}

/// The addresses that were really bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) devices: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl Prepared {
    pub(super) fn new(
        config: &Config,
        settings: Settings,
        capacity: Capacity,
    ) -> Result<Self, StartError> {
        let mut seeds = Vec::new();
        let mut posts = Vec::new();
        for _ in 0..capacity.reactors {
            let seed = Seed::new(config.limits.mailbox_commands_max);
            let seed = seed.map_err(|source| StartError::System {
                step: "making a reactor's poll".into(),
                source,
            })?;
            posts.push(seed.post());
            seeds.push(seed);
        }
        let id: Arc<str> = config.node.id().into();
        let node = Arc::new(Node {
            epoch: NodeEpoch {
                node: fingerprint(&id),
                boot: rand::random(),
            },
            id,
            presence: Presence::new(config.limits.connections_max, capacity.reactors),
            accounts: Accounts::new(),
            settings: ArcSwap::from_pointee(settings),
            tls: TlsCell::load(config)?,
            cells: node_cells(usize::from(capacity.reactors)),
            window: Window::default(),
            sockets: AtomicU32::new(0),
            is_unready: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            events: Feed::default(),
            failed_reloads: AtomicU64::new(0),
            pressure: PressureGauge::default(),
            addresses: Addresses::default(),
        });
        Ok(Self {
            node,
            posts,
            seeds,
            capacity,
        })
    }

    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    pub(super) fn posts(&self) -> Vec<Post> {
        self.posts.clone()
    }

    /// Starts the reactors and waits until each listens, or until one has failed.
    #[expect(
        clippy::disallowed_methods,
        reason = "the origin of the monotonic clock"
    )]
    pub(super) fn start(
        self,
        config: &Config,
        control: &Arc<ControlPlane>,
    ) -> Result<Engine, StartError> {
        let started = Instant::now();
        let gate = Arc::new(Gate::new(config, self.seeds.len()));
        let (reports, starts) = mpsc::channel();
        let hands_over = config.listen.share && listener::queues_migrate();
        let mut threads = Vec::new();
        for (i, seed) in self.seeds.into_iter().enumerate() {
            let shard = ShardId(u16::try_from(i).unwrap_or(u16::MAX));
            let parts = Parts {
                shard,
                seed,
                posts: self.posts.clone(),
                node: Arc::clone(&self.node),
                started,
                slots_max: self.capacity.slots_max,
                hands_over,
            };
            let (gate, control, reports) =
                (Arc::clone(&gate), Arc::clone(control), reports.clone());
            let run = move || run_reactor(parts, &gate, &control, reports);
            let thread = std::thread::Builder::new()
                .name(format!("reactor-{i}"))
                .spawn(run);
            let thread = thread.map_err(|source| StartError::System {
                step: "starting a reactor thread".into(),
                source,
            })?;
            threads.push(thread);
        }
        drop(reports);
        let mut engine = Engine {
            bound: gate.unbound(),
            table: FdTable::Unshared,
            posts: self.posts,
            threads,
        };
        for start in starts {
            match start {
                Ok((bound, table)) => (engine.bound, engine.table) = (bound, table),
                Err(error) => {
                    engine.stop();
                    return Err(error);
                }
            }
        }
        Ok(engine)
    }
}

impl Engine {
    /// Closes what is left and waits for the reactors to end.
    pub(super) fn stop(self) {
        for (post, thread) in self.posts.iter().zip(&self.threads) {
            tell_to_stop(post, thread);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a reactor panicked");
            }
        }
    }
}

/// A full mailbox empties within an iteration or two; the reactor that owns it has to hear this one.
#[expect(
    clippy::disallowed_methods,
    reason = "the process is ending, and nothing else waits on this thread"
)]
fn tell_to_stop(post: &Post, thread: &JoinHandle<()>) {
    while post.post(Command::Stop(CloseReason::Shutdown)).is_err() && !thread.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The steps of a start that all reactors take together.
struct Gate {
    /// Every table is split off.
    split: Barrier,
    /// The first reactor has bound the ports, or failed to.
    bound: Barrier,
    addrs: OnceLock<Bound>,
    wanted: Bound,
    options: ListenerOptions,
    shares_ports: bool,
}

impl Gate {
    fn new(config: &Config, reactors: usize) -> Self {
        let backlog = i32::try_from(config.listen.backlog).unwrap_or(i32::MAX);
        Self {
            split: Barrier::new(reactors),
            bound: Barrier::new(reactors),
            addrs: OnceLock::new(),
            wanted: Bound {
                devices: config.listen.devices,
                api: config.listen.api,
                peer: config.listen.peer,
            },
            options: ListenerOptions {
                backlog,
                user_timeout: USER_TIMEOUT,
            },
            shares_ports: config.listen.share,
        }
    }

    fn unbound(&self) -> Bound {
        self.wanted
    }

    /// Opens the listeners of one reactor: the first finds out the ports, the others follow.
    fn listen(&self, shard: ShardId) -> Result<Vec<(Port, Listener)>, StartError> {
        self.split.wait();
        let mut first = Ok(Vec::new());
        if shard.0 == 0 {
            first = self.bind(self.wanted, !self.shares_ports);
            if let Ok(listeners) = &first {
                let addr = |i: usize| {
                    listeners
                        .get(i)
                        .and_then(|(_, socket)| socket.local_addr().ok())
                };
                if let (Some(devices), Some(api), Some(peer)) = (addr(0), addr(1), addr(2)) {
                    // Only the first reactor gets here, and once.
                    let bound = Bound { devices, api, peer };
                    self.addrs.set(bound).ok();
                }
            }
        }
        self.bound.wait();
        match self.addrs.get() {
            Some(addrs) if shard.0 != 0 => self.bind(*addrs, false),
            _ => first,
        }
    }

    fn bind(&self, addrs: Bound, probes: bool) -> Result<Vec<(Port, Listener)>, StartError> {
        let mut listeners = Vec::new();
        for (port, addr, key) in [
            (Port::Devices, addrs.devices, "listen.devices"),
            (Port::Api, addrs.api, "listen.api"),
            (Port::Peer, addrs.peer, "listen.peer"),
        ] {
            let probed = if probes && addr.port() != 0 {
                listener::probe(addr)
            } else {
                Ok(())
            };
            let socket = probed
                .and_then(|()| listener::bind(addr, self.options))
                .map_err(|source| StartError::listening(addr, key, source))?;
            listeners.push((port, socket));
        }
        Ok(listeners)
    }
}

type Start = Result<(Bound, FdTable), StartError>;

/// The life of a reactor thread.
fn run_reactor(
    parts: Parts,
    gate: &Gate,
    control: &Arc<ControlPlane>,
    reports: mpsc::Sender<Start>,
) {
    // Signals are for the control plane; one that landed here would write to a descriptor of another table.
    if let Err(error) = nix::sys::signal::SigSet::all().thread_block() {
        tracing::warn!(%error, "signals stay open on a reactor thread");
    }
    let table = FdTable::for_this_thread();
    let shard = parts.shard;
    let assembled = gate.listen(shard).and_then(|listeners| {
        let reactor = Reactor::new(parts, listeners, crate::api::fallback(control));
        reactor.map_err(|source| StartError::System {
            step: "assembling a reactor".into(),
            source,
        })
    });
    let (report, reactor) = match assembled {
        Ok(reactor) => (
            gate.addrs.get().map(|addrs| Ok((*addrs, table))),
            Some(reactor),
        ),
        Err(error) => (Some(Err(error)), None),
    };
    // Whoever waits for the report may have given up on another reactor's failure.
    report
        .into_iter()
        .for_each(|report| drop(reports.send(report)));
    // The start ends when every reactor has let go of its end.
    drop(reports);
    if let Some(reactor) = reactor
        && gate.addrs.get().is_some()
        && let Err(error) = reactor.run()
    {
        tracing::error!(shard = shard.0, %error, "a reactor's poll failed; its lines are gone");
    }
}

/// The first 32 bits of the id's SHA-256, so that every node computes the same for it.
fn fingerprint(id: &str) -> u32 {
    let digest = Sha256::digest(id.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// How long sent data may stay unacknowledged by the far end's kernel before the connection is given up: with the
/// 15 s of a pong, a peer that vanished is found out either way.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
