//! From bytes to events: what a readable connection has to say, by what it is doing.

use std::rc::Rc;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::metrics::Refusal;
use crate::net::stream::{Io, Transport};
use crate::protocol::auth::authenticator::AuthError;
use crate::protocol::upgrade::{Door, Gate, Step, turn_away};
use crate::reactor::conn::Phase;
use crate::reactor::shard::Shard;

impl<T: Transport> Shard<T> {
    /// Reads what a socket holds, up to one visit's budget.
    pub(crate) fn handle_readable(&mut self, id: ConnId, now: Now) {
        let mut buf = std::mem::take(&mut self.read_buf);
        let mut budget = VISIT_BYTES_MAX;
        while self.may_read(id) {
            let Some(conn) = self.arena.get_mut(id) else {
                break;
            };
            let is_read_closed = conn.flags.is_read_closed;
            let filled = conn.stream.fill(&mut buf);
            let holds_more = conn.stream.holds_more();
            if let Some(news) = conn.stream.take_news() {
                self.handle_news(id, news, now);
            }
            match filled {
                Io::Ready(n) => {
                    self.cells().bytes_in.add(n as u64);
                    self.handle_bytes(id, &mut buf[..n], now);
                    // A short read proves the socket empty; only the end may still be behind it.
                    if n < buf.len() && !is_read_closed && !holds_more {
                        break;
                    }
                    budget = budget.saturating_sub(n);
                }
                Io::Silent => {
                    // As after a short read: half a record and the end may come with one edge.
                    if !is_read_closed && !holds_more {
                        break;
                    }
                    budget = budget.saturating_sub(SILENT_BYTES);
                }
                Io::Blocked => break,
                Io::Closed => {
                    self.handle_end(id);
                    break;
                }
                Io::Failed(_) => {
                    self.close_broken(id);
                    break;
                }
                Io::Refused(breach) => self.handle_breach(id, breach),
            }
            if budget == 0 {
                self.mark_unread(id);
                break;
            }
        }
        self.read_buf = buf;
        self.settle_stream(id);
    }

    /// Whether the connection's bytes can be taken now; one that must wait is visited again.
    fn may_read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.arena.get_mut(id) else {
            return false;
        };
        if conn.flags.closing.is_some() {
            return false;
        }
        match &mut conn.phase {
            Phase::Api(api) => api.may_read(),
            Phase::Stream(_) => self.may_read_stream(id),
            Phase::Upgrade(_) | Phase::Device(_) | Phase::Closing(_) => true,
        }
    }

    /// Has the connection visited again, although its socket will not say so.
    pub(crate) fn mark_unread(&mut self, id: ConnId) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut conn.flags.is_unread, true) {
            return;
        }
        if conn.is_newcomer() {
            self.admission.queue(id);
        } else if conn.is_departing() {
            self.departures.queue(id);
        } else {
            self.unread.push_back(id);
        }
    }

    fn handle_bytes(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        match &mut conn.phase {
            Phase::Upgrade(upgrade) if !upgrade.is_upgraded() => self.handle_head(id, bytes, now),
            Phase::Upgrade(_) | Phase::Device(_) => self.handle_frames(id, bytes, now),
            Phase::Stream(_) => self.handle_records(id, bytes, now),
            Phase::Api(api) => {
                api.fill(bytes);
                self.api.ready.borrow_mut().push(id);
            }
            Phase::Closing(_) => {}
        }
    }

    fn handle_end(&mut self, id: ConnId) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        conn.flags.is_read_closed = true;
        match &mut conn.phase {
            Phase::Upgrade(_) | Phase::Device(_) | Phase::Stream(_) => {
                self.close(id, CloseReason::PeerClosed);
            }
            Phase::Api(api) => {
                api.end_input();
                self.api.ready.borrow_mut().push(id);
            }
            Phase::Closing(_) => self.finish_closing(id),
        }
    }

    fn handle_head(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        let retry_after_s = 1 + self.roll() % RETRY_AFTER_SPREAD_S;
        let settings = Rc::clone(&self.settings);
        let gate = Gate {
            head: settings.heads,
            authenticator: &settings.authenticator,
            origins: &settings.origins,
            cookie: settings.cookie.as_deref(),
            api_keys: &settings.api_keys,
            is_echo: settings.is_echo,
            retry_after_s,
        };
        let Some(Phase::Upgrade(upgrade)) = self.arena.get_mut(id).map(|conn| &mut conn.phase)
        else {
            return;
        };
        let door = upgrade.door;
        let step = upgrade.handle_input(bytes, &gate, now);
        if !matches!(step, Step::Incomplete) {
            self.admission
                .charge(settings.authenticator.verification_us());
        }
        let is_account_full = matches!(
            &step,
            Step::Authenticated(_, _, authenticated) if !self.take_seat(id, &authenticated.identity)
        );
        let step = if is_account_full {
            turn_away(Refusal::AccountLimit, retry_after_s)
        } else {
            step
        };
        match step {
            Step::Incomplete => {}
            Step::Refused(refusal, response) => {
                self.cells().refused[refusal as usize].add(1);
                let is_device = door == Door::Devices;
                self.cells()
                    .auth_failures
                    .add(u64::from(is_device && refusal == Refusal::Unauthorized));
                self.send(id, &response);
                self.close(
                    id,
                    if matches!(refusal, Refusal::TableFull | Refusal::Memory) {
                        CloseReason::Overload
                    } else {
                        CloseReason::Refused
                    },
                );
            }
            Step::Greeted(switch) => {
                self.send(id, &switch.response);
                self.handle_frames(id, &mut bytes[switch.consumed..], now);
            }
            Step::Streaming(switch, service) => {
                self.send(id, &switch.response);
                self.open_stream(id, &service, now);
                self.handle_records(id, &mut bytes[switch.consumed..], now);
            }
            Step::Unauthorized(switch, error) => {
                self.send(id, &switch.response);
                self.reject(id, error);
            }
            Step::Authenticated(switch, dialect, authenticated) => {
                self.send(id, &switch.response);
                self.open_line(id, dialect, authenticated, now);
                self.handle_frames(id, &mut bytes[switch.consumed..], now);
            }
        }
    }

    /// A WebSocket whose credential failed: closed as such, because the status came too late.
    pub(crate) fn reject(&mut self, id: ConnId, error: AuthError) {
        self.cells().auth_failures.add(1);
        self.cells().refused[Refusal::Unauthorized as usize].add(1);
        tracing::debug!(cause = error.word(), "credential refused");
        self.close(id, CloseReason::Unauthorized);
    }
}

/// How much one connection may read before the others have their turn.
const VISIT_BYTES_MAX: usize = 64 * 1024;
/// What a read that brought nothing for us counts as: records of a handshake, or empty ones.
const SILENT_BYTES: usize = 32 * 1024;
/// Over how many seconds refused devices are spread when they come back.
const RETRY_AFTER_SPREAD_S: u32 = 10;
