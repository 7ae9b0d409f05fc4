//! Back ends' streams: from the welcome to the reply of each record, and their way out.
//!
//! A stream is a connection like a line: the same decoder, outbox, sweep and burial. It is in nobody's presence. What
//! bounds it is its window: with so many records unanswered, or its own answers unread, it is not read any further.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::{Now, millis};
use crate::net::stream::Transport;
use crate::protocol::stream::{Stream, Verdict};
use crate::reactor::api::intake::{Acceptance, accept};
use crate::reactor::conn::Phase;
use crate::reactor::receipt::{BUSY, Receipt, encode_reply};
use crate::reactor::request::encode_ending;
use crate::reactor::shard::Shard;
use crate::reactor::waiter::{Answer, Request, RequestKind};
use crate::wire::error::ErrorCode;
use crate::wire::reply::{Reply, encode_failure};
use crate::wire::stream::{Record, StreamWelcome, encode_welcome};

impl<T: Transport> Shard<T> {
    /// Makes the connection a stream of the back end named, and welcomes it.
    pub(crate) fn open_stream(&mut self, id: ConnId, service: &str, now: Now) {
        let random = self.roll();
        let settings = Rc::clone(&self.settings);
        let window = settings.api.stream_window;
        let stream = Box::new(Stream::new(service, window, now));
        let leave = now.tick().after(settings.api.stream_idle_timeout);
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        conn.phase = Phase::Stream(stream);
        self.arm(id, now);
        let due = settings.heartbeat.after_opening(now.tick(), random);
        self.arena.set_due(id.slot, due);
        self.arena.set_leave(id.slot, leave);
        let cells = self.cells();
        cells.handshakes.sub(1);
        cells.streams.add(1);
        cells.streams_opened.add(1);
        self.note_latecomer(id, now);
        let welcome = StreamWelcome {
            connection_id: &self.node.connection_id_of(self.id, id).to_string(),
            node_id: &self.node.id,
            window,
            ping_ms: millis(settings.heartbeat.ping_after),
            idle_ms: millis(settings.api.stream_idle_timeout),
            message_bytes_max: u64::from(settings.limits.message_bytes_max.bytes()),
            record_bytes_max: u64::from(settings.api.body_bytes_max.bytes()),
            server_time_ms: now.wall_ms,
        };
        let mut text = Vec::with_capacity(256);
        encode_welcome(&welcome, &mut text);
        self.send_text(id, &text);
    }

    /// Takes records up until the bytes are used up, the window is full or the stream is closed.
    pub(crate) fn handle_records(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        if bytes.is_empty() {
            return;
        }
        let settings = Rc::clone(&self.settings);
        let message_bytes_max = settings.limits.message_bytes_max.as_usize();
        let mut out = Vec::new();
        let mut taken = 0;
        while let Some(conn) = self.arena.get_mut(id)
            && conn.flags.closing.is_none()
            && let Phase::Stream(stream) = &mut conn.phase
        {
            if !stream.has_room() {
                stream.pause(&bytes[taken..]);
                break;
            }
            let rest = &mut bytes[taken..];
            let decoded = match conn.decoder.decode(rest, &settings.records, now.ms()) {
                Ok(decoded) => decoded,
                Err(violation) => {
                    self.close(id, violation.reason());
                    break;
                }
            };
            let Some(event) = decoded.event else { break };
            taken += decoded.consumed;
            match stream.handle_event(&event, message_bytes_max, now, &mut out) {
                Verdict::Keep => {}
                Verdict::Corrected => self.cells().stream_errors.add(1),
                Verdict::Submit(record) => self.submit_record(id, record, now),
                Verdict::Close(reason) => self.close(id, reason),
            }
        }
        if !out.is_empty() {
            self.send(id, &out);
        }
        self.heard(id, now);
    }

    /// Submits a record; from here on it gets exactly one reply, unless the stream ends first.
    fn submit_record(&mut self, id: ConnId, record: Record<'_>, now: Now) {
        self.cells().stream_records.add(1);
        let (device_id, request) = (record.device_id, record.request);
        let Some(stream) = self.arena.get(id).and_then(|conn| conn.stream()) else {
            return;
        };
        let service = Arc::clone(&stream.service);
        let mut accepted = match accept(&self.api, &device_id, &request, &service) {
            Ok(Acceptance::New(accepted)) => accepted,
            Ok(Acceptance::Replay(receipt)) => return self.replay_record(id, record.id, &receipt),
            Err((code, cause)) => return self.refuse_record(id, record.id, code, &cause),
        };
        let asked = Box::new(Request {
            conn: id,
            id: record.id.into(),
            message_id: Some(accepted.message_id),
            asked_us: now.us,
            kind: RequestKind::Send,
        });
        let (waiters, claim) = (&self.api.waiters, accepted.claim.take());
        let Some(ticket) = waiters.open_for_line(request.wait, asked, claim) else {
            let (code, cause) = BUSY;
            return self.refuse_record(id, record.id, code, &cause);
        };
        let deadline_ms = now.ms() + self.settings.patience_ms(request.timeout_ms);
        let delivery = accepted.into_delivery(device_id, request, service, ticket, now);
        self.submit(delivery, deadline_ms, now);
    }

    /// Answers a record that was answered before, under another id perhaps.
    fn replay_record(&mut self, id: ConnId, record_id: &str, receipt: &Receipt) {
        let mut text = Vec::new();
        encode_reply(record_id, receipt, None, &mut text);
        self.end_record(id, &text);
    }

    fn refuse_record(&mut self, id: ConnId, record_id: &str, code: ErrorCode, cause: &str) {
        let mut text = Vec::new();
        encode_failure(&Reply::to(record_id), code, cause, &mut text);
        self.end_record(id, &text);
    }

    /// Writes what became of a record. Replies of one iteration leave in one `send`.
    pub(crate) fn reply_to_stream(&mut self, request: &Request, answer: Answer) {
        let latency_ms = self.api.now.get().us.saturating_sub(request.asked_us) / 1_000;
        let mut text = std::mem::take(&mut self.reply_text);
        text.clear();
        encode_ending(request, &answer, latency_ms, &mut text);
        self.end_record(request.conn, &text);
        self.reply_text = text;
    }

    fn end_record(&mut self, id: ConnId, reply: &[u8]) {
        self.send_text(id, reply);
        if let Some(stream) = self.arena.get_mut(id).and_then(|conn| conn.stream_mut()) {
            stream.note_answered();
        }
        self.reconsider_stream(id);
    }

    /// Whether a stream may be read now. One that does not read its own answers is left waiting.
    pub(crate) fn may_read_stream(&mut self, id: ConnId) -> bool {
        let is_read = self.reads_answers(id);
        let Some(stream) = self.arena.get_mut(id).and_then(|conn| conn.stream_mut()) else {
            return false;
        };
        if !is_read && !stream.is_paused() {
            stream.pause(&[]);
        }
        !stream.is_paused()
    }

    fn reads_answers(&self, id: ConnId) -> bool {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max.as_usize();
        let outbox = self.arena.get(id).and_then(|conn| conn.outbox.as_ref());
        outbox.is_none_or(|outbox| outbox.len() <= outbox_bytes_max)
    }

    /// Has a paused stream visited again, if it may go on.
    pub(crate) fn reconsider_stream(&mut self, id: ConnId) {
        let stream = self.arena.get(id).and_then(|conn| conn.stream());
        if stream.is_some_and(Stream::wants_resume) && self.reads_answers(id) {
            self.mark_unread(id);
        }
    }

    /// Goes on with a paused stream, beginning with what was read before.
    pub(crate) fn resume_stream(&mut self, id: ConnId, now: Now) {
        if !self.reads_answers(id) {
            return;
        }
        let stream = self.arena.get_mut(id).and_then(|conn| conn.stream_mut());
        if let Some(stream) = stream.filter(|stream| stream.wants_resume()) {
            let mut held = stream.resume();
            self.handle_records(id, &mut held, now);
        }
    }

    /// Asks a stream to leave once it has been idle for long enough, or closes it if it was asked before and has not gone.
    pub(crate) fn part_stream(&mut self, id: ConnId, now: Now) {
        let idle_timeout = self.settings.api.stream_idle_timeout;
        let Some(stream) = self.arena.get(id).and_then(|conn| conn.stream()) else {
            return;
        };
        if let Some(reason) = stream.leaving {
            return self.close(id, reason);
        }
        let is_busy = stream.unanswered() > 0;
        let since = if is_busy {
            now.tick()
        } else {
            stream.last_record
        };
        let idle_at = since.after(idle_timeout);
        if idle_at > now.tick() {
            return self.arena.set_leave(id.slot, idle_at);
        }
        self.tell_stream_to_leave(id, CloseReason::Idle, now);
    }

    /// Asks a stream to leave.
    pub(crate) fn tell_stream_to_leave(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        if let Some(stream) = self.arena.get_mut(id).and_then(|conn| conn.stream_mut()) {
            stream.leaving = Some(reason);
            self.say_goaway(id, reason, None, now);
        }
    }
}
