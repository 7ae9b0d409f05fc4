//! One connection: a socket, what it is doing, and the little it owns while idle.

use crate::base::close::CloseReason;
use crate::base::time::Tick;
use crate::base::wheel::TimerId;
use crate::net::stream::Transport;
use crate::protocol::device::Device;
use crate::protocol::stream::Stream;
use crate::protocol::upgrade::Upgrade;
use crate::reactor::api::conn::ApiConn;
use crate::reactor::outbox::Outbox;
use crate::reactor::settings::Settings;
use crate::ws::decoder::Decoder;

/// One accepted socket. An idle line is this record, its cells in the arena, its identity and its presence entry.
#[derive(Debug)]
pub(crate) struct Conn<T> {
    pub(crate) stream: T,
    pub(crate) phase: Phase,
    /// Bytes of a frame or message that is not complete.
    pub(crate) decoder: Decoder,
    /// Frames the socket has not taken.
    pub(crate) outbox: Option<Box<Outbox>>,
    /// Where the wheel has the connection's earliest deadline, if it has any.
    pub(crate) timer: Option<TimerId>,
    pub(crate) flags: Flags,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Sending its request head, or the token in its first message.
    Upgrade(Box<Upgrade>),
    /// An authenticated device.
    Device(Device),
    /// An authenticated back end that streams.
    Stream(Box<Stream>),
    /// A back end speaking HTTP.
    Api(Box<ApiConn>),
    /// Ended: the last bytes are on their way, what still comes is dropped.
    Closing(Box<Closing>),
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct Closing {
    /// When it is dropped even if the far end keeps it open.
    pub(crate) deadline: Tick,
    /// Whether to wait for the far end to finish, so that unread bytes do not turn our last words into a reset.
    pub(crate) awaits_end: bool,
    /// Our side was shut.
    pub(crate) is_finished: bool,
    /// A socket of a device or a stream, which counts against the node's limit.
    pub(crate) holds_place: bool,
}

/// What is going on with a connection within an iteration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// In the dirty list: there is something to flush.
    pub(crate) is_dirty: bool,
    /// In the unread list: its socket may hold more than one visit's budget.
    pub(crate) is_unread: bool,
    /// The poll has seen the far end finish.
    pub(crate) is_read_closed: bool,
    /// To be buried at the end of the iteration, for this reason.
    pub(crate) closing: Option<CloseReason>,
}

impl<T: Transport> Conn<T> {
    /// Whether it has yet to show who it is, and so comes after everybody else.
    pub(crate) fn is_newcomer(&self) -> bool {
        matches!(self.phase, Phase::Upgrade(_)) || self.stream.is_opening()
    }

    pub(crate) fn new(stream: T, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            decoder: Decoder::default(),
            outbox: None,
            timer: None,
            flags: Flags::default(),
        }
    }

    /// The device, if the connection is an open line.
    pub(crate) fn device(&self) -> Option<&Device> {
        match self.open_phase()? {
            Phase::Device(device) => Some(device),
            Phase::Upgrade(_) | Phase::Stream(_) | Phase::Api(_) | Phase::Closing(_) => None,
        }
    }

    /// The device, if the connection is an open line.
    pub(crate) fn device_mut(&mut self) -> Option<&mut Device> {
        match self.open_phase_mut()? {
            Phase::Device(device) => Some(device),
            Phase::Upgrade(_) | Phase::Stream(_) | Phase::Api(_) | Phase::Closing(_) => None,
        }
    }

    /// The stream, if the connection is an open one.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match self.open_phase()? {
            Phase::Stream(stream) => Some(stream),
            Phase::Upgrade(_) | Phase::Device(_) | Phase::Api(_) | Phase::Closing(_) => None,
        }
    }

    /// The stream, if the connection is an open one.
    pub(crate) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match self.open_phase_mut()? {
            Phase::Stream(stream) => Some(stream),
            Phase::Upgrade(_) | Phase::Device(_) | Phase::Api(_) | Phase::Closing(_) => None,
        }
    }

    /// Whether a ping of ours is unanswered, if the connection is an open line or stream.
    pub(crate) fn is_pong_awaited_mut(&mut self) -> Option<&mut bool> {
        match self.open_phase_mut()? {
            Phase::Device(device) => Some(&mut device.is_pong_awaited),
            Phase::Stream(stream) => Some(&mut stream.is_pong_awaited),
            Phase::Upgrade(_) | Phase::Api(_) | Phase::Closing(_) => None,
        }
    }

    /// The phase, unless the connection is about to be closed.
    fn open_phase(&self) -> Option<&Phase> {
        self.flags.closing.is_none().then_some(&self.phase)
    }

    fn open_phase_mut(&mut self) -> Option<&mut Phase> {
        self.flags.closing.is_none().then_some(&mut self.phase)
    }

    /// The earliest moment at which the connection ends unless something happens, and the reason it would have.
    pub(crate) fn deadline(&self, settings: &Settings) -> Option<(Tick, CloseReason)> {
        let phase = match &self.phase {
            Phase::Upgrade(upgrade) => Some((
                upgrade.opened.after(settings.limits.handshake_timeout),
                CloseReason::HandshakeTimeout,
            )),
            Phase::Device(_) | Phase::Stream(_) => None,
            Phase::Api(api) => api.deadline(&settings.api),
            Phase::Closing(closing) => Some((closing.deadline, CloseReason::PeerClosed)),
        };
        // A stream may be cut off in the middle of a record by the node itself, when its window is full; its heartbeat
        // finds out whether it lives.
        let is_timed = !matches!(self.phase, Phase::Stream(_));
        let incomplete = self.decoder.incomplete_since().filter(|_| is_timed);
        let message = incomplete.map(|since_ms| {
            (
                Tick::at_ms(since_ms).after(settings.limits.message_timeout),
                CloseReason::PolicyViolation,
            )
        });
        let outbox = self
            .outbox
            .as_ref()
            .and_then(|outbox| outbox.stalled_since_ms())
            .map(|since_ms| {
                (
                    Tick::at_ms(since_ms).after(settings.limits.outbox_stall_timeout),
                    CloseReason::SlowConsumer,
                )
            });
        [phase, message, outbox]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
