//! What hyper reads from and writes to: two buffers that the shard fills and empties.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;

/// The bytes between a socket and hyper.
///
/// There are no wakers in it: whoever fills or empties it polls the connection's task afterwards.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    input: Vec<u8>,
    /// How much of `input` hyper has read.
    read: usize,
    /// The far end has finished; hyper sees the end after the input.
    pub(crate) input_ended: bool,
    /// Answers that the outbox has not taken: hyper's, and those made in front of it.
    pub(crate) output: Vec<u8>,
    /// hyper has shut its side.
    pub(crate) output_ended: bool,
    /// hyper has written, and has not said that this was all: it may hold bytes back that found no room in `output`.
    is_unflushed: bool,
}

impl Pipe {
    /// Most bytes that wait for hyper before the socket is left alone.
    pub(crate) const INPUT_BYTES_MAX: usize = 64 * 1024;
    /// Most bytes that hyper may write before it must wait for the socket.
    const OUTPUT_BYTES_MAX: usize = 256 * 1024;
    /// What an idle API connection keeps of the room for bytes that wait: a usual request's.
    pub(super) const SPARE_BYTES: usize = 2 * 1024;

    /// Bytes that wait for hyper.
    pub(crate) fn unread(&self) -> usize {
        self.input.len() - self.read
    }

    /// Whether hyper has nothing to read or to write.
    pub(crate) fn is_quiet(&self) -> bool {
        self.unread() == 0 && !self.is_unflushed
    }

    /// Whether hyper finds no room for what else it has to say.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= Self::OUTPUT_BYTES_MAX
    }

    /// Where bytes for hyper are to be appended.
    pub(crate) fn input(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    fn read(&mut self, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let unread = &self.input[self.read..];
        if unread.is_empty() {
            return if self.input_ended {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        let n = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..n]);
        self.read += n;
        if self.read == self.input.len() {
            self.input.clear();
            self.input.shrink_to(Self::SPARE_BYTES);
            self.read = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let n = bytes
            .len()
            .min(Self::OUTPUT_BYTES_MAX.saturating_sub(self.output.len()));
        self.is_unflushed = true;
        if n == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        self.output.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }
}

/// hyper's end of the pipe.
#[derive(Clone, Debug)]
pub(crate) struct PipeEnd(pub(crate) Rc<RefCell<Pipe>>);

impl hyper::rt::Read for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().read(&mut buf)
    }
}

impl hyper::rt::Write for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().write(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It flushes when its own buffer is empty, and not before.
        self.0.borrow_mut().is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().output_ended = true;
        Poll::Ready(Ok(()))
    }
}
