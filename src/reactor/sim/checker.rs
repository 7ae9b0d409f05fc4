//! The judge, who sees only what back ends sent and what devices heard.

use hashbrown::{HashMap, HashSet};

use crate::mailbox::command::Outcome;
use crate::reactor::waiter::Answer;
use crate::wire::api::Level;

/// What is known of the messages of one life.
#[derive(Debug, Default)]
pub(super) struct Checker {
    sent: HashMap<u64, Sent>,
    heard: HashSet<u64>,
    /// The last message of a sender that a device's connection heard, by (sender, connection).
    latest: HashMap<(usize, u64), u64>,
    answered: HashSet<u64>,
    /// Messages whose sender was told that nothing reached the device.
    lost: HashSet<u64>,
}

#[derive(Debug)]
struct Sent {
    device: usize,
    sender: usize,
    wait: Level,
}

impl Checker {
    /// A back end sent a message. Numbers rise with time.
    pub(super) fn send(&mut self, number: u64, device: usize, sender: usize, wait: Level) {
        self.sent.insert(
            number,
            Sent {
                device,
                sender,
                wait,
            },
        );
    }

    /// A connection of a device heard a message.
    pub(super) fn hear(&mut self, number: u64, device: usize, connection: u64) {
        let sent = &self.sent[&number];
        assert_eq!(
            sent.device, device,
            "message {number} reached another device"
        );
        assert!(
            self.heard.insert(number),
            "message {number} was heard twice"
        );
        let latest = self.latest.entry((sent.sender, connection)).or_default();
        assert!(
            *latest < number,
            "message {number} overtook {latest} of the same sender"
        );
        *latest = number;
    }

    /// A back end got its answer.
    pub(super) fn answer(&mut self, number: u64, answer: &Answer) {
        assert!(
            self.answered.insert(number),
            "message {number} was answered twice"
        );
        let wait = self.sent[&number].wait;
        match answer.outcome {
            Outcome::Reached(level, _) => assert!(
                level >= wait,
                "message {number}: {level:?} is less than {wait:?}"
            ),
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
        let is_lost = !matches!(answer.outcome, Outcome::Reached(..) | Outcome::Timeout);
        if is_lost && answer.progress.is_none() {
            self.lost.insert(number);
        }
    }

    /// A back end got the reply to a record; `is_lost` if it was told that nothing reached the device.
    pub(super) fn reply(&mut self, number: u64, is_lost: bool) {
        assert!(
            self.answered.insert(number),
            "message {number} was answered twice"
        );
        if is_lost {
            self.lost.insert(number);
        }
    }

    /// The stream of a message's sender has ended: it will never know.
    pub(super) fn give_up(&mut self, number: u64) {
        self.answered.insert(number);
    }

    /// At the end nobody may still wait.
    pub(super) fn finish(&self) {
        let unanswered: Vec<_> = self
            .sent
            .keys()
            .filter(|number| !self.answered.contains(*number))
            .collect();
        assert!(unanswered.is_empty(), "never answered: {unanswered:?}");
        let risen: Vec<_> = self.lost.intersection(&self.heard).collect();
        assert!(risen.is_empty(), "given up and yet heard: {risen:?}");
    }

    pub(super) fn heard(&self) -> usize {
        self.heard.len()
    }
}
