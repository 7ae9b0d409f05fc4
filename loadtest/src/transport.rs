//! What a line's bytes go through: its socket, and TLS where it speaks it.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::tls::stream::TlsStream;

/// A stream of bytes to the server.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Tap,
    tls: Option<Box<TlsStream>>,
}

/// A socket that remembers a short read: it is empty then, and asking it again would cost a system call.
#[derive(Debug)]
struct Tap {
    stream: TcpStream,
    is_drained: bool,
    is_ending: bool,
}

impl Transport {
    /// A stream over a socket.
    pub(crate) fn new(stream: TcpStream, tls: Option<Box<TlsStream>>) -> Self {
        let socket = Tap {
            stream,
            is_drained: false,
            is_ending: true,
        };
        Self { socket, tls }
    }

    /// Starts a visit. `is_ending` tells that a short read does not prove the socket empty: the server will send no more,
    /// or the socket blocks.
    pub(crate) fn wake(&mut self, is_ending: bool) {
        self.socket.is_drained = false;
        self.socket.is_ending = is_ending;
    }

    /// Whether an earlier TLS session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    /// The socket, to cut it.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.socket.stream
    }

    /// The bare socket.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.socket.stream
    }

    /// The socket, to register it.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        &mut self.socket.stream
    }
}

impl Read for Transport {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buf),
            Some(tls) => tls.read(&mut self.socket, buf),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(buf),
            Some(tls) => tls.write(&mut self.socket, buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&mut self.socket),
        }
    }
}

impl Read for Tap {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.stream.read(buf)?;
        self.is_drained = count < buf.len() && !self.is_ending;
        Ok(count)
    }
}

impl Write for Tap {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
