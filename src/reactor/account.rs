//! The lines of an account: entering and leaving the index, telling watchers, and answering who is there.

use std::collections::BTreeMap;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, ShardId};
use crate::base::place::Place;
use crate::base::time::Now;
use crate::mailbox::account::{Asker, Change, Member, Survey, Surveyed, Turn};
use crate::mailbox::command::{Command, Completion, Outcome, Ticket};
use crate::net::stream::Transport;
use crate::protocol::auth::identity::Identity;
use crate::reactor::d2d::REQUESTS_MAX;
use crate::reactor::request::Question;
use crate::reactor::shard::Shard;
use crate::reactor::tally::Tally;
use crate::reactor::waiter::RequestKind;
use crate::wire::account::{Listed, Rest, encode_devices};
use crate::wire::api::{DeviceState, Level};
use crate::wire::cursor::Cursor;
use crate::wire::device::ListFrame;
use crate::wire::error::ErrorCode;

impl<T: Transport> Shard<T> {
    /// Has a new line entered into its account once its claim has been published.
    ///
    /// Not before: whoever finds the new line in the index and sends to the account would otherwise reach an older line
    /// of the device that has not been told to go yet, and so the device twice.
    pub(crate) fn note_newcomer(&mut self, id: ConnId) {
        self.newcomers.push(id);
    }

    /// Enters the lines opened in this iteration into their accounts.
    pub(crate) fn enter_accounts(&mut self, now: Now) {
        let mut newcomers = std::mem::take(&mut self.newcomers);
        for id in newcomers.drain(..) {
            self.enter_account(id, now);
        }
        self.newcomers = newcomers;
    }

    /// Enters a line into the account of its identity, if that has one.
    fn enter_account(&mut self, id: ConnId, now: Now) {
        let device = self.arena.get(id).and_then(|conn| conn.device());
        let Some(account) = device.and_then(|device| device.identity.account()) else {
            return;
        };
        let key = self.node.accounts.key(account);
        let watching = self.node.accounts.insert(key, self.place(id));
        self.tell_of(id, &watching, Turn::Opened, now);
    }

    /// Takes a seat in its account for a line that is to be opened, if the account's lines are limited; false when it is
    /// one too many. A newer line of a device that is here takes the older one's place.
    pub(crate) fn take_seat(&self, id: ConnId, identity: &Identity) -> bool {
        let lines_max = self.settings.limits.connections_per_account as usize;
        let Some(account) = identity.account().filter(|_| lines_max > 0) else {
            return true;
        };
        let (accounts, presence) = (&self.node.accounts, &self.node.presence);
        let device = presence.fingerprint(identity.device().as_bytes());
        let others = || presence.lookup_all(device);
        accounts.take_seat(accounts.key(account), self.place(id), lines_max, others)
    }

    /// Gives the seat up of a line that cannot be opened.
    pub(crate) fn give_seat_up(&self, id: ConnId, identity: &Identity) {
        if let Some(account) = identity.account() {
            let key = self.node.accounts.key(account);
            self.node.accounts.give_seat_up(key, self.place(id));
        }
    }

    /// Takes a line out of its account.
    pub(crate) fn leave_account(
        &mut self,
        id: ConnId,
        identity: &Identity,
        generation: u64,
        turn: Turn,
        now: Now,
    ) {
        let Some(account) = identity.account() else {
            return;
        };
        let key = self.node.accounts.key(account);
        let watching = self.node.accounts.remove(key, self.place(id));
        self.tell(&watching, identity, generation, turn, now);
    }

    /// Has a line whose token was renewed stand in the account that the new one names, and be known to stay.
    pub(crate) fn renew_account(&mut self, id: ConnId, old: &Identity, now: Now) {
        let device = self.arena.get(id).and_then(|conn| conn.device());
        let Some(device) = device else {
            return;
        };
        let (new, generation) = (device.identity.clone(), device.generation);
        let is_leaving = device.leaving.is_some();
        if new.account() == old.account() {
            if is_leaving {
                return;
            }
        } else {
            self.end_watch(id, old.account().unwrap_or_default());
            let turn = Turn::Ended(CloseReason::PeerClosed);
            self.leave_account(id, old, generation, turn, now);
        }
        self.enter_account(id, now);
    }

    /// Tells watchers that a line was asked to go away.
    pub(crate) fn tell_leaving(&mut self, id: ConnId, now: Now) {
        let device = self.arena.get(id).and_then(|conn| conn.device());
        let Some((account, reason)) =
            device.and_then(|device| Some((device.identity.account()?, device.leaving?)))
        else {
            return;
        };
        let watching = self.node.accounts.watching(self.node.accounts.key(account));
        self.tell_of(id, &watching, Turn::Leaving(reason), now);
    }

    /// Tells of a line that is open, usually nobody.
    fn tell_of(&mut self, id: ConnId, watching: &[(ShardId, u32)], turn: Turn, now: Now) {
        let device = self.arena.get(id).and_then(|conn| conn.device());
        let Some(device) = device.filter(|_| !watching.is_empty()) else {
            return;
        };
        let (identity, generation) = (device.identity.clone(), device.generation);
        self.tell(watching, &identity, generation, turn, now);
    }

    fn tell(
        &mut self,
        watching: &[(ShardId, u32)],
        identity: &Identity,
        generation: u64,
        turn: Turn,
        now: Now,
    ) {
        for &(shard, watch) in watching {
            let change = Change {
                watch,
                account: identity.account().unwrap_or_default().into(),
                device_id: identity.device().into(),
                generation,
                turn,
                at_ms: now.wall_ms,
            };
            if shard == self.id {
                self.handle_change(&change, now);
            } else {
                self.complete(shard, Completion::Changed(Box::new(change)));
            }
        }
    }

    /// Asks the shards at the places which of those are lines of the account, a slice of them at a time; each slice is a
    /// part of the answer ([`slices`]). False when a shard could not be asked.
    pub(crate) fn survey(
        &mut self,
        account: &str,
        slices: Vec<(ShardId, Vec<u32>)>,
        asker: impl Fn(u32) -> Asker,
    ) -> bool {
        for (part, (shard, slots)) in (0..).zip(slices) {
            let survey = Box::new(Survey {
                account: account.into(),
                slots,
                asker: asker(part),
            });
            if shard == self.id {
                self.surveys.push_back(survey);
            } else if !self.stage(shard, Command::Survey(survey)) {
                return false;
            }
        }
        self.continue_surveys();
        true
    }

    /// Answers surveys, as many as an iteration has time for.
    pub(crate) fn continue_surveys(&mut self) {
        while self.surveys_left > 0
            && let Some(survey) = self.surveys.pop_front()
        {
            self.surveys_left -= 1;
            self.carry_out(*survey);
        }
    }

    fn carry_out(&mut self, survey: Survey) {
        let slots = survey.slots.iter();
        let members = slots.filter_map(|slot| self.member(*slot, &survey.account));
        let members: Vec<_> = members.collect();
        match survey.asker {
            Asker::Ticket(ticket) => self.answer(ticket, Outcome::Surveyed(members)),
            // An asker who has hung up needs no answer.
            Asker::Caller(reply) => drop(reply.send(members)),
            Asker::View(shard, watch) => {
                let surveyed = Surveyed {
                    watch,
                    account: survey.account,
                    members,
                };
                if shard == self.id {
                    self.handle_surveyed(&surveyed);
                } else {
                    self.complete(shard, Completion::Surveyed(Box::new(surveyed)));
                }
            }
        }
    }

    fn member(&self, slot: u32, account: &str) -> Option<Member> {
        let id = self.arena.id_at(slot)?;
        let device = self.arena.get(id)?.device()?;
        (device.identity.account() == Some(account)).then(|| Member {
            device_id: device.identity.device().into(),
            location: self.location(id),
            generation: device.generation,
            since_ms: device.since_ms,
            leaving: device.leaving,
        })
    }

    /// Answers a device's `list` with a page of its account's devices.
    pub(crate) fn handle_list(
        &mut self,
        id: ConnId,
        list: &ListFrame<'_>,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        let Some(account) = self.account_of(id, list.id, out) else {
            return;
        };
        let key = self.node.accounts.key(&account);
        let after = list.cursor.map(|cursor| cursor.0);
        let places = self.node.accounts.page(key, after, list.limit);
        let is_full = places.len() == list.limit;
        let question = Question {
            conn: id,
            id: list.id,
            message_id: None,
            wait: Level::Queued,
            kind: RequestKind::List(places.last().copied().filter(|_| is_full)),
            requests_max: REQUESTS_MAX,
        };
        let ticket = match self.open_request(&question, now) {
            Ok(ticket) => ticket,
            Err(denial) => return self.deny(list.id, denial, out),
        };
        if !self.take_sends(id, 1, now) {
            return self.answer(ticket, Outcome::RateLimited);
        }
        if places.is_empty() {
            return self.answer(ticket, Outcome::Surveyed(Vec::new()));
        }
        let whole = ticket.for_part(Ticket::WHOLE);
        self.limit_patience(whole, now.ms() + SURVEY_PATIENCE_MS);
        let slices = slices(&places);
        let tally = Tally::new(slices.len(), 0);
        self.api.waiters.set_tally(ticket, tally);
        let asker = |part| Asker::Ticket(ticket.for_part(part));
        if !self.survey(&account, slices, asker) {
            self.answer(whole, Outcome::Busy);
        }
    }

    /// The account of a line that asks about it; one without any is told so.
    pub(crate) fn account_of(
        &self,
        id: ConnId,
        request: &str,
        out: &mut Vec<u8>,
    ) -> Option<String> {
        let device = self.arena.get(id)?.device()?;
        let account = device.identity.account().map(str::to_owned);
        if account.is_none() {
            let cause = "this device has no account";
            crate::protocol::device::encode_refusal(request, ErrorCode::Forbidden, cause, out);
            self.cells().frame_errors.add(1);
        }
        account
    }
}

/// The slots to look at, by shard, none of them for longer than a part of a millisecond.
pub(crate) fn slices(places: &[Place]) -> Vec<(ShardId, Vec<u32>)> {
    let mut slots: BTreeMap<ShardId, Vec<u32>> = BTreeMap::new();
    for place in places {
        slots.entry(place.shard).or_default().push(place.slot);
    }
    let slices = slots.iter().flat_map(|(shard, slots)| {
        let slices = slots.chunks(SURVEYED_SLOTS_MAX);
        slices.map(|slice| (*shard, slice.to_vec()))
    });
    slices.collect()
}

/// Appends the answer to a `list`, by device id.
pub(crate) fn encode_page(
    id: &str,
    members: &mut [Member],
    next: Option<Place>,
    out: &mut Vec<u8>,
) {
    members.sort_unstable_by(|one, other| one.device_id.cmp(&other.device_id));
    let devices = members.iter().map(|member| Listed {
        device_id: &member.device_id,
        state: DeviceState::of(member.leaving),
    });
    let cursor = next.map(|place| Cursor(place).to_string());
    encode_devices(id, devices, Rest::Cursor(cursor.as_deref()), out);
}

/// Asking another shard takes microseconds; a shard that has not answered by now is overloaded.
const SURVEY_PATIENCE_MS: u64 = 2_000;
/// Slots that one survey looks at.
/// In tests few, so that a small account takes several.
const SURVEYED_SLOTS_MAX: usize = if cfg!(test) { 2 } else { 512 };
/// Surveys answered per iteration: some 0.2 ms of looking at lines nobody has looked at for long.
pub(crate) const SURVEYS_PER_ITERATION_MAX: u32 = 4;
