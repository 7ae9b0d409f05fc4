//! Which lines of this node belong to an account, and who watches it.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;
use hashbrown::hash_table::{Entry, HashTable};
use parking_lot::Mutex;

use self::members::Members;
use crate::base::id::ShardId;
use crate::base::place::{Candidates, Place};

mod members;

/// The accounts with a line here: from a fingerprint of the account to the places of its lines.
///
/// No id is kept, as in presence: the shard at a place has the line's identity and compares, since two accounts may
/// share a fingerprint. Nearly every account has one line, so that case is an entry of 12 bytes; lists stand in a
/// table of their own, and sorted, so that a page of one begins where the page before ended.
///
/// A lock guards one stripe for as long as a few entries take. It also guards who watches, which makes the order of
/// things plain: a line that comes or goes is either in what a new watcher is shown, or told to it afterwards.
pub struct Accounts {
    hasher: RandomState,
    stripes: Box<[CachePadded<Mutex<Stripe>>]>,
    /// The last number given to a watch. Relaxed: it publishes nothing.
    watches: AtomicU32,
}

/// What the index knows an account by. Keyed at random: ids are chosen by strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey(u64);

/// The account has as many watchers as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The shards that have watchers of an account, to be told what its lines do; each with the number of its watch, which
/// tells news for it from news for a watch of the same account that has ended.
pub type Watching = Vec<(ShardId, u32)>;

/// A part of the index.
#[derive(Debug, Default)]
struct Stripe {
    /// Accounts with one line.
    single: HashTable<Single>,
    /// Accounts with several.
    several: HashTable<Several>,
    /// Accounts that somebody watches: nearly none.
    watched: HashTable<Watched>,
    /// Lines that are about to be entered, while the lines of an account are limited: those of one iteration.
    seats: Vec<(AccountKey, u32)>,
}

/// In two halves, so that an entry is 12 bytes instead of 16.
#[derive(Clone, Copy, Debug)]
struct Single {
    key: [u32; 2],
    place: u32,
}

#[derive(Debug)]
struct Several {
    key: AccountKey,
    members: Members,
}

#[derive(Debug)]
struct Watched {
    key: AccountKey,
    shards: Vec<Watcher>,
}

/// A shard with watchers.
#[derive(Debug)]
struct Watcher {
    shard: ShardId,
    /// The number of its watch, from its first watcher to its last.
    watch: u32,
    watchers: u32,
}

impl Accounts {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| CachePadded::default()).collect(),
            watches: AtomicU32::new(0),
        }
    }

    /// What the index knows an account by.
    pub fn key(&self, account: &str) -> AccountKey {
        AccountKey(self.hasher.hash_one(account))
    }

    /// Adds a line of an account, on its seat if it has one; yields the shards to tell.
    pub fn insert(&self, key: AccountKey, place: Place) -> Watching {
        let mut stripe = self.stripe(key).lock();
        stripe.free_seat(key, place.pack());
        stripe.insert(key, place.pack());
        stripe.watching(key)
    }

    /// Takes a seat for a line that is about to be opened and entered, unless the account has `lines_max` lines and seats.
    ///
    /// A line that takes the place of one of the account is no further one: `others` tells where its device is, and is
    /// asked under the lock. A line leaves presence before it leaves the index, so whoever is still in presence is
    /// still counted here, and its place is nobody else's.
    pub fn take_seat(
        &self,
        key: AccountKey,
        place: Place,
        lines_max: usize,
        others: impl FnOnce() -> Candidates,
    ) -> bool {
        let mut stripe = self.stripe(key).lock();
        let is_admitted = stripe.count(key, lines_max) < lines_max
            || others().iter().any(|other| stripe.has(key, other.pack()));
        if is_admitted {
            stripe.seats.push((key, place.pack()));
        }
        is_admitted
    }

    /// Gives a seat up whose line was not opened.
    pub fn give_seat_up(&self, key: AccountKey, place: Place) {
        self.stripe(key).lock().free_seat(key, place.pack());
    }

    /// Takes a line out, if it is there; yields the shards to tell.
    pub fn remove(&self, key: AccountKey, place: Place) -> Watching {
        let mut stripe = self.stripe(key).lock();
        stripe.free_seat(key, place.pack());
        stripe.remove(key, place.pack());
        stripe.watching(key)
    }

    /// The shards that watch an account: to be told that something about one of its lines has changed.
    pub fn watching(&self, key: AccountKey) -> Watching {
        self.stripe(key).lock().watching(key)
    }

    /// Up to `limit` places of an account in their own order, from the one after `after` on.
    pub fn page(&self, key: AccountKey, after: Option<Place>, limit: usize) -> Vec<Place> {
        let stripe = self.stripe(key).lock();
        stripe.page(key, after.map(Place::pack), limit)
    }

    /// Has the shard of one more watcher told what the account's lines do from now on; yields the number of its watch and
    /// the places of all lines there are now.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when the account has [`WATCHERS_MAX`] watchers.
    pub fn watch(&self, key: AccountKey, shard: ShardId) -> Result<(u32, Vec<Place>), TooMany> {
        let watch = self.watches.fetch_add(1, Ordering::Relaxed);
        let mut stripe = self.stripe(key).lock();
        let is_key = |watched: &Watched| watched.key == key;
        let entry = stripe
            .watched
            .entry(key.0, is_key, |watched| watched.key.0)
            .or_insert_with(|| Watched {
                key,
                shards: Vec::new(),
            });
        let watch = entry.into_mut().add(shard, watch)?;
        Ok((watch, stripe.page(key, None, usize::MAX)))
    }

    /// Takes one [`Self::watch`] of the shard back.
    pub fn unwatch(&self, key: AccountKey, shard: ShardId) {
        let mut stripe = self.stripe(key).lock();
        let is_key = |watched: &Watched| watched.key == key;
        if let Ok(mut entry) = stripe.watched.find_entry(key.0, is_key) {
            entry.get_mut().subtract(shard);
            if entry.get().shards.is_empty() {
                entry.remove();
            }
        }
    }

    /// How many accounts are watched.
    pub fn watched(&self) -> usize {
        let stripes = self.stripes.iter();
        stripes.map(|stripe| stripe.lock().watched.len()).sum()
    }

    /// Whether no line is in the index.
    pub fn is_empty(&self) -> bool {
        self.stripes.iter().all(|stripe| {
            let stripe = stripe.lock();
            stripe.single.is_empty() && stripe.several.is_empty() && stripe.seats.is_empty()
        })
    }

    /// The upper half picks the stripe; the tables go by the lower bits and by the topmost seven.
    fn stripe(&self, key: AccountKey) -> &Mutex<Stripe> {
        &self.stripes[(key.0 >> 32) as usize % STRIPES]
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Stripe {
    fn insert(&mut self, key: AccountKey, place: u32) {
        if let Some(several) = self.several.find_mut(key.0, |several| several.key == key) {
            return several.members.insert(place);
        }
        let hasher = |single: &Single| single.key().0;
        match self
            .single
            .entry(key.0, |single| single.key() == key, hasher)
        {
            Entry::Vacant(entry) => drop(entry.insert(Single::new(key, place))),
            Entry::Occupied(entry) if entry.get().place == place => {}
            Entry::Occupied(entry) => {
                let (first, _) = entry.remove();
                let members = Members::of_two(first.place, place);
                let several = Several { key, members };
                self.several
                    .insert_unique(key.0, several, |several| several.key.0);
            }
        }
    }

    fn remove(&mut self, key: AccountKey, place: u32) {
        let is_only = |single: &Single| single.key() == key && single.place == place;
        if let Ok(entry) = self.single.find_entry(key.0, is_only) {
            entry.remove();
            return self.shrink();
        }
        let Ok(mut entry) = self.several.find_entry(key.0, |several| several.key == key) else {
            return;
        };
        let members = &mut entry.get_mut().members;
        members.remove(place);
        if let Some(last) = members.only() {
            entry.remove();
            self.single
                .insert_unique(key.0, Single::new(key, last), |single| single.key().0);
        }
    }

    /// Gives back what a storm took: a table that is mostly empty is made anew, which costs a few microseconds once for
    /// as many removals as it has entries left.
    fn shrink(&mut self) {
        let (len, room) = (self.single.len(), self.single.capacity());
        if room > SPARE_ENTRIES && len < room / 8 {
            self.single.shrink_to(2 * len, |single| single.key().0);
        }
    }

    fn page(&self, key: AccountKey, after: Option<u32>, limit: usize) -> Vec<Place> {
        let single = self.single.find(key.0, |single| single.key() == key);
        let single = single.filter(|single| after.is_none_or(|after| single.place > after));
        if let Some(single) = single {
            return vec![Place::unpack(single.place)];
        }
        let several = self.several.find(key.0, |several| several.key == key);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let Some(several) = several else {
            return Vec::new();
        };
        several.members.page(after, limit)
    }

    /// How many lines and seats an account has, up to `limit` lines.
    fn count(&self, key: AccountKey, limit: usize) -> usize {
        let seats = self.seats.iter().filter(|(other, _)| *other == key);
        seats.count() + self.page(key, None, limit).len()
    }

    fn has(&self, key: AccountKey, place: u32) -> bool {
        let from_it_on = self.page(key, place.checked_sub(1), 1);
        let is_line = from_it_on
            .first()
            .is_some_and(|first| first.pack() == place);
        is_line || self.seats.contains(&(key, place))
    }

    fn free_seat(&mut self, key: AccountKey, place: u32) {
        if !self.seats.is_empty() {
            self.seats.retain(|seat| *seat != (key, place));
        }
    }

    fn watching(&self, key: AccountKey) -> Watching {
        if self.watched.is_empty() {
            return Watching::new();
        }
        let watched = self.watched.find(key.0, |watched| watched.key == key);
        watched.map_or_else(Watching::new, Watched::watching)
    }
}

impl Watched {
    fn add(&mut self, shard: ShardId, watch: u32) -> Result<u32, TooMany> {
        let watchers: u32 = self.shards.iter().map(|other| other.watchers).sum();
        if watchers >= WATCHERS_MAX {
            return Err(TooMany);
        }
        if let Some(own) = self.shards.iter_mut().find(|other| other.shard == shard) {
            own.watchers += 1;
            return Ok(own.watch);
        }
        self.shards.push(Watcher {
            shard,
            watch,
            watchers: 1,
        });
        Ok(watch)
    }

    fn subtract(&mut self, shard: ShardId) {
        let own = self.shards.iter_mut().filter(|other| other.shard == shard);
        own.for_each(|own| own.watchers -= 1);
        self.shards.retain(|other| other.watchers > 0);
    }

    fn watching(&self) -> Watching {
        let shards = self.shards.iter();
        shards.map(|other| (other.shard, other.watch)).collect()
    }
}

impl Single {
    fn new(key: AccountKey, place: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let key = [(key.0 >> 32) as u32, key.0 as u32];
        Self { key, place }
    }

    fn key(&self) -> AccountKey {
        let [high, low] = self.key.map(u64::from);
        AccountKey(high << 32 | low)
    }
}

/// Watchers of one account: each is told of every line that comes or goes.
pub const WATCHERS_MAX: u32 = 100;
/// Locks of the index. A table that doubles holds up no more than its stripe: at a million accounts, 4,096 entries.
const STRIPES: usize = 256;
/// Room that a stripe keeps however empty it is.
const SPARE_ENTRIES: usize = 56;

const _: () = assert!(size_of::<Single>() == 12 && size_of::<Several>() == 24);

#[cfg(test)]
mod tests {
    use hashbrown::{HashMap, HashSet};
    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    fn place(slot: u32) -> Place {
        Place {
            shard: ShardId(u16::try_from(slot % 7).unwrap()),
            slot: slot / 7,
        }
    }

    fn all(accounts: &Accounts, key: AccountKey) -> Vec<Place> {
        accounts.page(key, None, usize::MAX)
    }

    #[test]
    fn an_index_that_was_large_gives_its_room_back() {
        let accounts = Accounts::new();
        let key = |i: u32| accounts.key(&i.to_string());
        let room = || -> usize {
            let stripes = accounts.stripes.iter();
            stripes.map(|stripe| stripe.lock().single.capacity()).sum()
        };
        (0..100_000).for_each(|i| drop(accounts.insert(key(i), place(i))));
        assert!(room() >= 100_000);
        (1_000..100_000).for_each(|i| drop(accounts.remove(key(i), place(i))));
        assert!(room() <= STRIPES * SPARE_ENTRIES, "{}", room());
        assert!((0..1_000).all(|i| all(&accounts, key(i)) == [place(i)]));
    }

    #[test]
    fn an_account_grows_and_shrinks_through_all_its_forms() {
        let accounts = Accounts::new();
        let key = accounts.key("ann");
        for slot in 0..10_000 {
            accounts.insert(key, place(slot));
            accounts.insert(key, place(slot));
        }
        assert_eq!(all(&accounts, key).len(), 10_000);
        for slot in (0..10_000).rev() {
            accounts.remove(key, place(slot));
            accounts.remove(key, place(slot));
        }
        assert!(all(&accounts, key).is_empty() && accounts.is_empty());
    }

    #[test]
    fn pages_put_together_are_the_whole_account() {
        let accounts = Accounts::new();
        for (name, devices) in [("one", 1), ("four", 4), ("many", 1_000)] {
            let key = accounts.key(name);
            (0..devices).for_each(|slot| drop(accounts.insert(key, place(slot))));
            let mut pages = Vec::new();
            while let page = accounts.page(key, pages.last().copied(), 300)
                && !page.is_empty()
            {
                assert!(page.len() <= 300);
                pages.extend(page);
            }
            assert_eq!(pages, all(&accounts, key));
            assert_eq!(pages.len(), devices as usize);
        }
    }

    #[test]
    fn watchers_are_told_of_their_account_until_they_leave() {
        let accounts = Accounts::new();
        let (ann, bob) = (accounts.key("ann"), accounts.key("bob"));
        assert!(accounts.insert(ann, place(1)).is_empty());
        let (watch, places) = accounts.watch(ann, ShardId(3)).unwrap();
        assert_eq!(places, [place(1)]);
        assert_eq!(accounts.insert(ann, place(2)), [(ShardId(3), watch)]);
        let (same, _) = accounts.watch(ann, ShardId(3)).unwrap();
        assert_eq!(same, watch);
        accounts.unwatch(ann, ShardId(3));
        assert!(accounts.insert(bob, place(3)).is_empty());
        assert_eq!(accounts.remove(ann, place(1)), [(ShardId(3), watch)]);
        assert_eq!(accounts.watched(), 1);
        accounts.unwatch(ann, ShardId(3));
        accounts.unwatch(ann, ShardId(3));
        assert_eq!(accounts.watched(), 0);
        assert!(accounts.watching(ann).is_empty());
        let (later, _) = accounts.watch(ann, ShardId(3)).unwrap();
        assert_ne!(
            later, watch,
            "news of a watch that has ended is told from that of the next"
        );
    }

    #[test]
    fn an_account_has_only_so_many_watchers() {
        let accounts = Accounts::new();
        let key = accounts.key("ann");
        for watcher in 0..WATCHERS_MAX {
            let shard = ShardId(u16::try_from(watcher % 5).unwrap());
            assert!(accounts.watch(key, shard).is_ok());
        }
        assert_eq!(accounts.watching(key).len(), 5);
        assert_eq!(accounts.watch(key, ShardId(9)), Err(TooMany));
        accounts.unwatch(key, ShardId(1));
        assert!(accounts.watch(key, ShardId(9)).is_ok());
    }

    #[test]
    fn an_account_has_a_seat_for_each_line_it_may_have_and_for_newer_ones_of_its_devices() {
        let accounts = Accounts::new();
        let key = accounts.key("ann");
        let take = |slot, others: &[u32]| {
            let mut candidates = Candidates::default();
            others
                .iter()
                .for_each(|&other| candidates.push(place(other)));
            accounts.take_seat(key, place(slot), 2, || candidates)
        };
        accounts.insert(key, place(1));
        assert!(take(2, &[]));
        assert!(!take(3, &[]), "a seat counts before its line is entered");
        assert!(take(4, &[1]), "a newer line of a device that is here");
        assert!(!take(5, &[9]), "a device that is here for another account");
        accounts.remove(key, place(1));
        assert!(!take(5, &[]), "the newer line has its place");
        assert!(
            take(6, &[4]),
            "and may itself be replaced before it is entered"
        );
        accounts.insert(key, place(6));
        accounts.give_seat_up(key, place(4));
        accounts.insert(key, place(2));
        assert!(!take(7, &[]));
        accounts.remove(key, place(2));
        assert!(take(7, &[]));
        accounts.remove(key, place(7));
        accounts.remove(key, place(6));
        assert!(accounts.is_empty());
    }

    #[test]
    fn random_lives_agree_with_a_map_of_sets() {
        let mut rng = seed::rng();
        let accounts = Accounts::new();
        let mut twin: HashMap<u32, HashSet<Place>> = HashMap::new();
        for _ in 0..60_000 {
            // Few accounts of many lines, and many of one or two.
            let account = if rng.random() {
                rng.random_range(0..3)
            } else {
                rng.random_range(3..2_000)
            };
            let key = accounts.key(&account.to_string());
            let at = place(rng.random_range(0..200));
            if rng.random_ratio(11, 20) {
                accounts.insert(key, at);
                twin.entry(account).or_default().insert(at);
            } else {
                accounts.remove(key, at);
                twin.entry(account).or_default().remove(&at);
            }
        }
        for (account, places) in twin {
            let found = all(&accounts, accounts.key(&account.to_string()));
            assert!(found.is_sorted_by_key(|place| place.pack()));
            assert_eq!(found.len(), places.len(), "account {account}");
            assert!(found.iter().all(|place| places.contains(place)));
        }
    }
}
