//! A back end's stream: what its frames mean, and when it may say more.

use std::sync::Arc;

use crate::base::close::CloseReason;
use crate::base::time::{Now, Tick};
use crate::protocol::device::encode_refusal;
use crate::wire::device::encode_error;
use crate::wire::error::ErrorCode;
use crate::wire::stream::{Record, RecordError};
use crate::ws::decoder::Event;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// The state of an authenticated stream. Rare and boxed.
#[derive(Debug)]
pub struct Stream {
    /// The name of the back end's key: who its messages are from.
    pub service: Arc<str>,
    /// When it was opened, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// A ping of ours is unanswered.
    pub is_pong_awaited: bool,
    /// The back end has been told to go away, and why.
    pub leaving: Option<CloseReason>,
    /// Records that came, sound or not.
    pub records: u64,
    /// When the last one did.
    pub last_record: Tick,
    window: u32,
    unanswered: u32,
    /// Bytes that were read and may not be taken yet: at most one read's worth.
    held: Vec<u8>,
    is_paused: bool,
}

/// What the shard has to do about a frame.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Nothing more.
    Keep,
    /// Nothing more: the frame made no sense and was answered.
    Corrected,
    /// Take the record up; it counts as unanswered from here on.
    Submit(Record<'a>),
    /// Close the stream.
    Close(CloseReason),
}

impl Stream {
    /// Makes the state of a stream of a back end that may have so many records unanswered.
    pub fn new(service: &str, window: u32, now: Now) -> Self {
        Self {
            // A count of its own: reactors must not share the one of the key's name.
            service: service.into(),
            since_ms: now.wall_ms,
            is_pong_awaited: false,
            leaving: None,
            records: 0,
            last_record: now.tick(),
            window,
            unanswered: 0,
            held: Vec::new(),
            is_paused: false,
        }
    }

    /// Takes one event of the stream; what it answers is appended to `out` as frames.
    pub fn handle_event<'a>(
        &mut self,
        event: &'a Event<'_>,
        message_bytes_max: usize,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Verdict<'a> {
        self.is_pong_awaited = false;
        match event {
            Event::Text(text) => self.handle_record(text, message_bytes_max, now, out),
            Event::Binary(_) => Verdict::Close(CloseReason::UnsupportedData),
            Event::Ping(payload) => {
                encoder::encode(Opcode::Pong, payload, out);
                Verdict::Keep
            }
            Event::Pong(_) => Verdict::Keep,
            Event::Close(frame) => {
                encoder::encode_close_answer(frame.as_ref().map(|frame| frame.code), out);
                Verdict::Close(CloseReason::PeerClosed)
            }
        }
    }

    fn handle_record<'a>(
        &mut self,
        text: &'a str,
        message_bytes_max: usize,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Verdict<'a> {
        self.records += 1;
        self.last_record = now.tick();
        let record = Record::decode(text).and_then(|record| {
            if record.request.payload.bytes.len() <= message_bytes_max {
                return Ok(record);
            }
            let cause = "the payload is over limits.message_bytes_max";
            Err(RecordError {
                id: Some(record.id),
                code: ErrorCode::PayloadTooLarge,
                cause: cause.into(),
            })
        });
        match record {
            Ok(record) => {
                self.unanswered += 1;
                Verdict::Submit(record)
            }
            Err(error) => {
                correct(&error, out);
                Verdict::Corrected
            }
        }
    }

    /// Whether another record may be taken now. The caller holds back what it has.
    pub fn has_room(&self) -> bool {
        self.unanswered < self.window
    }

    /// Notes that a record has been answered.
    pub fn note_answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Records that are not answered yet.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Leaves the back end waiting, with the bytes that were read too far.
    pub fn pause(&mut self, rest: &[u8]) {
        self.is_paused = true;
        self.held.extend_from_slice(rest);
    }

    /// Whether the node has stopped reading: what the far end does not say then is not held against it.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether a paused stream should be read again. Half a window must be free: to read on for the sake of every
    /// single answer would cost more than the record behind it.
    pub fn wants_resume(&self) -> bool {
        self.is_paused && self.unanswered <= self.window / 2
    }

    /// Goes on reading, with the bytes that were held.
    pub fn resume(&mut self) -> Vec<u8> {
        self.is_paused = false;
        std::mem::take(&mut self.held)
    }
}

/// Answers what is no record: as its reply if it has an id, else as an `error`.
fn correct(error: &RecordError<'_>, out: &mut Vec<u8>) {
    if let Some(id) = error.id {
        return encode_refusal(id, error.code, &error.cause, out);
    }
    let mut text = Vec::new();
    encode_error(None, error.code, &error.cause, &mut text);
    encoder::encode(Opcode::Text, &text, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(stream: &mut Stream, text: &'static str) -> (String, bool) {
        let mut out = Vec::new();
        let event = Event::Text(text.into());
        let verdict = stream.handle_event(&event, 4, Now::default(), &mut out);
        let is_submitted = matches!(verdict, Verdict::Submit(_));
        (String::from_utf8_lossy(&out).into_owned(), is_submitted)
    }

    #[test]
    fn records_are_taken_up_to_the_window_and_half_of_it_must_be_free_again() {
        let mut stream = Stream::new("billing", 4, Now::default());
        for _ in 0..4 {
            assert!(stream.has_room());
            assert!(say(&mut stream, r#"{"id":1,"to":{"device":"a"},"data":1}"#).1);
        }
        assert!(!stream.has_room());
        stream.pause(b"rest");
        stream.note_answered();
        assert!(!stream.wants_resume());
        stream.note_answered();
        assert!(stream.wants_resume());
        assert_eq!(stream.resume(), b"rest");
        assert!(!stream.is_paused() && !stream.wants_resume());
    }

    #[test]
    fn what_is_no_record_is_answered_and_takes_no_room() {
        let mut stream = Stream::new("billing", 1, Now::default());
        let (text, is_submitted) = say(&mut stream, "nonsense");
        assert!(
            text.contains(r#""type":"error""#) && !is_submitted,
            "{text}"
        );
        let (text, is_submitted) = say(
            &mut stream,
            r#"{"id":"a","to":{"device":"a"},"data":12345}"#,
        );
        assert!(
            text.contains(r#""type":"reply","id":"a""#) && text.contains("payload_too_large"),
            "{text}"
        );
        assert!(!is_submitted && stream.has_room());
        assert_eq!((stream.records, stream.unanswered()), (2, 0));
    }

    #[test]
    fn binary_frames_end_a_stream() {
        let mut stream = Stream::new("billing", 1, Now::default());
        let event = Event::Binary(b"{}"[..].into());
        let verdict = stream.handle_event(&event, 4, Now::default(), &mut Vec::new());
        assert!(matches!(
            verdict,
            Verdict::Close(CloseReason::UnsupportedData)
        ));
    }
}
