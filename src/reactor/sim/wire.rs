//! A simulated socket: two byte queues, with delay, back-pressure, half-close and reset.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use hashbrown::HashSet;
use mio::Token;

use crate::net::stream::{Io, Transport};

/// What lies between a device and its node.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Bytes from the device, with the millisecond from which the node can read them.
    inbound: VecDeque<(u64, Vec<u8>)>,
    /// Bytes from the node that the device has not read.
    pub(super) outbound: VecDeque<u8>,
    /// How much the node may have unread at the device before its sends block.
    pub(super) window: usize,
    /// The node's poll would report an edge.
    pub(super) has_edge: bool,
    /// The node waits for room.
    pub(super) wants_writes: bool,
    /// The device has finished.
    pub(super) is_finished: bool,
    /// The connection was reset by the network.
    pub(super) is_cut: bool,
    /// The node has finished, or dropped its end.
    pub(super) is_ended_by_node: bool,
    pub(super) is_dropped_by_node: bool,
    /// What the node registered it as.
    pub(super) token: Option<Token>,
    /// The messages whose last byte some wire of the world has taken.
    written: Rc<RefCell<HashSet<u64>>>,
    /// What the node has sent since the last message that was whole.
    unwritten: Vec<u8>,
    now_ms: u64,
}

/// The node's end of a wire.
#[derive(Debug)]
pub(super) struct NodeEnd(pub(super) Rc<RefCell<Wire>>);

impl Wire {
    pub(super) fn new(window: usize, written: Rc<RefCell<HashSet<u64>>>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            window,
            written,
            ..Self::default()
        }))
    }

    /// Puts bytes on the way to the node.
    pub(super) fn send(&mut self, bytes: &[u8], arrives_ms: u64) {
        // Bytes of one connection never overtake each other.
        let arrives_ms = self
            .inbound
            .back()
            .map_or(arrives_ms, |(last, _)| arrives_ms.max(*last));
        self.inbound.push_back((arrives_ms, bytes.to_vec()));
    }

    /// Lets time pass: what has arrived becomes an edge.
    pub(super) fn advance(&mut self, from_ms: u64, now_ms: u64) {
        self.now_ms = now_ms;
        self.has_edge |= self
            .inbound
            .iter()
            .any(|(at, _)| *at > from_ms && *at <= now_ms);
    }

    /// Takes everything that the node has sent.
    pub(super) fn read_all(&mut self) -> Vec<u8> {
        self.outbound.drain(..).collect()
    }

    /// Notes which messages are whole by now. Their data are numbers.
    fn note_written(&mut self, bytes: &[u8]) {
        const DATA: &[u8] = br#""data":"#;
        self.unwritten.extend_from_slice(bytes);
        let find = |bytes: &[u8]| bytes.windows(DATA.len()).position(|seven| seven == DATA);
        while let Some(at) = find(&self.unwritten) {
            let rest = &self.unwritten[at + DATA.len()..];
            let Some(end) = rest.iter().position(|byte| *byte == b'}') else {
                return;
            };
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            let number = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
            self.written.borrow_mut().insert(number);
            self.unwritten.drain(..at + DATA.len() + end);
        }
        // The beginning of a name may be the end of what has come so far.
        let keep = self.unwritten.len().min(DATA.len());
        self.unwritten.drain(..self.unwritten.len() - keep);
    }

    /// The device hangs up in order.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
        self.has_edge = true;
    }

    /// The connection breaks.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.has_edge = true;
        self.inbound.clear();
        self.outbound.clear();
    }
}

impl Transport for NodeEnd {
    type Poller = ();

    fn watch(&mut self, (): &(), token: Token) -> io::Result<()> {
        let mut wire = self.0.borrow_mut();
        wire.token = Some(token);
        wire.has_edge = true;
        Ok(())
    }

    fn watch_writes(&mut self, (): &(), _: Token, on: bool) -> io::Result<()> {
        self.0.borrow_mut().wants_writes = on;
        Ok(())
    }

    fn watches_writes(&self) -> bool {
        self.0.borrow().wants_writes
    }

    fn fill(&mut self, buf: &mut [u8]) -> Io {
        let mut wire = self.0.borrow_mut();
        if wire.is_cut {
            return Io::Failed(io::ErrorKind::ConnectionReset);
        }
        let (now_ms, is_finished) = (wire.now_ms, wire.is_finished);
        match wire.inbound.front_mut() {
            Some((at, bytes)) if *at <= now_ms => {
                let n = bytes.len().min(buf.len());
                buf[..n].copy_from_slice(&bytes[..n]);
                bytes.drain(..n);
                if bytes.is_empty() {
                    wire.inbound.pop_front();
                }
                // A short read must prove the socket empty, so what else has arrived is read along.
                drop(wire);
                match if n < buf.len() {
                    self.fill(&mut buf[n..])
                } else {
                    Io::Blocked
                } {
                    Io::Ready(more) => Io::Ready(n + more),
                    Io::Silent | Io::Blocked | Io::Closed | Io::Failed(_) | Io::Refused(_) => {
                        Io::Ready(n)
                    }
                }
            }
            Some(_) => Io::Blocked,
            None if is_finished => Io::Closed,
            None => Io::Blocked,
        }
    }

    fn flush(&mut self, bytes: &[u8]) -> Io {
        let mut wire = self.0.borrow_mut();
        if wire.is_cut {
            return Io::Failed(io::ErrorKind::BrokenPipe);
        }
        let n = bytes
            .len()
            .min(wire.window.saturating_sub(wire.outbound.len()));
        if n == 0 {
            return Io::Blocked;
        }
        wire.outbound.extend(&bytes[..n]);
        wire.note_written(&bytes[..n]);
        Io::Ready(n)
    }

    fn finish(&mut self) {
        self.0.borrow_mut().is_ended_by_node = true;
    }

    fn abort(&mut self) {}
}

impl Drop for NodeEnd {
    fn drop(&mut self) {
        let mut wire = self.0.borrow_mut();
        wire.is_ended_by_node = true;
        wire.is_dropped_by_node = true;
    }
}
