//! Streams whose reads and writes have outcomes: hanging up is one of them, not an error.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// What became of a read or a write that never blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// This many bytes moved; never zero.
    Ready(usize),
    /// Nothing moves now; the poll will tell when it does.
    Blocked,
    /// The far end has closed its side.
    Closed,
    /// The socket is broken.
    Failed(io::ErrorKind),
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

    /// Reads what is there.
    fn fill(&mut self, buf: &mut [u8]) -> Io;

    /// Writes as much as the socket takes. `bytes` must not be empty.
    fn flush(&mut self, bytes: &[u8]) -> Io;

    /// Tells the far end that nothing more will come.
    fn finish(&mut self);

    /// Makes dropping the stream reset the connection instead of closing it in order.
    fn abort(&mut self);
}

impl Transport for TcpStream {
    type Poller = Registry;

    fn watch(&mut self, poller: &Registry, token: Token) -> io::Result<()> {
        poller.register(self, token, Interest::READABLE)
    }

    fn watch_writes(&mut self, poller: &Registry, token: Token, on: bool) -> io::Result<()> {
        let interest = if on {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        poller.reregister(self, token, interest)
    }

    fn fill(&mut self, buf: &mut [u8]) -> Io {
        outcome(retry(|| self.read(buf)))
    }

    fn flush(&mut self, bytes: &[u8]) -> Io {
        outcome(retry(|| self.write(bytes)))
    }

    fn finish(&mut self) {
        // The far end may be gone already, which is as good.
        self.shutdown(Shutdown::Write).ok();
    }

    fn abort(&mut self) {
        // Without the option the close is merely in order.
        socket2::SockRef::from(&*self)
            .set_linger(Some(std::time::Duration::ZERO))
            .ok();
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn outcome(result: io::Result<usize>) -> Io {
    match result {
        Ok(0) => Io::Closed,
        Ok(n) => Io::Ready(n),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Io::Blocked,
        Err(error) => Io::Failed(error.kind()),
    }
}
