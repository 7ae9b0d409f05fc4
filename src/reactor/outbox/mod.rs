//! Frames waiting for one socket, and who wants to know when they are gone.

use std::collections::VecDeque;

use crate::base::id::MessageId;
use crate::base::wheel::TimerId;
use crate::mailbox::command::{Terms, Ticket};
use crate::net::stream::{Io, Transport};
use crate::wire::api::Level;

/// The bytes one socket has not taken yet. A connection owns one only while there are any.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// How much of `bytes` the socket has taken.
    start: usize,
    /// Total ever taken: what marks are measured against.
    taken: u64,
    /// As `taken`, with what is in a record that the socket has begun to take: it cannot be called back.
    touched: u64,
    marks: VecDeque<Mark>,
    /// Written messages whose sender waits for the device's `ack`, the oldest first.
    unacked: VecDeque<Mark>,
    /// When the socket last refused, in monotonic milliseconds, and nothing has moved since.
    stalled_since_ms: Option<u64>,
    /// Before this moment no waiting message's time is over; the message it was set for may have gone.
    expires_ms: Option<u64>,
    /// The timer that looks for messages whose time is over.
    pub(crate) expiry_timer: Option<TimerId>,
}

/// A message in the outbox.
#[derive(Debug)]
pub(crate) struct Mark {
    /// The message.
    pub(crate) message_id: MessageId,
    /// Who waits.
    pub(crate) ticket: Ticket,
    /// For what.
    pub(crate) wait: Level,
    /// When the message was taken up.
    pub(crate) submitted_us: u64,
    /// Until when its sender has patience, in monotonic milliseconds.
    deadline_ms: u64,
    /// What its sender allows while it waits; most allow nothing.
    terms: Option<Box<Terms>>,
    /// Its sender knows that it waits here.
    is_told: bool,
    /// The first byte of its frame and the one behind its last, counted from the first byte ever.
    begin: u64,
    end: u64,
}

impl Mark {
    /// A message that is about to be put into an outbox.
    pub(crate) fn new(
        message_id: MessageId,
        ticket: Ticket,
        wait: Level,
        submitted_us: u64,
        deadline_ms: u64,
        terms: Option<Box<Terms>>,
    ) -> Self {
        Self {
            message_id,
            ticket,
            wait,
            submitted_us,
            deadline_ms,
            terms,
            is_told: wait == Level::Queued,
            begin: 0,
            end: 0,
        }
    }

    fn expires_ms(&self) -> Option<u64> {
        self.terms.as_ref()?.expires_ms
    }
}

/// A message of which the socket has taken nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    at: usize,
    /// The length of its frame.
    pub(crate) bytes: usize,
}

/// How an attempt to empty the outbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is with the kernel.
    Empty,
    /// The socket takes no more now.
    Blocked,
    /// The socket is broken.
    Broken,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Where the next frame is to be written.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Where the next frame begins, counted from the first byte ever.
    pub(crate) fn end(&self) -> u64 {
        self.taken + self.len() as u64
    }

    /// Notes that what was written to [`Self::tail`] since `begin` is a message somebody asks after.
    pub(crate) fn mark(&mut self, begin: u64, mark: Mark) {
        let end = self.end();
        self.note_expiry(mark.expires_ms());
        self.marks.push_back(Mark { begin, end, ..mark });
    }

    /// The waiting message whose place one with these terms takes: there is one at most.
    pub(crate) fn superseded_by(&self, terms: &Terms) -> Option<Waiting> {
        let key = terms.collapse_key.as_deref()?;
        let is_same = |mark: &Mark| {
            let other = mark.terms.as_ref().and_then(|t| t.collapse_key.as_deref());
            mark.begin >= self.touched && other == Some(key)
        };
        let at = self.marks.iter().rposition(is_same)?;
        let Mark { begin, end, .. } = self.marks[at];
        let bytes = usize::try_from(end - begin).ok()?;
        Some(Waiting { at, bytes })
    }

    /// Puts a message in the place of one that waits, and returns that one.
    pub(crate) fn replace(&mut self, waiting: Waiting, frame: &[u8], mark: Mark) -> Mark {
        let Waiting { at, bytes } = waiting;
        let from = self.offset(self.marks[at].begin);
        self.bytes.splice(from..from + bytes, frame.iter().copied());
        self.note_expiry(mark.expires_ms());
        let (begin, old_end) = (self.marks[at].begin, self.marks[at].end);
        let end = begin + frame.len() as u64;
        for later in self.marks.range_mut(at + 1..) {
            later.begin = later.begin - old_end + end;
            later.end = later.end - old_end + end;
        }
        std::mem::replace(&mut self.marks[at], Mark { begin, end, ..mark })
    }

    /// Whether a waiting message's time may be over.
    pub(crate) fn may_expire(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// When to look for messages whose time is over.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expires_ms
    }

    /// Takes out the messages whose time is over and of whose frames the socket has taken nothing. What lies between
    /// them keeps its order.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Mark> {
        let touched = self.marks.partition_point(|mark| mark.begin < self.touched);
        let mut write = self.start;
        let mut read = self.start;
        let mut expired = Vec::new();
        self.expires_ms = None;
        for mut mark in self.marks.split_off(touched) {
            let gap = (read - write) as u64;
            if mark.expires_ms().is_some_and(|at| at <= now_ms) {
                let from = self.offset(mark.begin);
                if gap > 0 {
                    self.bytes.copy_within(read..from, write);
                }
                write += from - read;
                read = self.offset(mark.end);
                expired.push(mark);
            } else {
                self.note_expiry(mark.expires_ms());
                mark.begin -= gap;
                mark.end -= gap;
                self.marks.push_back(mark);
            }
        }
        self.bytes.drain(write..read);
        expired
    }

    fn note_expiry(&mut self, expires_ms: Option<u64>) {
        let both = self.expires_ms.into_iter().chain(expires_ms);
        self.expires_ms = both.min();
    }

    /// Where a byte that waits is in the buffer.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it waits, so it is within the buffer"
    )]
    fn offset(&self, position: u64) -> usize {
        self.start + (position - self.taken) as usize
    }

    /// Hands the socket all it takes, in one `send` as a rule.
    pub(crate) fn flush<T: Transport>(&mut self, stream: &mut T, now_ms: u64) -> Flushed {
        while self.start < self.bytes.len() {
            match stream.flush(&self.bytes[self.start..]) {
                Io::Ready(n) => {
                    self.start += n;
                    self.taken += n as u64;
                    self.stalled_since_ms = None;
                }
                Io::Blocked => {
                    self.stalled_since_ms.get_or_insert(now_ms);
                    self.touched = self.taken + stream.pledged() as u64;
                    self.compact();
                    return Flushed::Blocked;
                }
                Io::Silent | Io::Closed | Io::Failed(_) | Io::Refused(_) => return Flushed::Broken,
            }
        }
        self.bytes.clear();
        self.start = 0;
        self.touched = self.taken;
        self.stalled_since_ms = None;
        self.expires_ms = None;
        Flushed::Empty
    }

    /// The next message whose frame the kernel has taken whole.
    pub(crate) fn next_written(&mut self) -> Option<Mark> {
        self.marks.pop_front_if(|mark| mark.end <= self.taken)
    }

    /// The senders of messages that have to wait, each once.
    pub(crate) fn take_untold(&mut self) -> Vec<Ticket> {
        let tell =
            |mark: &mut Mark| (!std::mem::replace(&mut mark.is_told, true)).then_some(mark.ticket);
        self.marks.iter_mut().filter_map(tell).collect()
    }

    /// Keeps a written message until the device acknowledges it. When too many are kept already, the oldest is given
    /// up for it and returned.
    pub(crate) fn await_ack(&mut self, mark: Mark) -> Option<Mark> {
        let oldest = (self.unacked.len() >= UNACKED_MAX).then(|| self.unacked.pop_front());
        self.unacked.push_back(mark);
        oldest.flatten()
    }

    /// The message the device has acknowledged, if anybody waits for that.
    pub(crate) fn take_unacked(&mut self, message_id: MessageId) -> Option<Mark> {
        let at = self
            .unacked
            .iter()
            .position(|mark| mark.message_id == message_id)?;
        self.unacked.remove(at)
    }

    /// The messages whose acknowledgement nobody waits for any more.
    pub(crate) fn take_overdue(&mut self, now_ms: u64) -> VecDeque<Mark> {
        let (overdue, rest) = std::mem::take(&mut self.unacked)
            .into_iter()
            .partition(|mark| mark.deadline_ms <= now_ms);
        self.unacked = rest;
        overdue
    }

    /// The messages that will not be written, when the connection is dropped.
    pub(crate) fn take_unwritten(&mut self) -> VecDeque<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// The messages that will not be acknowledged, when the line ends.
    pub(crate) fn take_all_unacked(&mut self) -> VecDeque<Mark> {
        std::mem::take(&mut self.unacked)
    }

    /// Drops the bytes that wait.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Whether the connection needs no outbox: nothing waits to be written or acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.len() == 0 && self.unacked.is_empty()
    }

    /// Since when the socket has taken nothing, although something waits.
    pub(crate) fn stalled_since_ms(&self) -> Option<u64> {
        self.stalled_since_ms
    }

    /// Makes the outbox fit for another connection, keeping a little room so that the next frame allocates nothing.
    pub(crate) fn reset(&mut self) {
        debug_assert!(
            self.marks.is_empty() && self.unacked.is_empty() && self.expiry_timer.is_none(),
            "somebody waits for a message of this outbox"
        );
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES_MAX);
        *self = Self {
            bytes: std::mem::take(&mut self.bytes),
            ..Self::default()
        };
    }

    /// Moves what waits to the front once most of the buffer is behind it, so that a slow reader's outbox stays
    /// within twice its limit.
    fn compact(&mut self) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Most written messages of one line that await an `ack`: a device that never acknowledges pins no more.
const UNACKED_MAX: usize = 64;
/// What a spare outbox may keep: a usual message fits.
const SPARE_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests;
