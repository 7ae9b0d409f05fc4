//! Frames waiting for one socket, and who wants to know when they are gone.

use std::collections::VecDeque;

use crate::base::id::MessageId;
use crate::mailbox::command::Ticket;
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
    marks: VecDeque<Mark>,
    /// Written messages whose sender waits for the device's `ack`.
    unacked: Vec<Mark>,
    /// When the socket last refused, in monotonic milliseconds, and nothing has moved since.
    stalled_since_ms: Option<u64>,
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
    /// Its sender knows that it waits here.
    is_told: bool,
    /// The end of its frame, counted from the first byte ever.
    end: u64,
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

    /// Notes that the frame just written to [`Self::tail`] is a message somebody asks after.
    pub(crate) fn mark(
        &mut self,
        message_id: MessageId,
        ticket: Ticket,
        wait: Level,
        submitted_us: u64,
    ) {
        let end = self.taken + self.len() as u64;
        self.marks.push_back(Mark {
            message_id,
            ticket,
            wait,
            submitted_us,
            is_told: wait == Level::Queued,
            end,
        });
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
                    self.compact();
                    return Flushed::Blocked;
                }
                Io::Silent | Io::Closed | Io::Failed(_) | Io::Refused(_) => return Flushed::Broken,
            }
        }
        self.bytes.clear();
        self.start = 0;
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

    /// Keeps a written message until the device acknowledges it; `false` when too many are kept already.
    pub(crate) fn await_ack(&mut self, mark: Mark) -> bool {
        let has_room = self.unacked.len() < UNACKED_MAX;
        if has_room {
            self.unacked.push(mark);
        }
        has_room
    }

    /// The message the device has acknowledged, if anybody waits for that.
    pub(crate) fn take_unacked(&mut self, message_id: MessageId) -> Option<Mark> {
        let at = self
            .unacked
            .iter()
            .position(|mark| mark.message_id == message_id)?;
        Some(self.unacked.swap_remove(at))
    }

    /// What is lost when the connection ends: messages that will not be written, and those that will not be
    /// acknowledged.
    pub(crate) fn take_lost(&mut self) -> (VecDeque<Mark>, Vec<Mark>) {
        (
            std::mem::take(&mut self.marks),
            std::mem::take(&mut self.unacked),
        )
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
            self.marks.is_empty() && self.unacked.is_empty(),
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
mod tests {
    use std::io;

    use mio::Token;

    use super::*;
    use crate::base::id::ShardId;

    /// A socket that takes a given number of bytes per call, and blocks in between when told to.
    struct Trickle {
        takes: VecDeque<Io>,
        taken: Vec<u8>,
    }

    impl Transport for Trickle {
        type Poller = ();

        fn watch(&mut self, _: &(), _: Token) -> io::Result<()> {
            Ok(())
        }

        fn watch_writes(&mut self, _: &(), _: Token, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn watches_writes(&self) -> bool {
            false
        }

        fn fill(&mut self, _: &mut [u8]) -> Io {
            Io::Blocked
        }

        fn flush(&mut self, bytes: &[u8]) -> Io {
            match self.takes.pop_front() {
                Some(Io::Ready(n)) => {
                    let n = n.min(bytes.len());
                    self.taken.extend_from_slice(&bytes[..n]);
                    Io::Ready(n)
                }
                Some(other) => other,
                None => Io::Blocked,
            }
        }

        fn finish(&mut self) {}

        fn abort(&mut self) {}
    }

    const TICKET: Ticket = Ticket {
        shard: ShardId(0),
        waiter: 0,
        generation: 0,
        part: 0,
    };

    #[test]
    fn a_message_is_written_when_its_last_byte_is_taken() {
        let mut stream = Trickle {
            takes: [Io::Ready(4), Io::Blocked, Io::Ready(1), Io::Ready(9)].into(),
            taken: Vec::new(),
        };
        let mut outbox = Outbox::default();
        for (id, frame) in [b"first" as &[u8], b"second"].into_iter().enumerate() {
            outbox.tail().extend_from_slice(frame);
            outbox.mark(MessageId(id as u128), TICKET, Level::Written, 0);
        }

        assert_eq!(outbox.flush(&mut stream, 7), Flushed::Blocked);
        assert!(outbox.next_written().is_none());
        assert_eq!(outbox.stalled_since_ms(), Some(7));

        assert_eq!(outbox.flush(&mut stream, 8), Flushed::Empty);
        let written: Vec<_> = std::iter::from_fn(|| outbox.next_written())
            .map(|mark| mark.message_id.0)
            .collect();
        assert_eq!(written, [0, 1]);
        assert_eq!(stream.taken, b"firstsecond");
        assert_eq!((outbox.len(), outbox.stalled_since_ms()), (0, None));
    }

    #[test]
    fn a_slow_reader_cannot_grow_the_buffer_with_what_it_has_taken() {
        let mut outbox = Outbox::default();
        for _ in 0..1_000 {
            let mut stream = Trickle {
                takes: [Io::Ready(100)].into(),
                taken: Vec::new(),
            };
            outbox.tail().extend_from_slice(&[0; 100]);
            outbox.flush(&mut stream, 0);
        }
        outbox.tail().extend_from_slice(&[1; 100]);
        let mut stream = Trickle {
            takes: [Io::Ready(60)].into(),
            taken: Vec::new(),
        };
        assert_eq!(outbox.flush(&mut stream, 0), Flushed::Blocked);
        assert_eq!((outbox.len(), outbox.bytes.len()), (40, 40));
    }
}
