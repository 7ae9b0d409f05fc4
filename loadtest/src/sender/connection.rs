//! What every sending connection can do, whatever it speaks.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

use crate::name::LineId;
use crate::oracle::Answer;

/// A message that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// The line it is for.
    pub(super) line: LineId,
    /// Its number among those for that line.
    pub(super) sequence: u32,
    /// When it was meant to leave.
    pub(super) intended: Duration,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// What it answers; `None` if nobody asked for it.
    pub(super) pending: Option<Pending>,
    /// What it says about the message.
    pub(super) answer: Answer,
    /// How it says it: a status, a result, an error code.
    pub(super) word: &'a str,
}

/// A connection with a window of messages that wait for their answers. An error ends it.
pub(super) trait Connection {
    /// Has the poll tell when it is ready.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Whether one more message may leave.
    fn has_room(&self) -> bool;

    /// Takes in a message; [`flush`](Self::flush) sends it.
    fn push(&mut self, pending: Pending, body: &[u8]) -> io::Result<()>;

    /// Sends what the socket takes.
    fn flush(&mut self) -> io::Result<()>;

    /// Reads all answers that are there. `is_ending` tells that the server will send no more, so that a short read does
    /// not prove the socket empty.
    fn fill(&mut self, is_ending: bool, handle: &mut dyn FnMut(Reply<'_>)) -> io::Result<()>;

    /// Whether no message waits for its answer.
    fn is_idle(&self) -> bool;

    /// Ends it and gives up on all messages without an answer.
    fn abandon(&mut self) -> Vec<Pending>;

    /// Whether it will carry nothing more.
    fn is_ended(&self) -> bool;
}
