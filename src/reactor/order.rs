//! What keeps the messages of one shard to one device in order while the device moves from shard to shard.
//!
//! A message goes to the shard that holds its device, in a lane that keeps order. But a device moves: one message finds
//! it gone and has to look again, and a later one, which looked later, goes straight to the new shard. Two rules keep
//! them in order, whatever the device does:
//!
//! 1. **One lane at a time.** As long as a message to a device is on its way in one lane, the next one takes that lane
//!    too, or is held until the lane has settled: until its far shard has said how many it has handled.
//! 2. **One miss, all miss.** A shard that does not find the device gives the message back to where it came from, and
//!    does so with every later one of the same lane to the same device, until the sending shard has learnt of the first.
//!
//! So what is on its way to a device is in one lane; of that, a beginning is placed, in order, and the rest comes back,
//! in order, before the lane settles. What comes back is held, with what was submitted meanwhile behind it, and starts
//! again together when nothing is on its way any more. No message is placed on a line after a later one.
//!
//! It costs what crosses between shards an entry in a small table, and what stays on its shard nothing. A shard says
//! once per iteration what it has handled, together with the answers.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashTable};

use crate::base::id::ShardId;
use crate::mailbox::command::Delivery;
use crate::reactor::plant::{Bug, is_planted};
use crate::route::presence::Fingerprint;

/// The lanes to and from every shard, and which devices' messages are in them.
#[derive(Debug)]
pub(crate) struct Order {
    lanes: Box<[Lane]>,
    /// Messages sent and not known to be handled, in all lanes.
    unsettled: u64,
    /// The last message to each device that is on its way, and some that have arrived.
    flights: HashTable<Flight>,
    /// With so many it is time to forget those that have arrived.
    flights_max: usize,
    held: HashMap<Fingerprint, Held>,
    held_len: usize,
    /// Devices that were ever held: numbers them in the order they were.
    holds: u64,
}

/// What goes between this shard and another, counted from the first message on.
#[derive(Debug, Default)]
struct Lane {
    /// Messages sent there.
    sent: u64,
    /// How many of these the other shard has said it has handled.
    settled: u64,
    /// Messages from there that were handled here.
    handled: u64,
    /// How many of these the other shard was told of.
    told: u64,
    /// Devices that messages from there did not find, each with the number of the message. Nearly always empty.
    misses: VecDeque<(Fingerprint, u64)>,
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    device: Fingerprint,
    shard: ShardId,
    number: u64,
}

/// Messages to a device that wait for a lane to settle.
#[derive(Debug)]
struct Held {
    number: u64,
    queue: VecDeque<Box<Delivery>>,
    /// How many of them have come back: they go before the others.
    returned: usize,
}

impl Order {
    /// Nothing is on its way between the shards of a node.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            unsettled: 0,
            flights: HashTable::new(),
            flights_max: FLIGHTS_KEPT,
            held: HashMap::new(),
            held_len: 0,
            holds: 0,
        }
    }

    /// The shard to which a message to the device is on its way.
    pub(crate) fn lane_in_use(&self, device: Fingerprint) -> Option<ShardId> {
        if self.unsettled == 0 || is_planted(Bug::FreeLanes) {
            return None;
        }
        let flight = self.flights.find(device.bits(), |f| f.device == device)?;
        self.is_under_way(flight).then_some(flight.shard)
    }

    /// How many messages a shard has handled, as far as it has said.
    pub(crate) fn settled(&self, shard: ShardId) -> u64 {
        self.lanes[usize::from(shard.0)].settled
    }

    /// Counts a message that was sent to a shard; one to a device is on its way from now on.
    pub(crate) fn note_sent(&mut self, shard: ShardId, device: Option<Fingerprint>) {
        let lane = &mut self.lanes[usize::from(shard.0)];
        lane.sent += 1;
        self.unsettled += 1;
        let number = lane.sent;
        let Some(device) = device else {
            return;
        };
        let flight = Flight {
            device,
            shard,
            number,
        };
        let is_same = |other: &Flight| other.device == device;
        match self.flights.find_mut(device.bits(), is_same) {
            Some(last) => *last = flight,
            None => {
                self.flights
                    .insert_unique(device.bits(), flight, |other| other.device.bits());
                if self.flights.len() >= self.flights_max {
                    self.forget_arrived();
                }
            }
        }
    }

    /// A shard has handled so many messages by now.
    pub(crate) fn note_settled(&mut self, shard: ShardId, handled: u64) {
        let lane = &mut self.lanes[usize::from(shard.0)];
        self.unsettled -= handled - lane.settled;
        lane.settled = handled;
    }

    /// Counts a message of another shard that is handled here. `true` when the sending shard, which had learnt of so many
    /// being handled when it sent this, may not know yet that an earlier one missed its device.
    pub(crate) fn note_handled(&mut self, shard: ShardId, known: u64) -> bool {
        let lane = &mut self.lanes[usize::from(shard.0)];
        lane.handled += 1;
        while lane.misses.pop_front_if(|(_, at)| *at <= known).is_some() {}
        !lane.misses.is_empty()
    }

    /// Whether an earlier message of the shard missed the device.
    pub(crate) fn has_missed(&self, shard: ShardId, device: Fingerprint) -> bool {
        let misses = &self.lanes[usize::from(shard.0)].misses;
        misses.iter().any(|(missed, _)| *missed == device)
    }

    /// The message of another shard that was counted last does not find its device here.
    pub(crate) fn note_miss(&mut self, shard: ShardId, device: Fingerprint) {
        let lane = &mut self.lanes[usize::from(shard.0)];
        lane.misses.push_back((device, lane.handled));
    }

    /// What a shard has yet to be told of the messages handled for it.
    pub(crate) fn take_untold(&mut self, shard: ShardId) -> Option<u64> {
        let lane = &mut self.lanes[usize::from(shard.0)];
        let handled = lane.handled;
        (std::mem::replace(&mut lane.told, handled) != handled).then_some(handled)
    }

    /// Whether messages to the device are held, so that the next one goes behind them.
    pub(crate) fn is_holding(&self, device: Fingerprint) -> bool {
        !self.held.is_empty() && self.held.contains_key(&device)
    }

    /// Holds a message until nothing is on its way to the device.
    ///
    /// # Errors
    /// Hands it back when too many are held.
    pub(crate) fn hold(
        &mut self,
        device: Fingerprint,
        delivery: Box<Delivery>,
    ) -> Result<(), Box<Delivery>> {
        if self.held_len >= HELD_MAX {
            return Err(delivery);
        }
        self.held(device).queue.push_back(delivery);
        Ok(())
    }

    /// Holds a message that has come back, before those that were not sent. These are never refused: they were on their
    /// way, and so are bounded by the mailboxes.
    pub(crate) fn take_back(&mut self, device: Fingerprint, delivery: Box<Delivery>) {
        let held = self.held(device);
        held.queue.insert(held.returned, delivery);
        held.returned += 1;
    }

    fn held(&mut self, device: Fingerprint) -> &mut Held {
        self.held_len += 1;
        self.held.entry(device).or_insert_with(|| {
            self.holds += 1;
            Held {
                number: self.holds,
                queue: VecDeque::new(),
                returned: 0,
            }
        })
    }

    /// Lets go of the messages to devices to which nothing is on its way any more, each device's in their order.
    pub(crate) fn release(&mut self) -> Vec<(Fingerprint, VecDeque<Box<Delivery>>)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let free = |device: &&Fingerprint| self.lane_in_use(**device).is_none();
        let mut free: Vec<_> = self.held.keys().filter(free).copied().collect();
        free.sort_unstable_by_key(|device| self.held[device].number);
        let released = free.into_iter().filter_map(|device| {
            let queue = self.held.remove(&device)?.queue;
            self.held_len -= queue.len();
            Some((device, queue))
        });
        released.collect()
    }

    fn is_under_way(&self, flight: &Flight) -> bool {
        flight.number > self.settled(flight.shard)
    }

    #[cold]
    fn forget_arrived(&mut self) {
        let lanes = &self.lanes;
        self.flights
            .retain(|flight| flight.number > lanes[usize::from(flight.shard.0)].settled);
        self.flights_max = (2 * self.flights.len()).max(FLIGHTS_KEPT);
        self.flights
            .shrink_to(self.flights_max, |flight| flight.device.bits());
    }

    /// Messages that are neither counted as ended nor in an outbox may be these.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.unsettled).unwrap() + self.held_len
    }
}

/// Messages of a shard that are held at once; more are told that the node is busy.
const HELD_MAX: usize = 4_096;
/// Flights kept before the table is looked through for those that have arrived.
const FLIGHTS_KEPT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;
    use crate::mailbox::command::{Recipient, Ticket, Way};
    use crate::mailbox::sender::Sender;
    use crate::route::presence::Presence;
    use crate::wire::api::Level;
    use crate::wire::payload::Payload;

    const NEAR: ShardId = ShardId(0);
    const FAR: ShardId = ShardId(1);

    fn device(name: &str) -> Fingerprint {
        thread_local! {
            static PRESENCE: Presence = Presence::new(10, 1);
        }
        PRESENCE.with(|presence| presence.fingerprint(name.as_bytes()))
    }

    fn message(number: u128) -> Box<Delivery> {
        Box::new(Delivery {
            to: Recipient::Device("tv-1".into()),
            way: Way::default(),
            bound_to: None,
            message_id: MessageId(number),
            payload: Payload::from_plain("1".into()),
            from: Sender::Service("test".into()),
            wait: Level::Queued,
            ticket: Ticket {
                shard: NEAR,
                waiter: 0,
                generation: 0,
                part: 0,
            },
            submitted_us: 0,
            terms: None,
        })
    }

    fn released(order: &mut Order) -> Vec<u128> {
        let queues = order.release().into_iter().flat_map(|(_, queue)| queue);
        queues.map(|delivery| delivery.message_id.0).collect()
    }

    #[test]
    fn a_lane_is_in_use_until_its_far_end_has_said_that_it_handled_the_last() {
        let mut order = Order::new(2);
        let (tv, phone) = (device("tv-1"), device("phone-1"));
        order.note_sent(FAR, Some(tv));
        order.note_sent(FAR, None);
        order.note_sent(FAR, Some(tv));
        assert_eq!(order.lane_in_use(tv), Some(FAR));
        assert_eq!(order.lane_in_use(phone), None);
        order.note_settled(FAR, 2);
        assert_eq!(order.lane_in_use(tv), Some(FAR));
        order.note_settled(FAR, 3);
        assert_eq!(order.lane_in_use(tv), None);
        assert_eq!(order.len(), 0);
    }

    #[test]
    fn what_comes_back_goes_before_what_was_submitted_meanwhile() {
        let mut order = Order::new(2);
        let tv = device("tv-1");
        (0..3).for_each(|_| order.note_sent(FAR, Some(tv)));
        order.hold(tv, message(4)).unwrap();
        order.take_back(tv, message(1));
        order.hold(tv, message(5)).unwrap();
        order.note_settled(FAR, 1);
        assert!(released(&mut order).is_empty(), "two are under way");
        (2..4).for_each(|n| order.take_back(tv, message(n)));
        order.note_settled(FAR, 3);
        assert_eq!(released(&mut order), [1, 2, 3, 4, 5]);
        assert!(!order.is_holding(tv) && order.len() == 0);
    }

    #[test]
    fn a_miss_is_remembered_until_the_sending_shard_knows() {
        let mut order = Order::new(2);
        let (tv, phone) = (device("tv-1"), device("phone-1"));
        assert!(!order.note_handled(NEAR, 0));
        order.note_miss(NEAR, tv);
        assert!(order.note_handled(NEAR, 0), "sent before it was told");
        assert!(order.has_missed(NEAR, tv) && !order.has_missed(NEAR, phone));
        assert_eq!(order.take_untold(NEAR), Some(2));
        assert_eq!(order.take_untold(NEAR), None, "nothing new");
        assert!(!order.note_handled(NEAR, 2), "sent after it was told");
    }

    #[test]
    fn what_has_arrived_is_forgotten_and_what_is_under_way_is_not() {
        let mut order = Order::new(2);
        let tv = device("tv-1");
        order.note_sent(NEAR, Some(tv));
        for n in 0..10 * FLIGHTS_KEPT as u64 {
            order.note_sent(FAR, Some(device(&n.to_string())));
            order.note_settled(FAR, n + 1);
            assert!(order.flights.len() <= FLIGHTS_KEPT);
        }
        assert_eq!(order.lane_in_use(tv), Some(NEAR));
        for n in 0..4 * FLIGHTS_KEPT {
            order.note_sent(FAR, Some(device(&n.to_string())));
        }
        for n in 0..4 * FLIGHTS_KEPT {
            assert_eq!(order.lane_in_use(device(&n.to_string())), Some(FAR));
        }
    }

    #[test]
    fn so_many_are_held_and_no_more() {
        let mut order = Order::new(2);
        let tv = device("tv-1");
        order.note_sent(FAR, Some(tv));
        (0..HELD_MAX as u128).for_each(|n| order.hold(tv, message(n)).unwrap());
        assert!(order.hold(tv, message(0)).is_err());
        order.take_back(tv, message(0));
        order.note_settled(FAR, 1);
        assert_eq!(released(&mut order).len(), HELD_MAX + 1);
        assert!(order.hold(tv, message(0)).is_ok());
    }
}
