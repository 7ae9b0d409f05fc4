//! What other threads ask of a shard, and the timers that fire in it.

use std::rc::Rc;
use std::time::Duration;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::mailbox::command::{Command, Completion, Listing, Outcome};
use crate::metrics::Refusal;
use crate::net::stream::Transport;
use crate::protocol::device::Device;
use crate::reactor::conn::{Conn, Phase};
use crate::reactor::shard::{Shard, Timer, dialect_name};
use crate::wire::api::{ConnectionInfo, DeviceInfo};

impl<T: Transport> Shard<T> {
    /// Carries a command out.
    pub(crate) fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Deliver(delivery) => self.handle_delivery(delivery, now),
            Command::Inspect(inspection) => self.inspect(inspection),
            Command::Survey(survey) => {
                self.surveys.push_back(survey);
                self.continue_surveys();
            }
            Command::Kick(id, reply) => {
                let is_there = self
                    .arena
                    .get(id)
                    .is_some_and(|conn| conn.device().is_some());
                if is_there {
                    self.close(id, CloseReason::Kicked);
                }
                // An operator who has hung up needs no answer.
                reply.send(is_there).ok();
            }
            Command::List(listing) => self.list(*listing),
            Command::Reload => self.settings = Rc::new(self.node.settings.load_full()),
            Command::Drain(order) => self.begin_drain(&order, now),
            Command::Resume => self.end_drain(),
            Command::CloseLines => {
                let is_meant = |conn: &Conn<T>| conn.device().is_some() || conn.stream().is_some();
                self.close_all(is_meant, CloseReason::Drain);
            }
            Command::Stop(reason) => {
                self.is_stopping = true;
                self.stop_by = now.tick().after(LAST_WORDS);
                self.turn_newcomers_away();
                self.close_all(|conn| !is_unheard(conn), reason);
                self.drop_lingering();
            }
        }
    }

    /// Takes an answer from another shard.
    pub(crate) fn handle_completion(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Answer(ticket, outcome) => self.answer(ticket, outcome),
            Completion::Missed(delivery) => self.handle_missed(delivery),
            Completion::Settled(shard, handled) => self.handle_settled(shard, handled, now),
            Completion::Replace(replacement) => self.replace(*replacement),
            Completion::Surveyed(surveyed) => self.handle_surveyed(&surveyed),
            Completion::Changed(change) => self.handle_change(&change, now),
            Completion::Broadcast(broadcast) => self.begin_broadcast(broadcast, now),
            Completion::Wake(id) => self.api.ready.borrow_mut().push(id),
        }
    }

    /// Closes every connection of a kind that is not closing already.
    fn close_all(&mut self, is_meant: impl Fn(&Conn<T>) -> bool, reason: CloseReason) {
        for id in self.ids(is_meant) {
            self.close(id, reason);
        }
    }

    /// Has those that have yet to send their request told 503 when they do.
    fn turn_newcomers_away(&mut self) {
        for id in self.ids(is_unheard) {
            if let Some(Phase::Upgrade(upgrade)) = self.arena.get_mut(id).map(|c| &mut c.phase) {
                upgrade.turn_away(Refusal::Draining);
            }
        }
    }

    /// Waits no longer for those that were taken in while the shard was stopping already.
    pub(crate) fn end_stop(&mut self, now: Now) {
        if now.tick() >= self.stop_by {
            self.close_all(|_| true, CloseReason::Shutdown);
            self.drop_lingering();
        }
    }

    /// Waits no longer for the far ends of closed connections.
    fn drop_lingering(&mut self) {
        for id in self.ids(|conn| matches!(conn.phase, Phase::Closing(_))) {
            self.drop_conn(id);
        }
    }

    /// Answers one page of the connection list, in slot order.
    fn list(&self, listing: Listing) {
        let mut lines = Vec::new();
        let mut next = None;
        for (id, conn) in self.arena.iter_from(listing.from_slot) {
            if lines.len() >= listing.limit || id.slot - listing.from_slot >= LISTED_SLOTS_MAX {
                next = Some(id.slot);
                break;
            }
            let Some(device) = conn.device() else {
                continue;
            };
            if listing.user_id.is_none() || device.identity.account() == listing.user_id.as_deref()
            {
                lines.push(self.connection_info(id, device));
            }
        }
        // An asker who has hung up needs no answer.
        listing.reply.send((lines, next)).ok();
    }

    fn connection_info(&self, id: ConnId, device: &Device) -> ConnectionInfo {
        let labels = device
            .identity
            .labels()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        ConnectionInfo {
            connection_id: self.node.connection_id_of(self.id, id).to_string(),
            device_id: device.identity.device().to_owned(),
            user_id: device.identity.account().map(str::to_owned),
            labels: labels.collect(),
            protocol: dialect_name(device.dialect).to_owned(),
            since_ms: device.since_ms,
        }
    }

    /// What `GET /v1/devices/{device_id}` shows of a line.
    pub(crate) fn device_info(&self, id: ConnId) -> Option<DeviceInfo> {
        let device = self.arena.get(id)?.device()?;
        let connection = self.connection_info(id, device);
        Some(DeviceInfo {
            online: true,
            node_id: self.node.id.to_string(),
            connection,
        })
    }

    /// Fires the timers that have come due, up to a budget.
    pub(crate) fn expire_timers(&mut self, now: Now) {
        let mut expired = Vec::new();
        self.wheel
            .expire(now.ms(), TIMERS_PER_ITERATION_MAX, &mut expired);
        for timer in expired {
            match timer {
                Timer::Conn(id) => self.handle_deadline(id, now),
                Timer::Absences => self.expire_absences(now),
                Timer::Allowance(id) => self.free_allowance(id, now),
                Timer::Waiter(ticket) => {
                    if self.api.waiters.is_waiting(ticket) {
                        self.cells().timeouts.add(1);
                        self.answer(ticket, Outcome::Timeout);
                    }
                }
                Timer::Expiry(id) => self.handle_expiry(id),
                Timer::Broadcasts => self.resume_broadcasts(),
            }
        }
    }

    /// Ends a connection whose earliest deadline has passed, or sets the timer to the one it has now.
    fn handle_deadline(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        match conn.deadline(&self.settings) {
            Some((at, reason)) if at <= now.tick() => {
                if matches!(conn.phase, Phase::Closing(_)) {
                    conn.stream.abort();
                    self.drop_conn(id);
                } else {
                    self.close(id, reason);
                }
            }
            Some(_) => self.arm(id, now),
            None => {}
        }
    }
}

/// Whether a connection was taken in and has not sent its request yet.
fn is_unheard<T: Transport>(conn: &Conn<T>) -> bool {
    matches!(&conn.phase, Phase::Upgrade(upgrade) if !upgrade.is_upgraded())
}

/// Slots that one page of the list may look at, so that a filter that matches nobody costs a reactor a millisecond.
const LISTED_SLOTS_MAX: u32 = 16_384;
/// How long a shard that stops hears those that came at the last moment, to tell them so.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Timers fired per iteration; the rest follow in the next.
const TIMERS_PER_ITERATION_MAX: usize = 4_096;
