//! The outbox beside a list of frames that does the same byte by byte.

use std::io;

use mio::Token;
use rand::Rng as _;

use super::*;
use crate::base::id::ShardId;
use crate::base::seed;

/// A socket that takes a given number of bytes per call, and blocks in between when told to.
struct Trickle {
    takes: VecDeque<Io>,
    taken: Vec<u8>,
    /// Bytes in a record that is only partly out.
    pledged: usize,
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

    fn pledged(&self) -> usize {
        self.pledged
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

fn mark(id: u128, terms: Option<Terms>) -> Mark {
    mark_until(id, u64::MAX, terms)
}

fn mark_until(id: u128, deadline_ms: u64, terms: Option<Terms>) -> Mark {
    let (message_id, terms) = (MessageId(id), terms.map(Box::new));
    Mark::new(message_id, TICKET, Level::Written, 0, deadline_ms, terms)
}

fn append(outbox: &mut Outbox, frame: &[u8], mark: Mark) {
    let begin = outbox.end();
    outbox.tail().extend_from_slice(frame);
    outbox.mark(begin, mark);
}

fn takes(n: usize) -> Trickle {
    Trickle {
        takes: (n > 0).then_some(Io::Ready(n)).into_iter().collect(),
        taken: Vec::new(),
        pledged: 0,
    }
}

fn ids(marks: impl IntoIterator<Item = Mark>) -> Vec<u128> {
    marks.into_iter().map(|mark| mark.message_id.0).collect()
}

#[test]
fn a_message_is_written_when_its_last_byte_is_taken() {
    let mut stream = Trickle {
        takes: [Io::Ready(4), Io::Blocked, Io::Ready(1), Io::Ready(9)].into(),
        taken: Vec::new(),
        pledged: 0,
    };
    let mut outbox = Outbox::default();
    for (id, frame) in [b"first" as &[u8], b"second"].into_iter().enumerate() {
        append(&mut outbox, frame, mark(id as u128, None));
    }

    assert_eq!(outbox.flush(&mut stream, 7), Flushed::Blocked);
    assert!(outbox.next_written().is_none());
    assert_eq!(outbox.stalled_since_ms(), Some(7));

    assert_eq!(outbox.flush(&mut stream, 8), Flushed::Empty);
    assert_eq!(ids(std::iter::from_fn(|| outbox.next_written())), [0, 1]);
    assert_eq!(stream.taken, b"firstsecond");
    assert_eq!((outbox.len(), outbox.stalled_since_ms()), (0, None));
}

#[test]
fn a_slow_reader_cannot_grow_the_buffer_with_what_it_has_taken() {
    let mut outbox = Outbox::default();
    for _ in 0..1_000 {
        let mut stream = takes(100);
        outbox.tail().extend_from_slice(&[0; 100]);
        outbox.flush(&mut stream, 0);
    }
    outbox.tail().extend_from_slice(&[1; 100]);
    let mut stream = takes(60);
    assert_eq!(outbox.flush(&mut stream, 0), Flushed::Blocked);
    assert_eq!((outbox.len(), outbox.bytes.len()), (40, 40));
}

#[test]
fn a_frame_that_has_begun_to_leave_is_neither_dropped_nor_replaced() {
    let terms = || Terms {
        expires_ms: Some(5),
        collapse_key: Some("score".into()),
    };
    let mut outbox = Outbox::default();
    append(&mut outbox, b"begun", mark(1, Some(terms())));
    outbox.flush(&mut takes(1), 0);
    assert!(outbox.superseded_by(&terms()).is_none());
    assert!(outbox.may_expire(5));
    assert!(outbox.expire(5).is_empty());
    assert_eq!(outbox.next_expiry(), None);
    assert_eq!(outbox.len(), 4);
}

#[test]
fn a_frame_in_a_record_that_has_begun_to_leave_stays() {
    let mut outbox = Outbox::default();
    for id in 0..3 {
        let terms = Terms {
            expires_ms: Some(5),
            collapse_key: None,
        };
        append(&mut outbox, b"frame", mark(id, Some(terms)));
    }
    let mut stream = takes(0);
    stream.pledged = 6;
    outbox.flush(&mut stream, 0);
    assert_eq!(ids(outbox.expire(5)), [2], "the record ends in the second");
    assert_eq!(outbox.len(), 10);
}

#[test]
fn the_oldest_unacknowledged_message_makes_room_for_the_newest() {
    let mut outbox = Outbox::default();
    let given_up: Vec<_> = (0..UNACKED_MAX as u128 + 2)
        .filter_map(|id| outbox.await_ack(mark(id, None)))
        .collect();
    assert_eq!(ids(given_up), [0, 1]);
    assert!(outbox.take_unacked(MessageId(0)).is_none());
    assert!(outbox.take_unacked(MessageId(5)).is_some());
    assert!(outbox.take_unacked(MessageId(5)).is_none());
}

#[test]
fn what_nobody_waits_for_any_more_is_forgotten() {
    let mut outbox = Outbox::default();
    for (id, deadline_ms) in [(1, 50), (2, 70), (3, 60)] {
        assert!(
            outbox
                .await_ack(mark_until(id, deadline_ms, None))
                .is_none()
        );
    }
    assert!(outbox.take_overdue(49).is_empty());
    assert_eq!(ids(outbox.take_overdue(60)), [1, 3]);
    assert!(outbox.take_unacked(MessageId(2)).is_some());
    assert!(outbox.is_idle());
}

/// The same thing done byte by byte.
#[derive(Default)]
struct Twin(Vec<Piece>);

#[derive(Clone)]
struct Piece {
    /// The message's number; others are frames nobody asks after.
    id: Option<u128>,
    key: Option<Box<str>>,
    expires_ms: Option<u64>,
    bytes: Vec<u8>,
    taken: usize,
    /// Some of it is out, or in a record that is.
    is_touched: bool,
}

impl Twin {
    fn waiting(&self) -> Vec<u8> {
        let left = self.0.iter().flat_map(|piece| &piece.bytes[piece.taken..]);
        left.copied().collect()
    }

    /// Puts a message in; the number of the one whose place it takes.
    fn put(&mut self, piece: Piece) -> Option<u128> {
        let is_same =
            |other: &&mut Piece| !other.is_touched && other.key.is_some() && other.key == piece.key;
        if let Some(older) = self.0.iter_mut().find(is_same) {
            return std::mem::replace(older, piece).id;
        }
        self.0.push(piece);
        None
    }

    /// Takes bytes off the front, and touches some more; the numbers of the messages that have left whole.
    fn take(&mut self, mut n: usize, mut pledged: usize) -> Vec<u128> {
        for piece in &mut self.0 {
            let taken = n.min(piece.bytes.len() - piece.taken);
            piece.taken += taken;
            n -= taken;
            let left = piece.bytes.len() - piece.taken;
            piece.is_touched = piece.taken > 0 || (left > 0 && pledged > 0);
            pledged = pledged.saturating_sub(left);
        }
        let is_gone = |piece: &mut Piece| piece.taken == piece.bytes.len();
        self.0
            .extract_if(.., is_gone)
            .filter_map(|piece| piece.id)
            .collect()
    }

    fn expire(&mut self, now_ms: u64) -> Vec<u128> {
        let is_over = |piece: &mut Piece| {
            !piece.is_touched && piece.expires_ms.is_some_and(|at| at <= now_ms)
        };
        self.0
            .extract_if(.., is_over)
            .filter_map(|piece| piece.id)
            .collect()
    }
}

#[test]
fn an_outbox_and_its_twin_agree() {
    let mut random = seed::rng();
    for _ in 0..300 {
        let (mut outbox, mut twin) = (Outbox::default(), Twin::default());
        let mut pledged = 0_usize;
        for now_ms in 0..200_u64 {
            let id = u128::from(now_ms);
            match random.random_range(0..10) {
                0..5 => {
                    let is_message = random.random_ratio(4, 5);
                    let key = random.random_range(0..6_u8);
                    let key = (is_message && key < 3).then(|| key.to_string().into_boxed_str());
                    let expires_ms = (is_message && random.random_ratio(1, 2))
                        .then(|| now_ms + random.random_range(0..40));
                    let bytes = vec![random.random(); random.random_range(1..30)];
                    let piece = Piece {
                        id: is_message.then_some(id),
                        key: key.clone(),
                        expires_ms,
                        bytes: bytes.clone(),
                        taken: 0,
                        is_touched: false,
                    };
                    let mut superseded = None;
                    let terms = Terms {
                        expires_ms,
                        collapse_key: key,
                    };
                    match outbox.superseded_by(&terms) {
                        _ if !is_message => outbox.tail().extend_from_slice(&bytes),
                        Some(waiting) => {
                            let older = outbox.replace(waiting, &bytes, mark(id, Some(terms)));
                            superseded = Some(older.message_id.0);
                        }
                        None => append(&mut outbox, &bytes, mark(id, Some(terms))),
                    }
                    assert_eq!(superseded, twin.put(piece));
                }
                5..8 => {
                    let n = random.random_range(0..60).min(outbox.len());
                    let mut stream = takes(n);
                    // What was begun is gone on with.
                    let begun = pledged.saturating_sub(n);
                    let more = random.random_range(0..40).min(outbox.len() - n);
                    pledged = begun.max(more);
                    stream.pledged = pledged;
                    let waiting = twin.waiting();
                    outbox.flush(&mut stream, now_ms);
                    assert_eq!(stream.taken, waiting[..n]);
                    let written = ids(std::iter::from_fn(|| outbox.next_written()));
                    assert_eq!(written, twin.take(n, stream.pledged));
                }
                _ => {
                    let is_due = outbox.may_expire(now_ms);
                    let expired = twin.expire(now_ms);
                    assert!(is_due || expired.is_empty(), "an expiry would be missed");
                    assert_eq!(ids(outbox.expire(now_ms)), expired);
                    let next = twin.0.iter().filter(|piece| !piece.is_touched);
                    let next = next.filter_map(|piece| piece.expires_ms).min();
                    assert_eq!(outbox.next_expiry(), next);
                }
            }
            assert_eq!(outbox.bytes[outbox.start..], twin.waiting());
        }
    }
}
