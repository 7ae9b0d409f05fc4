//! Who watches an account, and what it is told.
//!
//! A shard with watchers of an account keeps one view of it: each device, its newest line, and what watchers were told
//! of it. The view is made of what a survey finds on each shard that has lines of the account, and of the changes that
//! shards tell from the moment on at which the watch stands in the index. Both come from one shard in one order, and
//! generations tell older lines from newer ones, so it does not matter how the shards' news interleave.
//!
//! A line that ends is not told at once. If the device has another line before `presence.offline_after` has passed, it
//! was never away.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::{Now, millis};
use crate::mailbox::account::{Asker, Change, Surveyed, Turn};
use crate::net::stream::Transport;
use crate::protocol::device::encode_refusal;
use crate::reactor::account::slices;
use crate::reactor::shard::{Shard, Timer};
use crate::reactor::view::{Telling, View};
use crate::wire::account::{Cause, encode_presence};
use crate::wire::api::DeviceState;
use crate::wire::error::ErrorCode;
use crate::wire::reply::encode_done;
use crate::ws::encoder;
use crate::ws::frame::Opcode;

/// What a shard's watchers watch.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    views: HashMap<Box<str>, View>,
    /// Watchers that have not been shown all devices yet.
    paging: VecDeque<(ConnId, Box<str>)>,
    has_more: bool,
    /// Lines that have ended and are to be told of, oldest first.
    absences: VecDeque<Absence>,
}

/// A line that has ended.
#[derive(Debug)]
struct Absence {
    due_ms: u64,
    account: Box<str>,
    device_id: Box<str>,
    generation: u64,
    reason: CloseReason,
    at_ms: u64,
}

impl<T: Transport> Shard<T> {
    /// Begins to tell a line of its account's devices: all that there are, then what changes.
    pub(crate) fn handle_watch(&mut self, conn: ConnId, id: &str, out: &mut Vec<u8>, now: Now) {
        let Some(account) = self.account_of(conn, id, out) else {
            return;
        };
        if !self.take_sends(conn, 1, now) {
            let cause = "too many requests from this device; slow down";
            return encode_refusal(id, ErrorCode::RateLimited, cause, out);
        }
        self.end_watch(conn, &account);
        let key = self.node.accounts.key(&account);
        let Ok((watch, places)) = self.node.accounts.watch(key, self.id) else {
            let cause = "the account has as many watchers as it may; use list";
            return encode_refusal(id, ErrorCode::Overloaded, cause, out);
        };
        self.cells().watches.add(1);
        self.watches.has_more = true;
        self.watches
            .paging
            .push_back((conn, account.as_str().into()));
        if let Some(view) = self.watches.views.get_mut(account.as_str()) {
            return view.add(conn, id);
        }
        let slices = slices(&places);
        let mut view = View::new(watch, slices.len());
        view.add(conn, id);
        self.watches.views.insert(account.as_str().into(), view);
        let asker = self.id;
        if !self.survey(&account, slices, |_| Asker::View(asker, watch)) {
            self.end_watch(conn, &account);
            let cause = "the node has no room for the request now; try again";
            encode_refusal(id, ErrorCode::Overloaded, cause, out);
        }
    }

    /// Ends a line's watch on request.
    pub(crate) fn handle_unwatch(&mut self, conn: ConnId, id: &str, out: &mut Vec<u8>) {
        let Some(account) = self.account_of(conn, id, out) else {
            return;
        };
        self.end_watch(conn, &account);
        let mut text = Vec::new();
        encode_done(id, &mut text);
        encoder::encode(Opcode::Text, &text, out);
    }

    /// Forgets that a line watches, if it does; with the last watcher goes the view.
    pub(crate) fn end_watch(&mut self, conn: ConnId, account: &str) {
        let Some(view) = self.watches.views.get_mut(account) else {
            return;
        };
        if !view.remove(conn) {
            return;
        }
        if view.is_unwatched() {
            self.watches.views.remove(account);
        }
        self.cells().watches.sub(1);
        let key = self.node.accounts.key(account);
        self.node.accounts.unwatch(key, self.id);
    }

    /// Takes what another shard has found of an account that is watched here.
    pub(crate) fn handle_surveyed(&mut self, surveyed: &Surveyed) {
        let view = self.watches.views.get_mut(&surveyed.account);
        if let Some(view) = view.filter(|view| view.is_of(surveyed.watch)) {
            view.merge(surveyed);
        }
    }

    /// Takes the news of a line whose account is watched here, and tells what is to be told of it at once.
    pub(crate) fn handle_change(&mut self, change: &Change, now: Now) {
        let view = self.watches.views.get_mut(&change.account);
        let Some(view) = view.filter(|view| view.is_of(change.watch)) else {
            return;
        };
        let telling = match change.turn {
            Turn::Opened => view.open(change),
            Turn::Leaving(reason) => view.leave(change, reason),
            Turn::Ended(reason) => {
                if view.end(change) {
                    self.note_absence(change, reason, now);
                }
                None
            }
        };
        if let Some(telling) = telling {
            self.tell_watchers(&change.account, &change.device_id, &telling);
        }
    }

    fn note_absence(&mut self, change: &Change, reason: CloseReason, now: Now) {
        let due_ms = now.ms() + millis(self.settings.presence.offline_after);
        if self.watches.absences.is_empty() {
            self.wheel.schedule(due_ms, Timer::Absences);
        }
        self.watches.absences.push_back(Absence {
            due_ms,
            account: change.account.clone(),
            device_id: change.device_id.clone(),
            generation: change.generation,
            reason,
            at_ms: change.at_ms,
        });
    }

    /// Tells of the devices that have not come back in time.
    pub(crate) fn expire_absences(&mut self, now: Now) {
        let mut budget = ABSENCES_PER_ITERATION_MAX;
        while budget > 0
            && let Some(absence) = self
                .watches
                .absences
                .pop_front_if(|absence| absence.due_ms <= now.ms())
        {
            budget -= 1;
            let Absence {
                account,
                device_id,
                generation,
                reason,
                at_ms,
                ..
            } = absence;
            let view = self.watches.views.get_mut(&account);
            if view.is_some_and(|view| view.forget(&device_id, generation)) {
                let telling = Telling {
                    state: DeviceState::Offline,
                    cause: Cause::Line(reason),
                    at_ms,
                };
                self.tell_watchers(&account, &device_id, &telling);
            }
        }
        if let Some(next) = self.watches.absences.front() {
            let at_ms = next.due_ms.max(now.ms() + 1);
            self.wheel.schedule(at_ms, Timer::Absences);
        }
    }

    fn tell_watchers(&mut self, account: &str, device_id: &str, telling: &Telling) {
        let Some(view) = self.watches.views.get(account) else {
            return;
        };
        let conns = view.hearers(device_id);
        if conns.is_empty() {
            return;
        }
        let mut text = Vec::new();
        let Telling {
            state,
            cause,
            at_ms,
        } = *telling;
        encode_presence(device_id, state, cause, at_ms, &mut text);
        let mut frame = Vec::new();
        encoder::encode(Opcode::Text, &text, &mut frame);
        self.cells().presence_told.add(conns.len() as u64);
        for conn in conns {
            self.send_bounded(conn, &frame);
        }
    }

    /// Shows watchers more of their account, a page each, as fast as they read.
    pub(crate) fn continue_watches(&mut self) {
        self.watches.has_more = false;
        for _ in 0..self.watches.paging.len().min(PAGES_PER_ITERATION_MAX) {
            let Some((conn, account)) = self.watches.paging.pop_front() else {
                return;
            };
            if !self.reads(conn) {
                self.watches.paging.push_back((conn, account));
            } else if !self.show_page(conn, &account) {
                self.watches.paging.push_back((conn, account));
                self.watches.has_more = true;
            }
        }
    }

    /// Whether a line takes what it is sent, as far as that is known.
    fn reads(&self, conn: ConnId) -> bool {
        let conn = self.arena.get(conn);
        let waiting = conn.and_then(|conn| conn.outbox.as_ref());
        waiting.is_none_or(|outbox| outbox.len() < PAGE_OUTBOX_BYTES_MAX)
    }

    /// Shows a watcher the next page; true when there is nothing more to show.
    fn show_page(&mut self, conn: ConnId, account: &str) -> bool {
        let Some(view) = self.watches.views.get_mut(account) else {
            return true;
        };
        if !view.is_whole() {
            return false;
        }
        let mut text = Vec::new();
        let Some(more) = view.show_page(conn, &mut text) else {
            return true;
        };
        let mut frame = Vec::new();
        encoder::encode(Opcode::Text, &text, &mut frame);
        self.send_bounded(conn, &frame);
        !more
    }
}

impl Watches {
    /// Whether the next iteration has something to show; who does not read is looked at again when there is one.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether nobody watches and nothing is remembered.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.views.is_empty() && self.paging.is_empty()
    }
}

/// A watcher with more than this to read gets no page yet.
const PAGE_OUTBOX_BYTES_MAX: usize = 32 * 1024;
/// Watchers looked at per iteration: a page of 200 devices takes some 10 µs.
const PAGES_PER_ITERATION_MAX: usize = 32;
/// Absences looked at per iteration; the rest follow in the next.
const ABSENCES_PER_ITERATION_MAX: usize = 1_024;
