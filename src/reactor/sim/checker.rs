//! The judge, who sees only what back ends sent, what devices heard, and what the node says it counted.

use hashbrown::{HashMap, HashSet};
use serde_json::Value;

use crate::mailbox::command::Outcome;
use crate::metrics::Ending;
use crate::reactor::waiter::Answer;
use crate::wire::api::Level;

/// What is known of the messages of one life.
#[derive(Debug, Default)]
pub(super) struct Checker {
    sent: HashMap<u64, Sent>,
    heard: HashSet<u64>,
    /// The last message that a device's connection heard, by sender, collapse key and connection. A newer message may
    /// come earlier than its time only in the place of an older one with its key.
    latest: HashMap<(usize, Option<u8>, u64), u64>,
    answered: HashSet<u64>,
    /// Messages whose sender was told that nothing reached the device.
    lost: HashSet<u64>,
    /// The endings that senders were told.
    told: [u64; Ending::ALL.len()],
}

/// A message as its sender knows it.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) device: usize,
    pub(super) sender: usize,
    pub(super) wait: Level,
    pub(super) at_ms: u64,
    pub(super) ttl_ms: Option<u64>,
    pub(super) key: Option<u8>,
    /// The only connection it may reach.
    pub(super) bound_to: Option<u64>,
}

impl Checker {
    /// A back end sent a message. Numbers rise with time.
    pub(super) fn send(&mut self, number: u64, sent: Sent) {
        self.sent.insert(number, sent);
    }

    /// A connection of a device heard a message.
    pub(super) fn hear(&mut self, number: u64, device: usize, connection: u64) {
        let sent = &self.sent[&number];
        assert_eq!(
            sent.device, device,
            "message {number} reached another device"
        );
        assert!(
            sent.bound_to.is_none_or(|bound| bound == connection),
            "message {number} reached another line"
        );
        assert!(
            self.heard.insert(number),
            "message {number} was heard twice"
        );
        let place = (sent.sender, sent.key, connection);
        let latest = self.latest.entry(place).or_default();
        assert!(
            *latest < number,
            "message {number} overtook {latest} of the same sender"
        );
        *latest = number;
    }

    /// A back end got its answer.
    pub(super) fn answer(
        &mut self,
        number: u64,
        answer: &Answer,
        written: &HashSet<u64>,
        now_ms: u64,
    ) {
        assert!(
            self.answered.insert(number),
            "message {number} was answered twice"
        );
        let sent = &self.sent[&number];
        let progress = answer.progress.map(|(level, _)| level);
        let is_claimed = progress >= Some(Level::Written)
            || matches!(
                answer.outcome,
                Outcome::Acked(..) | Outcome::Reached(Level::Written, _)
            );
        check_claim(number, is_claimed, written);
        match &answer.outcome {
            Outcome::Reached(level, _) => assert!(
                *level >= sent.wait,
                "message {number}: {level:?} is less than {:?}",
                sent.wait
            ),
            Outcome::Acked(_, data) => {
                assert_eq!(data.as_deref(), Some(&*number.to_string()));
                assert!(self.heard.contains(&number), "{number} acknowledged itself");
            }
            Outcome::Expired(_) => self.check_expired(number, now_ms),
            Outcome::Superseded(_) => self.check_superseded(number),
            Outcome::Found(_) | Outcome::Holder(_) | Outcome::Surveyed(_) => {
                panic!("message {number} was answered with a device")
            }
            Outcome::Offline
            | Outcome::Unacked
            | Outcome::Gone
            | Outcome::SlowConsumer
            | Outcome::AckUnsupported
            | Outcome::RateLimited
            | Outcome::Busy
            | Outcome::Timeout => {}
        }
        if let Some(ending) = told_ending(&answer.outcome) {
            self.told[ending as usize] += 1;
        }
        let may_be_heard = matches!(
            answer.outcome,
            Outcome::Reached(..) | Outcome::Acked(..) | Outcome::Unacked | Outcome::Timeout
        );
        if !may_be_heard {
            self.lost.insert(number);
        }
    }

    /// A back end got the reply to a record.
    pub(super) fn reply(
        &mut self,
        number: u64,
        reply: &Value,
        written: &HashSet<u64>,
        now_ms: u64,
    ) {
        assert!(
            self.answered.insert(number),
            "message {number} was answered twice"
        );
        let sent = &self.sent[&number];
        let level = reply["level"].as_str().and_then(Level::from_word);
        check_claim(number, level >= Some(Level::Written), written);
        let result = reply["result"].as_str();
        let ending = match result {
            Some("expired") => {
                self.check_expired(number, now_ms);
                Some(Ending::Expired)
            }
            Some("superseded") => {
                self.check_superseded(number);
                Some(Ending::Superseded)
            }
            Some("acked") => {
                assert_eq!(reply["data"], number);
                assert!(self.heard.contains(&number), "{number} acknowledged itself");
                Some(Ending::Acked)
            }
            Some("written") => Some(Ending::Written),
            Some("queued") | None => None,
            Some(other) => panic!("message {number} has the result {other}"),
        };
        let is_reached = result.is_some() && !is_dropped(ending);
        assert!(!is_reached || level >= Some(sent.wait), "{number}: {reply}");
        if let Some(ending) = ending {
            self.told[ending as usize] += 1;
        }
        let may_be_there = is_reached || reply["error"]["code"] == "ack_timeout";
        if !may_be_there {
            self.lost.insert(number);
        }
    }

    fn check_expired(&self, number: u64, now_ms: u64) {
        let sent = &self.sent[&number];
        assert!(
            sent.ttl_ms.is_some_and(|ttl| sent.at_ms + ttl <= now_ms),
            "message {number} expired before its time"
        );
    }

    fn check_superseded(&self, number: u64) {
        assert!(
            self.has_successor(number, &self.sent[&number]),
            "message {number} gave way to none"
        );
    }

    /// The stream of a message's sender has ended: it will never know.
    pub(super) fn give_up(&mut self, number: u64) {
        self.answered.insert(number);
    }

    /// Whether the sender sent the device a newer message with the same key.
    fn has_successor(&self, number: u64, sent: &Sent) -> bool {
        self.sent.iter().any(|(other, newer)| {
            *other > number
                && sent.key.is_some()
                && (newer.sender, newer.device, newer.key) == (sent.sender, sent.device, sent.key)
        })
    }

    /// At the end nobody may still wait, and what the node counted is what it told.
    pub(super) fn finish(&self, submitted: u64, endings: &[u64; Ending::ALL.len()]) {
        let unanswered: Vec<_> = self
            .sent
            .keys()
            .filter(|number| !self.answered.contains(*number))
            .collect();
        assert!(unanswered.is_empty(), "never answered: {unanswered:?}");
        let risen: Vec<_> = self.lost.intersection(&self.heard).collect();
        assert!(risen.is_empty(), "given up and yet heard: {risen:?}");
        let counted: u64 = endings.iter().sum();
        assert_eq!(
            counted, submitted,
            "a message ended twice, or not at all: {endings:?}"
        );
        let written = endings[Ending::Written as usize] + endings[Ending::Acked as usize];
        assert!(
            self.heard.len() as u64 <= written,
            "{} were heard, {written} counted as written",
            self.heard.len()
        );
        for ending in Ending::ALL {
            let (counted, told) = (endings[ending as usize], self.told[ending as usize]);
            assert!(
                counted >= told,
                "{ending:?}: told {told}, counted {counted}"
            );
        }
    }

    /// How many senders were told of each ending.
    pub(super) fn told(&self) -> [u64; Ending::ALL.len()] {
        self.told
    }

    pub(super) fn heard(&self) -> usize {
        self.heard.len()
    }
}

/// A sender may be told that a message is written only once some wire has taken all of it.
pub(super) fn check_claim(number: u64, is_claimed: bool, written: &HashSet<u64>) {
    assert!(
        !is_claimed || written.contains(&number),
        "message {number} is said to be written, and is not"
    );
}

fn is_dropped(ending: Option<Ending>) -> bool {
    matches!(ending, Some(Ending::Expired | Ending::Superseded))
}

/// The ending that an answer stands for, if it can only be one.
fn told_ending(outcome: &Outcome) -> Option<Ending> {
    match outcome {
        Outcome::Acked(..) => Some(Ending::Acked),
        Outcome::Reached(Level::Written, _) | Outcome::Unacked => Some(Ending::Written),
        Outcome::Expired(_) => Some(Ending::Expired),
        Outcome::Superseded(_) => Some(Ending::Superseded),
        Outcome::SlowConsumer => Some(Ending::SlowConsumer),
        Outcome::Gone | Outcome::AckUnsupported => Some(Ending::Refused),
        Outcome::Busy => Some(Ending::Busy),
        Outcome::RateLimited => Some(Ending::RateLimited),
        Outcome::Offline
        | Outcome::Timeout
        | Outcome::Reached(..)
        | Outcome::Found(_)
        | Outcome::Holder(_)
        | Outcome::Surveyed(_) => None,
    }
}
