//! One keep-alive connection to the sending API, with a window of unanswered pushes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::dialect::Dialect;
use crate::node::target::Target;
use crate::oracle::Answer;
use crate::sender::connection::{Connection, Pending, Reply};
use crate::sender::response::Response;

/// A connection, and what is on its way in both directions.
#[derive(Debug)]
pub(super) struct HttpConnection {
    dialect: Arc<Dialect>,
    host: String,
    pipeline: usize,
    stream: TcpStream,
    /// Pushes without an answer, oldest first.
    pending: VecDeque<Pending>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    is_ended: bool,
}

const READ_BYTES: usize = 8 * 1024;

impl HttpConnection {
    /// Connects, without waiting for the connection to stand.
    pub(super) fn open(api: &Target, dialect: Arc<Dialect>, pipeline: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(api.address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            dialect,
            host: api.authority.clone(),
            pipeline,
            stream,
            pending: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
            is_ended: false,
        })
    }
}

impl Connection for HttpConnection {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.stream, token, interest)
    }

    fn has_room(&self) -> bool {
        !self.is_ended && self.pending.len() < self.pipeline
    }

    fn push(&mut self, pending: Pending, body: &[u8]) -> io::Result<()> {
        self.dialect
            .write_push(&mut self.out, &self.host, pending.line, body);
        self.pending.push_back(pending);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
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

    fn fill(&mut self, is_ending: bool, handle: &mut dyn FnMut(Reply<'_>)) -> io::Result<()> {
        loop {
            let end = self.read_some(is_ending)?;
            self.take_answers(handle)?;
            match end {
                ReadEnd::More => {}
                ReadEnd::Drained => return Ok(()),
                ReadEnd::Eof => return self.end(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    fn abandon(&mut self) -> Vec<Pending> {
        self.is_ended = true;
        self.pending.drain(..).collect()
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

impl HttpConnection {
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

    fn take_answers(&mut self, handle: &mut dyn FnMut(Reply<'_>)) -> io::Result<()> {
        let mut taken = 0;
        while let Some(response) =
            Response::parse(&self.input[taken..]).map_err(io::Error::other)?
        {
            let pending = self.pending.pop_front();
            // A server may say unasked why it hangs up (408), and nothing else.
            if pending.is_some() || !response.is_last {
                handle(Reply {
                    pending,
                    answer: answer(response.status),
                    word: &response.status.to_string(),
                });
            }
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

fn answer(status: u16) -> Answer {
    match status {
        200..300 => Answer::Accepted,
        // A gateway's time ran out, or something broke inside: the message may be on its way.
        500 | 502 | 504 => Answer::Unknown,
        _ => Answer::Refused,
    }
}

/// Whether a socket only asks to come back later; a write before the connection stands says so too.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
