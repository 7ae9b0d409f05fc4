//! The window in which a repeated request is answered instead of carried out: keys and what came of them.
//!
//! Shared by all reactors of a node, because a sender that lost its connection repeats itself on another. Only requests
//! with a key come here, and hold a lock for two look-ups in a map. The alternative, a shard that owns the key, would
//! cost every such request a trip through two mailboxes, and a new way to be refused, before its message is on its way.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::base::id::{Location, MessageId};
use crate::base::time::Now;
use crate::mailbox::command::Outcome;
use crate::reactor::node::Node;
use crate::reactor::receipt::Receipt;
use crate::wire::api::Level;
use crate::wire::envelope::SendRequest;
use crate::wire::payload::Form;

/// The keys of a node, in stripes so that reactors seldom meet at a lock.
#[derive(Debug, Default)]
pub struct Window([Mutex<Stripe>; Self::STRIPES]);

/// A SHA-256, cut to what no two requests share: the window holds the same few bytes for every key and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest(u128);

/// A request with a key, ready to be looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    /// The sender and its key.
    pub(crate) key: Digest,
    /// What is asked for: the same key with another fingerprint is a mistake of the sender.
    pub(crate) fingerprint: Digest,
}

/// How much the window keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long a key is known.
    pub(crate) window_ms: u64,
    /// How many are known at once.
    pub(crate) keys_max: u32,
}

/// What the window knows of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is new, and the key is taken for it. So many others were forgotten for that.
    New { forgotten: u64 },
    /// The same request is under way.
    Pending,
    /// The same request was carried out.
    Done(Receipt),
    /// The key was used for another request.
    Conflict,
}

impl Window {
    /// How many keys a node can do with at least: one for each stripe.
    pub(crate) const STRIPES: usize = 16;

    /// Looks a request up, and takes its key if it is new.
    pub(crate) fn claim(
        &self,
        keyed: Keyed,
        message_id: MessageId,
        bounds: Bounds,
        now_ms: u64,
    ) -> Known {
        self.stripe(keyed.key)
            .lock()
            .claim(keyed, message_id, bounds, now_ms)
    }

    /// Notes what came of a request, unless its key was forgotten meanwhile.
    fn settle(&self, key: Digest, receipt: Receipt) {
        self.stripe(key).lock().settle(key, receipt);
    }

    /// Gives the key of a request back that was not carried out.
    fn release(&self, key: Digest, message_id: MessageId) {
        let mut stripe = self.stripe(key).lock();
        if stripe.is_held_by(key, message_id) {
            stripe.forget(key);
        }
    }

    fn stripe(&self, key: Digest) -> &Mutex<Stripe> {
        &self.0[(key.0 % Self::STRIPES as u128) as usize]
    }
}

impl Digest {
    /// The name of a key: two senders may use the same.
    pub(crate) fn of_key(sender: &str, key: &str) -> Self {
        Self::of([sender.as_bytes(), key.as_bytes()])
    }

    /// What a request asks for. How long its sender waits, and what traces it, may differ when it is repeated.
    pub(crate) fn of_request(device_id: &str, request: &SendRequest) -> Self {
        let form: &[u8] = match request.payload.form {
            Form::Json => b"json",
            Form::Text => b"text",
            Form::Binary => b"binary",
        };
        let ttl_ms = request.ttl_ms.map(u64::to_be_bytes);
        Self::of([
            device_id.as_bytes(),
            form,
            &request.payload.bytes,
            request.wait.word().as_bytes(),
            request
                .connection_id
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
            request
                .collapse_key
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
            ttl_ms.as_ref().map_or(&[], |bytes| &bytes[..]),
        ])
    }

    fn of<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With its length, so that no two lists of parts look the same.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let low = hash.first_chunk().copied().unwrap_or_default();
        Self(u128::from_be_bytes(low))
    }
}

/// A key that is taken for a request under way. Dropped without an answer, it gives the key back.
pub(crate) struct Claim {
    node: Arc<Node>,
    key: Digest,
    message_id: MessageId,
    taken_us: u64,
    is_settled: bool,
}

impl Claim {
    /// Makes the claim for a request that was found to be new.
    pub(crate) fn new(node: Arc<Node>, key: Digest, message_id: MessageId, now: Now) -> Self {
        Self {
            node,
            key,
            message_id,
            taken_us: now.us,
            is_settled: false,
        }
    }

    /// Keeps the answer for those who ask again. When nothing has reached the device, asking again is trying again.
    pub(crate) fn settle(
        mut self,
        outcome: &Outcome,
        progress: Option<(Level, Location)>,
        now: Now,
    ) {
        let latency_ms = now.us.saturating_sub(self.taken_us) / 1_000;
        if let Ok(receipt) = Receipt::new(self.message_id, outcome, progress, latency_ms) {
            self.node.window.settle(self.key, receipt);
            self.is_settled = true;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_settled {
            self.node.window.release(self.key, self.message_id);
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

/// A part of the keys, and the order in which they came.
#[derive(Debug, Default)]
struct Stripe {
    entries: HashMap<Digest, Entry>,
    order: BTreeMap<u64, Digest>,
    /// How many keys ever came.
    claimed: u64,
    /// What devices said with their acks, in bytes.
    data_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Digest,
    /// Its place in the order.
    number: u64,
    claimed_ms: u64,
    message_id: MessageId,
    receipt: Option<Receipt>,
}

impl Entry {
    fn data_bytes(&self) -> usize {
        let data = self
            .receipt
            .as_ref()
            .and_then(|receipt| receipt.data.as_ref());
        data.map_or(0, |data| data.len())
    }
}

impl Stripe {
    fn claim(&mut self, keyed: Keyed, message_id: MessageId, bounds: Bounds, now_ms: u64) -> Known {
        self.forget_old(bounds, now_ms);
        if let Some(entry) = self.entries.get(&keyed.key) {
            return match &entry.receipt {
                _ if entry.fingerprint != keyed.fingerprint => Known::Conflict,
                Some(receipt) => Known::Done(receipt.clone()),
                None => Known::Pending,
            };
        }
        let keys_max = (bounds.keys_max as usize / Window::STRIPES).max(1);
        let mut forgotten = 0;
        while self.entries.len() >= keys_max && self.forget_oldest() {
            forgotten += 1;
        }
        self.claimed += 1;
        self.order.insert(self.claimed, keyed.key);
        let entry = Entry {
            fingerprint: keyed.fingerprint,
            number: self.claimed,
            claimed_ms: now_ms,
            message_id,
            receipt: None,
        };
        self.entries.insert(keyed.key, entry);
        Known::New { forgotten }
    }

    fn settle(&mut self, key: Digest, receipt: Receipt) {
        if !self.is_held_by(key, receipt.message_id) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.receipt = Some(receipt);
            self.data_bytes += entry.data_bytes();
        }
        while self.data_bytes > DATA_BYTES_MAX && self.forget_oldest() {}
    }

    fn is_held_by(&self, key: Digest, message_id: MessageId) -> bool {
        let entry = self.entries.get(&key);
        entry.is_some_and(|entry| entry.message_id == message_id)
    }

    /// Forgets the keys whose time is over.
    fn forget_old(&mut self, bounds: Bounds, now_ms: u64) {
        while let Some((_, key)) = self.order.first_key_value() {
            let entry = self.entries.get(key);
            let is_old = |entry: &Entry| entry.claimed_ms + bounds.window_ms <= now_ms;
            if !entry.is_none_or(is_old) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.order.first_key_value().map(|(_, key)| *key);
        oldest.is_some_and(|key| self.forget(key))
    }

    fn forget(&mut self, key: Digest) -> bool {
        let Some(entry) = self.entries.remove(&key) else {
            return false;
        };
        self.data_bytes -= entry.data_bytes();
        self.order.remove(&entry.number).is_some()
    }
}

/// Most bytes that one stripe keeps of what devices said; beyond it the oldest keys go.
const DATA_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::receipt::Fate;

    const BOUNDS: Bounds = Bounds {
        window_ms: 1_000,
        keys_max: 32,
    };
    const NEW: Known = Known::New { forgotten: 0 };

    fn keyed(key: u128, fingerprint: u128) -> Keyed {
        Keyed {
            // All in one stripe.
            key: Digest(key * Window::STRIPES as u128),
            fingerprint: Digest(fingerprint),
        }
    }

    fn receipt(message_id: MessageId, data: Option<&str>) -> Receipt {
        Receipt {
            message_id,
            fate: Fate::Reached,
            level: Some(Level::Acked),
            location: None,
            data: data.map(Arc::from),
            latency_ms: 3,
        }
    }

    #[test]
    fn a_repeated_request_is_pending_then_done_and_another_one_a_conflict() {
        let (window, id) = (Window::default(), MessageId(1));
        let claim = |fingerprint| window.claim(keyed(1, fingerprint), MessageId(2), BOUNDS, 5);
        assert_eq!(window.claim(keyed(1, 7), id, BOUNDS, 0), NEW);
        assert_eq!(claim(7), Known::Pending);
        assert_eq!(claim(8), Known::Conflict);
        window.settle(keyed(1, 7).key, receipt(id, Some("1")));
        assert_eq!(claim(7), Known::Done(receipt(id, Some("1"))));
        assert_eq!(claim(8), Known::Conflict);
    }

    #[test]
    fn a_key_that_was_given_back_or_is_too_old_is_new_again() {
        let window = Window::default();
        assert_eq!(window.claim(keyed(1, 7), MessageId(1), BOUNDS, 0), NEW);
        window.release(keyed(1, 7).key, MessageId(1));
        assert_eq!(window.claim(keyed(1, 8), MessageId(2), BOUNDS, 0), NEW);
        // The first request ends late, and finds its key in other hands.
        window.release(keyed(1, 7).key, MessageId(1));
        window.settle(keyed(1, 7).key, receipt(MessageId(1), None));
        let again = |now_ms| window.claim(keyed(1, 8), MessageId(3), BOUNDS, now_ms);
        assert_eq!(again(999), Known::Pending);
        assert_eq!(again(1_000), NEW);
    }

    #[test]
    fn at_the_bound_the_oldest_key_is_forgotten_and_counted() {
        let window = Window::default();
        for key in 0..2 {
            assert_eq!(window.claim(keyed(key, 0), MessageId(key), BOUNDS, 0), NEW);
        }
        let third = window.claim(keyed(2, 0), MessageId(2), BOUNDS, 0);
        assert_eq!(third, Known::New { forgotten: 1 });
        let second = window.claim(keyed(1, 0), MessageId(9), BOUNDS, 0);
        assert_eq!(second, Known::Pending);
        let first = window.claim(keyed(0, 0), MessageId(9), BOUNDS, 0);
        assert_eq!(first, Known::New { forgotten: 1 });
    }

    #[test]
    fn what_devices_said_takes_bounded_memory() {
        let window = Window::default();
        let bounds = Bounds {
            keys_max: u32::MAX,
            ..BOUNDS
        };
        let data = "x".repeat(DATA_BYTES_MAX / 2);
        for key in 0..3 {
            assert_eq!(window.claim(keyed(key, 0), MessageId(key), bounds, 0), NEW);
            window.settle(keyed(key, 0).key, receipt(MessageId(key), Some(&data)));
        }
        let stripe = window.stripe(keyed(0, 0).key).lock();
        assert_eq!((stripe.entries.len(), stripe.order.len()), (2, 2));
        assert_eq!(stripe.data_bytes, DATA_BYTES_MAX);
    }

    #[test]
    fn parts_that_only_look_the_same_together_differ() {
        assert_ne!(Digest::of_key("ab", "c"), Digest::of_key("a", "bc"));
        assert_eq!(Digest::of_key("a", "b"), Digest::of_key("a", "b"));
    }
}
