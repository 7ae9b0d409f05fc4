//! One keep-alive connection to the sending API, with a window of unanswered pushes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;

use crate::dialect::LineId;
use crate::sender::response::Response;

/// A push that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) line: LineId,
    pub(super) sequence: u32,
    pub(super) intended: Duration,
}

/// A connection, what is on its way in both directions, and what could not leave yet.
#[derive(Debug)]
pub(super) struct Connection {
    /// The socket, to register it.
    pub(super) stream: TcpStream,
    /// Pushes without an answer, oldest first.
    pub(super) pending: VecDeque<Pending>,
    /// Intended times of pushes that wait for room in the window.
    pub(super) backlog: VecDeque<Duration>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    is_ended: bool,
}

const READ_BYTES: usize = 8 * 1024;

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            pending: VecDeque::new(),
            backlog: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
            is_ended: false,
        }
    }

    /// Whether it will carry nothing more.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Where the next request goes; [`flush`](Self::flush) sends it.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return self.end(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads all answers that are there, each with the push it answers.
    ///
    /// `is_ending` tells that the server will send no more, so that a short read does not prove the socket empty.
    pub(super) fn fill(
        &mut self,
        is_ending: bool,
        mut handle: impl FnMut(Pending, u16),
    ) -> io::Result<()> {
        loop {
            let end = self.read_some(is_ending)?;
            self.take_answers(&mut handle)?;
            match end {
                ReadEnd::More => {}
                ReadEnd::Drained => return Ok(()),
                ReadEnd::Eof => return self.end(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Gives up on all pushes without an answer.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Pending> + '_ {
        self.is_ended = true;
        self.pending.drain(..)
    }

    fn read_some(&mut self, is_ending: bool) -> io::Result<ReadEnd> {
        let length = self.input.len();
        self.input.resize(length + READ_BYTES, 0);
        let result = self.stream.read(&mut self.input[length..]);
        self.input.truncate(length + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Ok(ReadEnd::Eof),
            Ok(count) if count < READ_BYTES && !is_ending => Ok(ReadEnd::Drained),
            Ok(_) => Ok(ReadEnd::More),
            Err(error) if is_not_yet(&error) => Ok(ReadEnd::Drained),
            Err(error) => self.end(error),
        }
    }

    fn take_answers(&mut self, handle: &mut impl FnMut(Pending, u16)) -> io::Result<()> {
        let mut taken = 0;
        while let Some(response) =
            Response::parse(&self.input[taken..]).map_err(io::Error::other)?
        {
            let unasked = || io::Error::other("an answer nobody asked for");
            let pending = self.pending.pop_front().ok_or_else(unasked)?;
            handle(pending, response.status);
            taken += response.length;
            if response.is_last {
                return self.end(io::Error::other("the server closes the connection"));
            }
        }
        self.input.drain(..taken);
        Ok(())
    }

    fn end<T>(&mut self, error: io::Error) -> io::Result<T> {
        self.is_ended = true;
        Err(error)
    }
}

enum ReadEnd {
    More,
    Drained,
    Eof,
}

/// Whether a socket only asks to come back later; a write before the connection stands says so too.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
