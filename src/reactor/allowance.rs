//! How many messages devices may send to each other: a bucket for each line's sending and one for its getting.
//!
//! Full buckets say nothing, so a line has them only from its first message until both are full again: an idle line
//! has nothing here.

use hashbrown::HashMap;

use crate::base::bucket::TokenBucket;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::net::stream::Transport;
use crate::reactor::shard::{Shard, Timer};

/// The allowances of the lines that have used some.
#[derive(Debug, Default)]
pub(crate) struct Allowances(HashMap<ConnId, Allowance>);

#[derive(Debug)]
struct Allowance {
    sends: TokenBucket,
    receives: TokenBucket,
}

impl<T: Transport> Shard<T> {
    /// Takes so many messages from what a line may send; all or none.
    pub(crate) fn take_sends(&mut self, id: ConnId, messages: u32, now: Now) -> bool {
        let is_taken = self.allowance(id, now).sends.take(messages, now);
        self.cells().sends_rate_limited.add(u64::from(!is_taken));
        is_taken
    }

    /// Takes a message from what a line may get from other devices.
    pub(crate) fn take_receive(&mut self, id: ConnId, now: Now) -> bool {
        self.allowance(id, now).receives.take(1, now)
    }

    fn allowance(&mut self, id: ConnId, now: Now) -> &mut Allowance {
        let (limits, wheel) = (&self.settings.limits, &mut self.wheel);
        self.allowances.0.entry(id).or_insert_with(|| {
            wheel.schedule(now.ms() + FULL_AFTER_MS, Timer::Allowance(id));
            Allowance {
                sends: TokenBucket::new(limits.sends_per_second, limits.sends_burst),
                receives: TokenBucket::new(limits.receives_per_second, limits.receives_burst),
            }
        })
    }

    /// Drops the buckets of a line if they are full again, and looks again later if not.
    pub(crate) fn free_allowance(&mut self, id: ConnId, now: Now) {
        let Some(allowance) = self.allowances.0.get(&id) else {
            return;
        };
        let full_ms = allowance
            .sends
            .full_at_ms()
            .max(allowance.receives.full_at_ms());
        if full_ms <= now.ms() {
            self.allowances.0.remove(&id);
        } else {
            let at_ms = full_ms.max(now.ms() + FULL_AFTER_MS);
            self.wheel.schedule(at_ms, Timer::Allowance(id));
        }
    }
}

impl Allowances {
    /// Drops the buckets of a line that has ended.
    pub(crate) fn forget(&mut self, id: ConnId) {
        self.0.remove(&id);
    }

    /// How many lines have used some of their allowance.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// How long used buckets are kept at least, so that a line in steady use sets one timer in a second.
const FULL_AFTER_MS: u64 = 1_000;
