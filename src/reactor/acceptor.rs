//! Who comes in: listeners, admission, and what happens when the kernel has no descriptor left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::base::close::CloseReason;
use crate::base::time::Now;
use crate::metrics::Refusal;
use crate::net::listener::narrow;
use crate::net::stream::{Stream, Transport};
use crate::protocol::upgrade::{Door, Upgrade};
use crate::reactor::admission::ADMITTED_MAX;
use crate::reactor::api::conn::ApiConn;
use crate::reactor::conn::Phase;
use crate::reactor::pressure::Pressure;
use crate::reactor::shard::Shard;
use crate::route::address::{AddressKey, Standing};

/// The listeners of one reactor.
#[derive(Debug)]
pub struct Acceptor {
    listeners: Vec<Listener>,
    /// After running out of descriptors: when to try again. No new edge would come for what waits in the backlog.
    retry_at_ms: u64,
    /// The kernel hands what waits in the queue of a listener that closes to another process.
    hands_over: bool,
}

#[derive(Debug)]
struct Listener {
    port: Port,
    socket: TcpListener,
    /// The kernel may hold connections that were not taken.
    has_backlog: bool,
}

/// Who connects to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Devices, by WebSocket.
    Devices,
    /// Back ends, by HTTP.
    Api,
    /// Back ends that stream, by WebSocket.
    Peer,
}

impl Acceptor {
    /// Registers the listeners with the reactor's poll.
    ///
    /// # Errors
    /// When the kernel refuses a registration.
    pub fn new(
        listeners: Vec<(Port, TcpListener)>,
        hands_over: bool,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut listeners: Vec<_> = listeners
            .into_iter()
            .map(|(port, socket)| Listener {
                port,
                socket,
                has_backlog: true,
            })
            .collect();
        for (i, listener) in listeners.iter_mut().enumerate() {
            registry.register(&mut listener.socket, listener_token(i), Interest::READABLE)?;
        }
        Ok(Self {
            listeners,
            retry_at_ms: 0,
            hands_over,
        })
    }

    /// Closes the listeners. Whoever waits in their queues believes itself connected, and a close would reset it: so each
    /// is taken in first, and is told 503.
    pub(crate) fn close(&mut self, shard: &mut Shard<Stream>, now: Now) {
        let mut waited = 0;
        for listener in self.listeners.drain(..).filter(|_| !self.hands_over) {
            // A queue that stays as it is will do as well, if connects are fewer than can be taken.
            narrow(&listener.socket).ok();
            while waited < ACCEPTS_AT_CLOSE_MAX {
                match listener.socket.accept() {
                    Ok((socket, from)) => {
                        waited += 1;
                        shard.admit(socket, from, listener.port, now);
                    }
                    Err(error) if has_died_in_queue(&error) => {}
                    Err(_) => break,
                }
            }
        }
        if waited > 0 {
            let shard = shard.id.0;
            tracing::info!(
                shard,
                waited,
                "listeners closed; who waited there is told 503"
            );
        }
    }

    /// Whether a token is a listener's.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.index(token).is_some()
    }

    /// Notes that a listener has connections.
    pub(crate) fn note(&mut self, token: Token) {
        if let Some(listener) = self.index(token).and_then(|i| self.listeners.get_mut(i)) {
            listener.has_backlog = true;
        }
    }

    fn index(&self, token: Token) -> Option<usize> {
        (0..self.listeners.len()).find(|&i| listener_token(i) == token)
    }

    /// Whether connections wait that may be taken now.
    pub(crate) fn has_backlog(&self, now: Now) -> bool {
        now.ms() >= self.retry_at_ms && self.listeners.iter().any(|listener| listener.has_backlog)
    }

    /// When accepting is tried again after the kernel ran out; `u64::MAX` when it has not.
    pub(crate) fn retry_at_ms(&self) -> u64 {
        let is_waiting = self.listeners.iter().any(|listener| listener.has_backlog);
        if is_waiting {
            self.retry_at_ms
        } else {
            u64::MAX
        }
    }

    /// Takes connections in, up to a budget; the queue is never left full on purpose, because a client whose
    /// connection waits there believes itself connected.
    pub(crate) fn accept(&mut self, shard: &mut Shard<Stream>, now: Now) {
        if !self.has_backlog(now) {
            return;
        }
        for listener in &mut self.listeners {
            for _ in 0..ACCEPTS_PER_ITERATION_MAX {
                match listener.socket.accept() {
                    Ok((socket, from)) => shard.admit(socket, from, listener.port, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.has_backlog = false;
                        break;
                    }
                    Err(error) => {
                        shard.cells().accept_errors.add(1);
                        if has_died_in_queue(&error) {
                            continue;
                        }
                        self.retry_at_ms = now.ms() + ACCEPT_RETRY_MS;
                        break;
                    }
                }
            }
        }
    }
}

impl Shard<Stream> {
    /// Gives a new connection its slot, or its refusal.
    fn admit(&mut self, socket: TcpStream, from: SocketAddr, port: Port, now: Now) {
        self.cells().accepted.add(1);
        self.admission.note_passage(ACCEPT_US);
        // A listener for both families shows IPv4 addresses inside IPv6 ones.
        let from = from.ip().to_canonical();
        let policies = self.node.tls.policies.load();
        match port {
            Port::Devices => {
                let networks = &self.settings.proxy_networks;
                let is_proxied = networks.iter().any(|network| network.contains(&from));
                let stream = Stream::new(socket, is_proxied, policies.devices.clone());
                // Of a proxied connection it is not known yet for whom it is made.
                let source = (!is_proxied)
                    .then(|| self.weigh_source(from, now))
                    .flatten();
                self.admit_socket(stream, from, Door::Devices, source, now);
            }
            Port::Peer => {
                let stream = Stream::new(socket, false, policies.peer.clone());
                self.admit_socket(stream, from, Door::Peer, None, now);
            }
            // A back end gets no answer but this one any more.
            Port::Api if self.is_stopping => {
                let stream = Stream::new(socket, false, policies.api.clone());
                self.admit_socket(stream, from, Door::Peer, None, now);
            }
            Port::Api => self.admit_api(Stream::new(socket, false, policies.api.clone()), now),
        }
    }

    fn admit_api(&mut self, stream: Stream, now: Now) {
        let api_connections_max =
            u64::from(self.settings.api.connections_max) / self.node.cells.len() as u64;
        if self.cells().api_connections.value() >= api_connections_max.max(1) {
            return self.shut_out(stream, None);
        }
        let conn = Box::new(ApiConn::new(now));
        if stream.is_opening() {
            conn.await_tls(now);
        }
        if self.open(stream, Phase::Api(conn), now).is_some() {
            self.cells().api_connections.add(1);
        }
    }
}

impl<T: Transport> Shard<T> {
    /// Lets a socket in that is to become a line or a stream, or has it told why not. `source` is its address, if that is
    /// limited, and how it stands.
    pub(crate) fn admit_socket(
        &mut self,
        stream: T,
        from: IpAddr,
        door: Door,
        source: Option<(AddressKey, Standing)>,
        now: Now,
    ) {
        let standing = source.map_or(Standing::Good, |(_, standing)| standing);
        let limits = &self.settings.limits;
        let sockets = self.node.sockets.fetch_add(1, Ordering::Relaxed);
        let handshakes_max = u64::from(limits.handshakes_max) / self.node.cells.len() as u64;
        // Senders share the table: a flood of devices must not shut them out.
        let spare = (self.slots_max / 8).clamp(1, SPARE_SLOTS_MAX);
        let is_crowded = self.arena.len() >= self.slots_max.saturating_sub(2 * spare);
        let is_draining = self.is_stopping || self.node.is_draining.load(Ordering::Relaxed);
        let turned_away = if is_draining {
            Some(Refusal::Draining)
        } else if self.node.pressure.level() >= Pressure::RefuseLines {
            Some(Refusal::Memory)
        } else if self.cells().handshakes.value() >= handshakes_max
            || match door {
                Door::Devices => is_crowded || sockets >= limits.connections_max,
                Door::Peer => self.cells().streams.value() >= self.streams_max(),
            }
        {
            Some(Refusal::TableFull)
        } else if standing != Standing::Good {
            Some(Refusal::AddressLimit)
        } else {
            None
        };
        let is_hopeless = standing == Standing::Hopeless
            || self.arena.len() >= self.slots_max.saturating_sub(spare)
            || sockets
                >= limits
                    .connections_max
                    .saturating_add(REFUSALS_IN_FLIGHT_MAX);
        let upgrade = Phase::Upgrade(Box::new(Upgrade::new(door, from, turned_away, now)));
        if is_hopeless {
            self.shut_out(stream, turned_away);
        } else if let Some(id) = self.open(stream, upgrade, now) {
            if let Some((key, _)) = source {
                self.keep_source(id.slot, key);
            }
            return self.cells().handshakes.add(1);
        } else {
            self.cells().refused[Refusal::TableFull as usize].add(1);
        }
        if let Some((key, _)) = source {
            self.drop_source(key, now);
        }
        self.node.dismiss();
    }

    /// This shard's part of the streams a node may have.
    fn streams_max(&self) -> u64 {
        let streams_max = u64::from(self.settings.api.streams_max);
        streams_max.div_ceil(self.node.cells.len() as u64)
    }

    /// Resets a connection that there is not even room to refuse.
    fn shut_out(&self, mut stream: T, refusal: Option<Refusal>) {
        stream.abort();
        let refusal = refusal.unwrap_or(Refusal::TableFull);
        self.cells().refused[refusal as usize].add(1);
        self.cells().closed[CloseReason::Overload as usize].add(1);
    }
}

/// Whether one connection was aborted before it was taken; the next one may be well.
fn has_died_in_queue(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

fn listener_token(index: usize) -> Token {
    Token(usize::MAX - 1 - index)
}

/// Taking a connection in, without hearing it.
const ACCEPT_US: u64 = 8;
/// Connections taken from one listener per iteration: no more than are admitted at best, so that they do not pile up inside.
/// Established lines have their turn in between.
const ACCEPTS_PER_ITERATION_MAX: u32 = ADMITTED_MAX;
/// Connections taken from the queues of listeners that close: more than they hold, so that the end does not depend on
/// who keeps connecting.
const ACCEPTS_AT_CLOSE_MAX: u32 = 65_536;
/// How long to leave the listeners alone after the kernel ran out of descriptors or memory.
const ACCEPT_RETRY_MS: u64 = 100;
/// Slots of a shard kept for API connections, and as many for devices that are being refused: an eighth of a small
/// table, and no more than this of a large one.
const SPARE_SLOTS_MAX: u32 = 256;
/// Sockets over the limit that are heard and told 503; more are reset.
const REFUSALS_IN_FLIGHT_MAX: u32 = 1_024;
