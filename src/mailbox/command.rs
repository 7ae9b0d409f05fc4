//! What travels between shards: commands, which a full mailbox refuses, and completions, which it may not.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::base::close::CloseReason;
use crate::base::id::{ConnId, Location, MessageId, ShardId};
use crate::base::place::{Candidates, Place};
use crate::base::wheel::Wheel;
use crate::mailbox::account::{Change, Member, Survey, Surveyed};
use crate::mailbox::broadcast::Broadcast;
use crate::mailbox::queue;
use crate::mailbox::sender::Sender;
use crate::wire::api::{ConnectionInfo, DeviceInfo, Level};
use crate::wire::payload::Payload;

/// The receiving end of a shard.
pub type Mailbox = queue::Mailbox<Command, Completion>;
/// A way to post into a shard.
pub type Post = queue::Post<Command, Completion>;
/// What one shard has staged for another in this iteration.
pub type Outgoing = queue::Batch<Command, Completion>;

/// A request to the shard that owns a connection. Boxed where large, because a mailbox holds thousands.
#[derive(Debug)]
pub enum Command {
    /// Put a message into a line's outbox.
    Deliver(Box<Delivery>),
    /// Tell where a device is.
    Inspect(Box<Inspection>),
    /// Tell which lines are of an account.
    Survey(Box<Survey>),
    /// Close a connection on an operator's behalf; answers whether it was there.
    Kick(ConnId, oneshot::Sender<bool>),
    /// List lines in slot order.
    List(Box<Listing>),
    /// Read the node's settings again.
    Reload,
    /// Begin to leave.
    Drain(Box<DrainOrder>),
    /// Forget the drain: lines that were not asked to leave yet stay.
    Resume,
    /// Close every line and stream that is left: the drain's deadline has passed.
    CloseLines,
    /// Close everything that is left and stop.
    Stop(CloseReason),
}

/// The answer to something that reserved its place when it was asked for.
#[derive(Debug)]
pub enum Completion {
    /// What became of a delivery or an inspection.
    Answer(Ticket, Outcome),
    /// A message that its device was not there for. Bounded by the mailbox it was in.
    Missed(Box<Delivery>),
    /// The shard has handled so many deliveries of this one by now, those given back included. At most one per iteration.
    Settled(ShardId, u64),
    /// A newer line claimed the device: give it up if yours is older. At most one per candidate of a claim, and a
    /// lost one would leave a device with two lines.
    Replace(Box<Replacement>),
    /// Lines of an account that this shard begins to watch.
    Surveyed(Box<Surveyed>),
    /// A line of an account that this shard watches has come or gone. At most one per turn of a line's life, and a lost
    /// one would leave watchers with a wrong picture.
    Changed(Box<Change>),
    /// Send a message to all lines. There are as many of them as the control plane lets begin at once, and a lost one would
    /// never end.
    Broadcast(Arc<Broadcast>),
    /// A task of this shard can go on: a future on another thread has finished.
    Wake(ConnId),
}

/// Where an answer belongs: a waiter on the shard that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The shard that waits.
    pub shard: ShardId,
    /// The waiter's place.
    pub waiter: u32,
    /// Which use of that place: the asker may hang up while the answer is under way.
    pub generation: u32,
    /// Which part of what was asked: messages to several devices have one waiter, and an answer for each.
    pub part: u32,
}

impl Ticket {
    /// The part that stands for all: what ends a waiter whose parts have not all answered.
    pub const WHOLE: u32 = u32::MAX;

    /// The same waiter, for one part of what it waits for.
    #[must_use]
    pub fn for_part(self, part: u32) -> Self {
        Self { part, ..self }
    }
}

/// How far something came, or why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message was queued or written on a line.
    Reached(Level, Location),
    /// The device acknowledged it, and had this to say, in JSON.
    Acked(Location, Option<Box<str>>),
    /// Its time was over before the socket took any of it.
    Expired(Location),
    /// A newer message with its collapse key took its place.
    Superseded(Location),
    /// The device's line, in answer to an inspection.
    Found(Box<DeviceInfo>),
    /// The device that a message to an account's line is for: more is to come.
    Holder(Box<str>),
    /// The lines that a survey found.
    Surveyed(Vec<Member>),
    /// The device is not connected here.
    Offline,
    /// The line the message was bound to is gone.
    Gone,
    /// The message was written and will not be acknowledged: the line ended first, or too many others wait for that.
    Unacked,
    /// The line's outbox is full, and the line is being closed for it.
    SlowConsumer,
    /// A raw line cannot acknowledge.
    AckUnsupported,
    /// The sender, or the device it sends to, has used its allowance up.
    RateLimited,
    /// A mailbox or table on the way was full.
    Busy,
    /// The deadline came first.
    Timeout,
}

/// A message on its way to the line that holds its device.
#[derive(Debug)]
pub struct Delivery {
    /// Who the message is for. The owning shard compares, for fingerprints may collide.
    pub to: Recipient,
    /// How its search for the device goes.
    pub way: Way,
    /// Deliver on this connection only.
    pub bound_to: Option<Location>,
    /// The message's id.
    pub message_id: MessageId,
    /// What it carries.
    pub payload: Payload,
    /// Who sent it: the owner of the device decides by it.
    pub from: Sender,
    /// The level to answer at.
    pub wait: Level,
    /// Who is to be told.
    pub ticket: Ticket,
    /// When it was taken up, in monotonic microseconds.
    pub submitted_us: u64,
    /// What its sender allows while it waits; boxed because most allow nothing.
    pub terms: Option<Box<Terms>>,
}

/// How far a message's search for its recipient has come.
#[derive(Debug, Default)]
pub struct Way {
    /// Where the recipient may be; the last one is tried next.
    pub candidates: Candidates,
    /// The first look found nobody and a second one was taken, at everything that may match.
    pub is_thorough: bool,
    /// Until when its sender has patience, in monotonic milliseconds: it does not start again after that.
    pub deadline_ms: u64,
    /// How many messages the shard it is sent to was known to have handled when it was.
    pub settled: u64,
}

/// Who a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A device, wherever its line is.
    Device(Box<str>),
    /// Whichever device of the account has the line at the place given.
    Member(Arc<str>),
}

/// What may happen to a message that has to wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// When its time is over, in monotonic milliseconds.
    pub expires_ms: Option<u64>,
    /// Its sender and its collapse key in one: a newer message with the same takes its place.
    pub collapse_key: Option<Box<str>>,
}

impl Terms {
    /// The terms of a message that was accepted at this monotonic microsecond. A key is its sender's own, so that nobody can have
    /// another's messages dropped.
    pub fn new(
        ttl_ms: Option<u64>,
        collapse_key: Option<&str>,
        sender: &Sender,
        accepted_us: u64,
    ) -> Option<Box<Self>> {
        // The wheel cannot tell a shorter time from none, in which even an idle line would not be reached.
        let accepted_ms = accepted_us.div_ceil(1_000);
        let expires_ms = ttl_ms.map(|ttl| accepted_ms.saturating_add(ttl.max(TTL_MS_MIN)));
        // A key has no line break, so the last one ends the sender.
        let collapse_key = collapse_key.map(|key| format!("{}\n{key}", sender.name()).into());
        (expires_ms.is_some() || collapse_key.is_some()).then(|| {
            Box::new(Self {
                expires_ms,
                collapse_key,
            })
        })
    }
}

/// The shortest time a message is given.
const TTL_MS_MIN: u64 = Wheel::<()>::RESOLUTION_MS;

/// A question about a device.
#[derive(Debug)]
pub struct Inspection {
    /// The device asked for.
    pub device_id: Box<str>,
    /// Where it may be; the last one is tried next.
    pub candidates: Candidates,
    /// As in [`Way`].
    pub is_thorough: bool,
    /// Who is to be told.
    pub ticket: Ticket,
}

/// The news that a device has a newer line.
#[derive(Debug)]
pub struct Replacement {
    /// The device.
    pub device_id: Box<str>,
    /// The slot that may hold an older line of it.
    pub slot: u32,
    /// The newer line's generation.
    pub generation: u64,
    /// The newer line, so that an even newer owner can answer.
    pub by: Place,
}

/// How lines are asked to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Over how long the go-aways are spread.
    pub spread_ms: u64,
    /// Where devices should go, if not where they came from.
    pub url: Option<Arc<str>>,
}

/// A page of the connection list.
#[derive(Debug)]
pub struct Listing {
    /// First slot to look at.
    pub from_slot: u32,
    /// Most lines to return.
    pub limit: usize,
    /// Only lines of this account.
    pub user_id: Option<String>,
    /// Takes the lines, and the slot to go on from if there may be more.
    pub reply: oneshot::Sender<(Vec<ConnectionInfo>, Option<u32>)>,
}

// A mailbox of 4,096 commands and its spare must stay small beside a reactor's 0.5 MB.
const _: () = assert!(size_of::<Command>() <= 24);
const _: () = assert!(size_of::<Completion>() <= 48);
