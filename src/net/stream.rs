//! Streams whose reads and writes have outcomes: hanging up is one of them, not an error.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::metrics::TlsFailure;
use crate::net::layer::{Layer, News};
use crate::net::tls::policy::TlsPolicy;

/// What became of a read or a write that never blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// This many bytes moved; zero only where the records that the socket took carried none of ours.
    Ready(usize),
    /// Bytes came, and none for us: there may be more.
    Silent,
    /// Nothing moves now; the poll will tell when it does.
    Blocked,
    /// The far end has closed its side.
    Closed,
    /// The socket is broken.
    Failed(io::ErrorKind),
    /// The far end does not speak as it must before the application is heard. The stream carries what it still can.
    Refused(Breach),
}

/// What the far end did wrong before its first byte for the application, or in the wrapping of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// TLS failed. After [`TlsFailure::NotTls`] the stream is a plain one, so that the far end can be told.
    Tls(TlsFailure),
    /// No PROXY header came from where one must.
    ProxyHeader,
}

/// A non-blocking byte stream and how it is watched: TCP in the server, a pipe with faults in the simulator.
pub trait Transport {
    /// What readiness is registered with.
    type Poller;

    /// Begins watching for readability, edge-triggered.
    ///
    /// # Errors
    /// When the kernel refuses the registration.
    fn watch(&mut self, poller: &Self::Poller, token: Token) -> io::Result<()>;

    /// Starts or stops watching for writability as well: on only while a send has blocked.
    ///
    /// # Errors
    /// When the kernel refuses the change.
    fn watch_writes(&mut self, poller: &Self::Poller, token: Token, on: bool) -> io::Result<()>;

    /// Whether it is watched for writability.
    fn watches_writes(&self) -> bool;

    /// Reads what is there.
    fn fill(&mut self, buf: &mut [u8]) -> Io;

    /// Whether there may be more although the last [`Self::fill`] did not fill its buffer.
    fn holds_more(&self) -> bool {
        false
    }

    /// What became known about the far end since this was asked last.
    fn take_news(&mut self) -> Option<News> {
        None
    }

    /// Whether the far end cannot be heard or spoken to yet.
    fn is_opening(&self) -> bool {
        false
    }

    /// Writes as much as the socket takes. `bytes` must not be empty; what was not reported as moved must come again.
    fn flush(&mut self, bytes: &[u8]) -> Io;

    /// How many of the bytes that must come again are on their way already, so that nothing else may come in their place.
    fn pledged(&self) -> usize {
        0
    }

    /// Whether the stream holds bytes of its own that the socket has not taken.
    fn owes(&self) -> bool {
        false
    }

    /// Hands the socket what the stream [`Self::owes`]; to be called while nobody has anything else to write.
    fn settle(&mut self) -> Io {
        Io::Blocked
    }

    /// Takes leave of the far end as the stream's own protocol wants it, before it is dropped in order.
    fn say_goodbye(&mut self) {}

    /// Tells the far end that nothing more will come.
    fn finish(&mut self);

    /// Makes dropping the stream reset the connection instead of closing it in order.
    fn abort(&mut self);
}

/// A socket with what lies between it and the application's bytes.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// Kept here, where it takes no room of its own.
    watches_writes: bool,
    layer: Option<Box<Layer>>,
}

/// Without its layers a line pays for no more than two words.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Stream>() == 16);

impl Stream {
    /// A socket just accepted: from a load balancer that announces for whom, or not; with TLS, or without.
    pub fn new(socket: TcpStream, is_proxied: bool, tls: Option<Arc<TlsPolicy>>) -> Self {
        Self {
            socket,
            watches_writes: false,
            layer: Layer::new(is_proxied, tls),
        }
    }

    fn shut(&self) {
        // The far end may be gone already, which is as good.
        self.socket.shutdown(Shutdown::Write).ok();
    }
}

impl Transport for Stream {
    type Poller = Registry;

    fn watch(&mut self, poller: &Registry, token: Token) -> io::Result<()> {
        poller.register(&mut self.socket, token, Interest::READABLE)
    }

    fn watch_writes(&mut self, poller: &Registry, token: Token, on: bool) -> io::Result<()> {
        let interest = if on {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.watches_writes = on;
        poller.reregister(&mut self.socket, token, interest)
    }

    fn watches_writes(&self) -> bool {
        self.watches_writes
    }

    fn fill(&mut self, buf: &mut [u8]) -> Io {
        match &mut self.layer {
            None => outcome(retry(|| self.socket.read(buf))),
            Some(layer) => layer.fill(&mut self.socket, buf),
        }
    }

    fn holds_more(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.holds_more())
    }

    fn take_news(&mut self) -> Option<News> {
        let news = self.layer.as_mut()?.take_news();
        self.layer.take_if(|layer| layer.is_spent());
        news
    }

    fn is_opening(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.is_opening())
    }

    fn flush(&mut self, bytes: &[u8]) -> Io {
        match &mut self.layer {
            None => outcome(retry(|| self.socket.write(bytes))),
            Some(layer) => layer.flush(&mut self.socket, bytes),
        }
    }

    fn pledged(&self) -> usize {
        self.layer.as_ref().map_or(0, |layer| layer.pledged())
    }

    fn owes(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.owes())
    }

    fn settle(&mut self) -> Io {
        let Some(layer) = &mut self.layer else {
            return Io::Blocked;
        };
        let settled = layer.settle(&mut self.socket);
        if layer.may_finish() {
            self.shut();
        }
        settled
    }

    fn say_goodbye(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.say_goodbye(&mut self.socket);
        }
    }

    fn finish(&mut self) {
        self.say_goodbye();
        if self.layer.as_mut().is_none_or(|layer| layer.begin_finish()) {
            self.shut();
        }
    }

    fn abort(&mut self) {
        // Without the option the close is merely in order.
        socket2::SockRef::from(&self.socket)
            .set_linger(Some(std::time::Duration::ZERO))
            .ok();
    }
}

pub(super) fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(super) fn outcome(result: io::Result<usize>) -> Io {
    match result {
        Ok(0) => Io::Closed,
        Ok(n) => Io::Ready(n),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Io::Blocked,
        Err(error) => Io::Failed(error.kind()),
    }
}
