//! What shards tell each other about the lines of an account.

use tokio::sync::oneshot;

use crate::base::close::CloseReason;
use crate::base::id::{Location, ShardId};
use crate::mailbox::command::Ticket;

/// A question about some of a shard's lines: which of them are of the account, and how they are.
#[derive(Debug)]
pub struct Survey {
    /// The account. Lines in the slots may be of another, for fingerprints may collide and slots change hands.
    pub account: Box<str>,
    /// Where to look.
    pub slots: Vec<u32>,
    /// Who asks.
    pub asker: Asker,
}

/// Who is told what a survey found.
#[derive(Debug)]
pub enum Asker {
    /// A waiter.
    Ticket(Ticket),
    /// A shard that begins to watch the account, and the number of its watch. The answer must not be overtaken by a [`Change`], nor overtake one.
    View(ShardId, u32),
    /// The control plane.
    Caller(oneshot::Sender<Vec<Member>>),
}

/// What a survey found on one shard, for a shard that begins to watch.
#[derive(Debug)]
pub struct Surveyed {
    /// The number of the watch.
    pub watch: u32,
    /// The account.
    pub account: Box<str>,
    /// Its lines there.
    pub members: Vec<Member>,
}

/// A line of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device_id: Box<str>,
    /// Its line.
    pub location: Location,
    /// Which line of the device: the greatest holds it.
    pub generation: u64,
    /// When the line was authenticated, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// It was asked to go away, and why.
    pub leaving: Option<CloseReason>,
}

/// What has become of a line whose account is watched.
#[derive(Clone, Debug)]
pub struct Change {
    /// The number of the watch that is told.
    pub watch: u32,
    /// The account.
    pub account: Box<str>,
    /// The device.
    pub device_id: Box<str>,
    /// Which line of the device.
    pub generation: u64,
    /// What has happened.
    pub turn: Turn,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A turn in a line's life that watchers may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is open.
    Opened,
    /// It was asked to go away.
    Leaving(CloseReason),
    /// It has ended.
    Ended(CloseReason),
}
