//! An authenticated line, from its claim on the device to the verdicts on its frames.

use std::rc::Rc;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, MessageId};
use crate::base::place::Place;
use crate::base::time::{Now, Tick, millis};
use crate::mailbox::command::Replacement;
use crate::metrics::Refusal;
use crate::net::stream::Transport;
use crate::protocol::auth::authenticator::{Authenticated, Credential};
use crate::protocol::device::{Device, Dialect, Verdict};
use crate::reactor::conn::Phase;
use crate::reactor::shard::Shard;
use crate::route::event::Change;
use crate::wire::device::{Welcome, encode_error, encode_welcome};
use crate::wire::error::ErrorCode;
use crate::ws::decoder::Event;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

impl<T: Transport> Shard<T> {
    /// Makes the connection a line: mints its generation, claims the device, welcomes it.
    pub(crate) fn open_line(
        &mut self,
        id: ConnId,
        dialect: Dialect,
        authenticated: Authenticated,
        now: Now,
    ) {
        let generation = self.node.presence.mint(now.wall_ms).0;
        let (leave, leave_reason) = self.leave_of(authenticated.expires_ms, now);
        let device = Device::new(
            authenticated.identity,
            generation,
            dialect,
            leave_reason,
            now,
        );
        if let Some(Phase::Upgrade(upgrade)) = self.arena.get_mut(id).map(|conn| &mut conn.phase) {
            upgrade.note_upgraded(dialect);
        }
        if !self.claim(id, &device) {
            self.give_seat_up(id, &device.identity);
            return self.close(id, CloseReason::Overload);
        }
        let random = self.roll();
        let due = self.settings.heartbeat.after_opening(now.tick(), random);
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let upgrade = std::mem::replace(&mut conn.phase, Phase::Device(device));
        self.arm(id, now);
        self.arena.set_due(id.slot, due);
        self.arena.set_leave(id.slot, leave);
        let cells = self.cells();
        cells.handshakes.sub(1);
        cells.lines.add(1);
        cells.opened.add(1);
        if let Phase::Upgrade(upgrade) = upgrade {
            tracing::debug!(from = %upgrade.from, "line opened");
            cells
                .handshake
                .observe_us(now.us.saturating_sub(upgrade.opened_us));
        }
        self.note_newcomer(id);
        self.note_latecomer(id, now);
        if dialect == Dialect::Json {
            self.welcome(id, now);
        }
        self.announce(id, Change::Opened, now);
    }

    /// When a line must leave, and for which reason: its age, or the end of its token less the grace of a go-away.
    fn leave_of(&mut self, expires_ms: Option<u64>, now: Now) -> (Tick, CloseReason) {
        let by_age = self.leave_by_age(now.tick());
        let grace_ms = millis(self.settings.lifetime.goaway_grace);
        let by_token = expires_ms.map(|expires_ms| {
            let left_ms = expires_ms
                .saturating_sub(now.wall_ms)
                .saturating_sub(grace_ms);
            Tick::at_ms(now.ms().saturating_add(left_ms))
        });
        match by_token {
            Some(by_token) if by_token < by_age => (by_token, CloseReason::TokenExpired),
            _ => (by_age, CloseReason::MaxAge),
        }
    }

    /// Enters the device into presence, and tells whoever may hold an older line of it.
    fn claim(&mut self, id: ConnId, device: &Device) -> bool {
        let presence = &self.node.presence;
        let fingerprint = presence.fingerprint(device.identity.device().as_bytes());
        let by = self.place(id);
        let Ok(others) = presence.claim(fingerprint, by) else {
            return false;
        };
        for Place { shard, slot } in others {
            let device_id = device.identity.device().into();
            let generation = device.generation;
            self.post_replacement(
                shard,
                Replacement {
                    device_id,
                    slot,
                    generation,
                    by,
                },
            );
        }
        true
    }

    fn welcome(&mut self, id: ConnId, now: Now) {
        let connection_id = self.node.connection_id_of(self.id, id).to_string();
        let Some(device) = self.arena.get(id).and_then(|conn| conn.device()) else {
            return;
        };
        let settings = &self.settings;
        let welcome = Welcome {
            connection_id: &connection_id,
            device_id: device.identity.device(),
            node_id: &self.node.id,
            ping_ms: millis(settings.heartbeat.ping_after),
            message_bytes_max: u64::from(settings.limits.message_bytes_max.bytes()),
            age_max_ms: millis(settings.lifetime.age_max),
            server_time_ms: now.wall_ms,
        };
        let mut text = Vec::with_capacity(512);
        encode_welcome(&welcome, &mut text);
        self.send_text(id, &text);
    }

    /// Decodes and answers frames until the bytes are used up or the line is closed.
    pub(crate) fn handle_frames(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        // After a head there is often nothing more, and the line's first look has just been set.
        if bytes.is_empty() {
            return;
        }
        let settings = Rc::clone(&self.settings);
        if !self.admits_bytes(id, bytes.len(), now) {
            return self.close(id, CloseReason::PolicyViolation);
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let mut taken = 0;
        while let Some(conn) = self
            .arena
            .get_mut(id)
            .filter(|conn| conn.flags.closing.is_none())
        {
            let decoded = match conn
                .decoder
                .decode(&mut bytes[taken..], &settings.frames, now.ms())
            {
                Ok(decoded) => decoded,
                Err(violation) => {
                    self.close(id, violation.reason());
                    break;
                }
            };
            let Some(event) = decoded.event else { break };
            taken += decoded.consumed;
            self.handle_event(id, &event, &mut out, now);
        }
        if !out.is_empty() {
            self.send_bounded(id, &out);
        }
        self.scratch = out;
        self.heard(id, now);
    }

    /// Whether a connection may send so many bytes more in this second, whoever it turns out to be.
    fn admits_bytes(&mut self, id: ConnId, bytes: usize, now: Now) -> bool {
        let limits = self.settings.intake;
        match self.arena.get_mut(id).map(|conn| &mut conn.phase) {
            Some(Phase::Device(device)) => device.admits_bytes(bytes, limits, now),
            Some(Phase::Upgrade(upgrade)) => upgrade.admits_bytes(bytes, limits, now),
            Some(Phase::Stream(_) | Phase::Api(_) | Phase::Closing(_)) | None => true,
        }
    }

    fn handle_event(&mut self, id: ConnId, event: &Event<'_>, out: &mut Vec<u8>, now: Now) {
        let limits = self.settings.intake;
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        let device = match &mut conn.phase {
            Phase::Device(device) => device,
            Phase::Upgrade(upgrade) => {
                if !upgrade.admits_frame(limits, now) {
                    return self.close(id, CloseReason::PolicyViolation);
                }
                let dialect = upgrade.greeted().unwrap_or(Dialect::Json);
                return self.handle_first_event(id, dialect, event, now);
            }
            Phase::Stream(_) | Phase::Api(_) | Phase::Closing(_) => return,
        };
        let verdict = device.handle_event(event, limits, now, out);
        self.count_event(event);
        match verdict {
            Verdict::Keep => {}
            Verdict::Corrected => self.cells().frame_errors.add(1),
            Verdict::Close(reason) => self.close(id, reason),
            Verdict::Acked(message_id, data) => self.acknowledge(id, message_id, data, out),
            Verdict::Send(send) => self.handle_send(id, send, out, now),
            Verdict::List(list) => self.handle_list(id, &list, out, now),
            Verdict::Watch(request) => self.handle_watch(id, request, out, now),
            Verdict::Unwatch(request) => self.handle_unwatch(id, request, out),
            Verdict::Refresh(token) => self.refresh(id, &token, out, now),
        }
    }

    /// Takes an acknowledgement, unless what the device says with it is too long to be kept for its sender: then the
    /// device is told, and may acknowledge again.
    fn acknowledge(
        &mut self,
        id: ConnId,
        message_id: MessageId,
        data: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let data_bytes_max = self.settings.limits.ack_data_bytes_max.as_usize();
        if data.is_some_and(|data| data.len() > data_bytes_max) {
            self.cells().frame_errors.add(1);
            let cause = format!("data is over limits.ack_data_bytes_max ({data_bytes_max} bytes)");
            return refuse(ErrorCode::PayloadTooLarge, &cause, out);
        }
        self.handle_ack(id, message_id, data);
    }

    fn count_event(&self, event: &Event<'_>) {
        match event {
            Event::Text(_) | Event::Binary(_) => self.cells().received.add(1),
            Event::Pong(_) => self.cells().pongs.add(1),
            Event::Ping(_) | Event::Close(_) => {}
        }
    }

    /// The first message of a WebSocket that brought no token in its request.
    fn handle_first_event(&mut self, id: ConnId, dialect: Dialect, event: &Event<'_>, now: Now) {
        if matches!(event, Event::Close(_)) {
            return self.close(id, CloseReason::PeerClosed);
        }
        if matches!(event, Event::Ping(_) | Event::Pong(_)) {
            return;
        }
        self.admission
            .charge(self.settings.authenticator.verification_us());
        let Some(Phase::Upgrade(upgrade)) = self.arena.get(id).map(|conn| &conn.phase) else {
            return;
        };
        match upgrade.handle_hello(event, &self.settings.authenticator, now) {
            Ok(authenticated) if !self.take_seat(id, &authenticated.identity) => {
                self.cells().refused[Refusal::AccountLimit as usize].add(1);
                self.close(id, CloseReason::Overload);
            }
            Ok(authenticated) => self.open_line(id, dialect, authenticated, now),
            Err(error) => self.reject(id, error),
        }
    }

    /// Prolongs a line by a new token of the same device; a bad one is answered, and the old one stands.
    fn refresh(&mut self, id: ConnId, token: &str, out: &mut Vec<u8>, now: Now) {
        let refreshed = self
            .settings
            .authenticator
            .authenticate(Credential::Token(token), now.wall_ms);
        let Some(device) = self.arena.get_mut(id).and_then(|conn| conn.device_mut()) else {
            return;
        };
        match refreshed {
            Ok(new) if new.identity.device() == device.identity.device() => {
                let is_moving = new.identity.account() != device.identity.account();
                if is_moving && !self.take_seat(id, &new.identity) {
                    return refuse(ErrorCode::RateLimited, ACCOUNT_FULL, out);
                }
                let Some(device) = self.arena.get_mut(id).and_then(|conn| conn.device_mut()) else {
                    return;
                };
                let old = std::mem::replace(&mut device.identity, new.identity);
                device.leaving = device
                    .leaving
                    .filter(|reason| *reason != CloseReason::TokenExpired);
                if device.leaving.is_none() {
                    let (leave, reason) = self.leave_of(new.expires_ms, now);
                    self.arena.set_leave(id.slot, leave);
                    if let Some(device) = self.arena.get_mut(id).and_then(|conn| conn.device_mut())
                    {
                        device.leave_reason = reason;
                    }
                }
                self.renew_account(id, &old, now);
                self.announce(id, Change::Renewed, now);
            }
            Ok(_) => refuse_refresh("the token is for another device", out),
            Err(error) => {
                self.cells().auth_failures.add(1);
                refuse_refresh(&error.to_string(), out);
            }
        }
    }

    /// Appends frames to the outbox, unless its owner does not read what it asked for.
    pub(crate) fn send_bounded(&mut self, id: ConnId, frames: &[u8]) {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max.as_usize();
        let waiting = self
            .arena
            .get(id)
            .and_then(|conn| conn.outbox.as_ref())
            .map_or(0, |outbox| outbox.len());
        if waiting > 0 && waiting + frames.len() > outbox_bytes_max {
            return self.close(id, CloseReason::SlowConsumer);
        }
        self.send(id, frames);
    }

    /// Whatever arrives shows that the line or stream lives.
    pub(crate) fn heard(&mut self, id: ConnId, now: Now) {
        let random = self.roll();
        let Some(conn) = self.arena.get(id) else {
            return;
        };
        let is_incomplete = conn.decoder.incomplete_since().is_some();
        if conn.device().is_some() || conn.stream().is_some() {
            let due = self.settings.heartbeat.after_heard(now.tick(), random);
            self.arena.set_due(id.slot, due);
        }
        if is_incomplete {
            self.arm(id, now);
        }
    }
}

fn refuse_refresh(cause: &str, out: &mut Vec<u8>) {
    refuse(ErrorCode::Unauthorized, cause, out);
}

/// What a device is told whose new token names an account that has as many lines as it may.
const ACCOUNT_FULL: &str = "the account has as many lines here as it may";

fn refuse(code: ErrorCode, cause: &str, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    encode_error(None, code, cause, &mut text);
    encoder::encode(Opcode::Text, &text, out);
}
