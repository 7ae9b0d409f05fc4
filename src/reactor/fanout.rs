//! One message to all lines of an account: cut into slices, so that ten thousand of them hold nobody up.
//!
//! Lines are found in the index of accounts, and each gets a delivery of its own. An iteration submits so many of them
//! and no more. What a line sends while its message to an account is still under way waits behind it, since messages
//! from one line to one device keep their order.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::id::{ConnId, MessageId};
use crate::base::place::Place;
use crate::base::time::Now;
use crate::mailbox::command::{Delivery, Outcome, Recipient, Terms, Ticket, Way};
use crate::mailbox::sender::Sender;
use crate::net::stream::Transport;
use crate::reactor::pressure::Pressure;
use crate::reactor::shard::Shard;
use crate::reactor::tally::Tally;
use crate::wire::api::Level;
use crate::wire::payload::Payload;

/// A message that is to go out, to a device or to an account.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) to: Addressee,
    pub(crate) message_id: MessageId,
    pub(crate) payload: Payload,
    pub(crate) from: Sender,
    pub(crate) wait: Level,
    /// How long after it was taken up it may still be written.
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) collapse_key: Option<Box<str>>,
    pub(crate) ticket: Ticket,
    /// When it was taken up, in monotonic microseconds.
    pub(crate) submitted_us: u64,
    /// Until when its sender has patience, in monotonic milliseconds.
    pub(crate) deadline_ms: u64,
}

/// Who an errand is for.
#[derive(Debug)]
pub(crate) enum Addressee {
    Device(Box<str>),
    Account(Arc<str>),
}

/// The errands of a shard that take more than one iteration.
#[derive(Debug, Default)]
pub(crate) struct Fanouts {
    /// Taken up in this iteration; they start in the next.
    fresh: Vec<Fanout>,
    running: VecDeque<Fanout>,
    /// What waits behind a running one of the same line, or for what the line sent before to arrive.
    held: HashMap<ConnId, VecDeque<Errand>>,
    /// The lines whose first held errand waits for that.
    waiting: VecDeque<ConnId>,
}

/// A message to an account, under way.
#[derive(Debug)]
struct Fanout {
    errand: Errand,
    /// The line that sends; back ends have none.
    line: Option<ConnId>,
    places: Vec<Place>,
    /// How many places have their delivery.
    submitted: usize,
}

impl<T: Transport> Shard<T> {
    /// Carries an errand of a line out, or lets it wait until an earlier one of the line has.
    ///
    /// One to an account goes to places, and so would not be kept behind a message to a device that looks for it again
    /// ([`order`](crate::reactor::order)): it waits until those have arrived.
    pub(crate) fn send_in_order(&mut self, line: ConnId, errand: Errand, now: Now) {
        if let Some(held) = self.fanouts.held.get_mut(&line) {
            held.push_back(errand);
        } else if matches!(errand.to, Addressee::Account(_)) && self.has_under_way(line) {
            self.fanouts.held.entry(line).or_default().push_back(errand);
            self.fanouts.waiting.push_back(line);
        } else {
            self.run(Some(line), errand, now);
        }
    }

    /// Carries an errand out, or begins to.
    pub(crate) fn run(&mut self, line: Option<ConnId>, errand: Errand, now: Now) {
        match &errand.to {
            Addressee::Device(device_id) => {
                let to = Recipient::Device(device_id.clone());
                let delivery = errand.delivery(to, errand.ticket);
                self.submit(Box::new(delivery), errand.deadline_ms, now);
            }
            Addressee::Account(account) => {
                let key = self.node.accounts.key(account);
                let mut places = self.node.accounts.page(key, None, FANOUT_LINES_MAX + 1);
                if let Some(line) = line {
                    let own = self.place(line);
                    places.retain(|place| *place != own);
                }
                match self.check_fanout(line, &places, now) {
                    Ok(()) => self.begin_fanout(line, errand, places),
                    Err(outcome) => self.answer(errand.ticket, outcome),
                }
            }
        }
    }

    /// Whether a message to so many lines may go out: paid for by its sender, and with room for it.
    fn check_fanout(
        &mut self,
        line: Option<ConnId>,
        places: &[Place],
        now: Now,
    ) -> Result<(), Outcome> {
        if let Some(line) = line {
            // One of them was taken when it was sent.
            let most = self.settings.limits.sends_burst - 1;
            let more = u32::try_from(places.len()).unwrap_or(u32::MAX);
            if !self.take_sends(line, more.saturating_sub(1).min(most), now) {
                return Err(Outcome::RateLimited);
            }
        }
        if places.is_empty() {
            return Err(Outcome::Offline);
        }
        let is_pressed = self.node.pressure.level() >= Pressure::RefuseMessages;
        if is_pressed
            || places.len() > FANOUT_LINES_MAX
            || self.fanouts.running.len() >= FANOUTS_MAX
        {
            self.cells().fanouts_refused.add(1);
            return Err(Outcome::Busy);
        }
        Ok(())
    }

    fn begin_fanout(&mut self, line: Option<ConnId>, errand: Errand, places: Vec<Place>) {
        self.cells().fanouts.add(1);
        let results = if line.is_some() { 0 } else { RESULTS_MAX };
        let tally = Tally::new(places.len(), results as usize);
        self.api.waiters.set_tally(errand.ticket, tally);
        if let Some(line) = line {
            self.fanouts.held.entry(line).or_default();
        }
        self.fanouts.fresh.push(Fanout {
            errand,
            line,
            places,
            submitted: 0,
        });
    }

    /// Starts what was taken up in the last iteration, each with a slice.
    ///
    /// A new line of a device stands in the index once its shard has told the older one's to let it go. By now that was
    /// received here too: no device gets the message on its older line and on its new one.
    pub(crate) fn start_fanouts(&mut self, now: Now) {
        for fanout in std::mem::take(&mut self.fanouts.fresh) {
            self.continue_fanout(fanout, now);
        }
    }

    /// Goes on with what takes more than one iteration: a slice of the one that has waited longest.
    pub(crate) fn continue_fanouts(&mut self, now: Now) {
        for _ in 0..self.fanouts.waiting.len() {
            let Some(line) = self.fanouts.waiting.pop_front() else {
                break;
            };
            if self.has_under_way(line) {
                self.fanouts.waiting.push_back(line);
            } else {
                self.release_held(line, now);
            }
        }
        if let Some(fanout) = self.fanouts.running.pop_front() {
            self.continue_fanout(fanout, now);
        }
    }

    fn continue_fanout(&mut self, mut fanout: Fanout, now: Now) {
        self.submit_slice(&mut fanout, now);
        if !fanout.is_submitted() {
            return self.fanouts.running.push_back(fanout);
        }
        self.finish_fanout(&fanout, now);
        if let Some(line) = fanout.line {
            self.release_held(line, now);
        }
    }

    fn submit_slice(&mut self, fanout: &mut Fanout, now: Now) {
        let Addressee::Account(account) = &fanout.errand.to else {
            return;
        };
        let end = (fanout.submitted + FANOUT_SLICE).min(fanout.places.len());
        for (part, place) in (0..).zip(&fanout.places).take(end).skip(fanout.submitted) {
            let to = Recipient::Member(Arc::clone(account));
            let ticket = fanout.errand.ticket.for_part(part);
            let mut delivery = fanout.errand.delivery(to, ticket);
            delivery.way.candidates.push(*place);
            self.cells().submitted.add(1);
            self.deliver_to_member(Box::new(delivery), now);
        }
        fanout.submitted = end;
    }

    /// From now on the sender's patience counts: an answer before would let its next message overtake this one.
    fn finish_fanout(&mut self, fanout: &Fanout, now: Now) {
        let ticket = fanout.errand.ticket.for_part(Ticket::WHOLE);
        if self.api.waiters.is_waiting(ticket) {
            let deadline_ms = fanout.errand.deadline_ms.max(now.ms() + 1);
            self.limit_patience(ticket, deadline_ms);
        }
    }

    /// Carries out what a line has sent meanwhile, up to its next message to an account.
    fn release_held(&mut self, line: ConnId, now: Now) {
        let Some(mut held) = self.fanouts.held.remove(&line) else {
            return;
        };
        while let Some(errand) = held.pop_front() {
            self.send_in_order(line, errand, now);
            if let Some(newly_held) = self.fanouts.held.get_mut(&line) {
                newly_held.append(&mut held);
                return;
            }
        }
    }

    /// Drops what a line that has ended had not begun to send. Its requests are forgotten with it.
    pub(crate) fn forget_held(&mut self, line: ConnId) {
        self.fanouts.held.remove(&line);
        self.fanouts.waiting.retain(|other| *other != line);
        let fanouts = &mut self.fanouts;
        for fanout in fanouts.fresh.iter_mut().chain(&mut fanouts.running) {
            fanout.line = fanout.line.filter(|other| *other != line);
        }
    }
}

impl Fanouts {
    /// Whether a line has a message to an account under way.
    pub(crate) fn holds(&self, line: ConnId) -> bool {
        self.held.contains_key(&line)
    }

    /// Whether the next iteration has something to go on with.
    pub(crate) fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.running.is_empty() && self.waiting.is_empty()
    }

    /// Whether nothing is held either.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.is_idle() && self.held.is_empty()
    }
}

impl Fanout {
    fn is_submitted(&self) -> bool {
        self.submitted == self.places.len()
    }
}

impl Errand {
    fn delivery(&self, to: Recipient, ticket: Ticket) -> Delivery {
        Delivery {
            to,
            way: Way {
                deadline_ms: self.deadline_ms,
                ..Way::default()
            },
            bound_to: None,
            message_id: self.message_id,
            payload: self.payload.clone(),
            from: self.from.clone(),
            wait: self.wait,
            ticket,
            submitted_us: self.submitted_us,
            terms: Terms::new(
                self.ttl_ms,
                self.collapse_key.as_deref(),
                &self.from,
                self.submitted_us,
            ),
        }
    }
}

/// Lines that one iteration writes to: each costs a `send` of some 5 µs, so all of them well below a millisecond.
/// In tests few, so that a small account takes several iterations too.
const FANOUT_SLICE: usize = if cfg!(test) { 1 } else { 128 };
/// The most lines a message to an account may go to: 256 KiB of places.
pub(crate) const FANOUT_LINES_MAX: usize = 65_536;
/// Messages to accounts that a shard has under way at once.
const FANOUTS_MAX: usize = 64;
/// Devices whose results a back end is told one by one.
pub(crate) const RESULTS_MAX: u32 = 100;
