//! Which devices are on this node, and where: 8 bytes per line, read without a lock.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use crossbeam::utils::CachePadded;

use self::sync::{
    AcqRel, Acquire, AtomicU8, AtomicU64, BUCKET_WORDS, REACH_FIRST, Relaxed, Release, SeqCst,
    fence, zeroed,
};
use crate::base::id::ShardId;
use crate::base::place::{Candidates, Place};

/// An open-addressed table of words: a fingerprint of 32 bits and a packed [`Place`].
///
/// No id is kept, since the shard at the place has the connection and compares: a false match costs a look, a lookup
/// never misses a device that is present throughout. Several lines of one device may stand side by side.
///
/// **Ownership.** A word is put by compare-and-swap from zero; from then on only the shard named in it moves or clears
/// it. So there is nothing to lock, and a preempted writer stops nobody.
///
/// **Growth.** The words are allocated once, zeroed and untouched, and only 2ᵏ buckets are in use. When they are
/// crowded, k becomes k + 1; claims use the new windows, lookups read the old window and then the new one, and
/// every shard moves its own words when it finds time ([`Self::is_rehoming`]).
pub struct Presence {
    hasher: RandomState,
    words: Box<[AtomicU64]>,
    /// The first word that begins a cache line. An allocation that asks for the alignment would be zeroed by hand.
    first: usize,
    k_max: u32,
    /// The last `k` to which each shard has moved its words; read and written by that shard alone.
    rehomed: Box<[AtomicU8]>,
    /// Written when the table grows or reaches further, read by everyone: so it stands apart from what changes often.
    /// Release and acquire: who sees a shape sees the words moved before it was set.
    shape: CachePadded<AtomicU64>,
    /// How often a word was put or cleared (high half) and how many are there (low half). Counted after the change,
    /// with release; a lookup that found nothing compares it, with acquire, to what it was before.
    census: CachePadded<AtomicU64>,
    /// The last generation minted. One cell, so that relaxed suffices for it to grow.
    generation: CachePadded<AtomicU64>,
}

impl Presence {
    /// An empty table for `lines_max` lines on `shards` shards, each of which must rehome when asked.
    ///
    /// Reserves 13 to 26 bytes of address space per line; memory follows as lines come.
    pub fn new(lines_max: u32, shards: u16) -> Self {
        let words_max = u64::from(lines_max) * CROWDED.1 / CROWDED.0;
        let buckets_max = words_max.div_ceil(BUCKET_WORDS as u64).next_power_of_two();
        let k_max = buckets_max.ilog2();
        Self::with_sizes(k_max.min(K_FIRST), k_max, shards)
    }

    fn with_sizes(k: u32, k_max: u32, shards: u16) -> Self {
        assert!(
            u32::from(shards) <= Place::SHARDS_MAX,
            "a place has no room for more shards"
        );
        let buckets = (1 << k_max) + REACH_MAX as usize;
        let words = zeroed((buckets + 1) * BUCKET_WORDS);
        Self {
            first: words.as_ptr().align_offset(CACHE_LINE).min(BUCKET_WORDS),
            words,
            hasher: RandomState::new(),
            k_max,
            rehomed: (0..shards).map(|_| AtomicU8::new(0)).collect(),
            shape: CachePadded::new(AtomicU64::new(Shape::settled(k, REACH_FIRST).0)),
            census: CachePadded::default(),
            generation: CachePadded::default(),
        }
    }

    /// What the table knows a device by. Keyed at random: ids are chosen by strangers.
    pub fn fingerprint(&self, device_id: &[u8]) -> Fingerprint {
        Fingerprint(self.hasher.hash_one(device_id))
    }

    /// Puts a line into the table; yields the other lines that may be of the same device.
    ///
    /// Of two claims that race, at least one sees the other.
    ///
    /// # Errors
    ///
    /// [`Full`] when every bucket the line could be in is taken: not before twice `lines_max` lines are there.
    pub fn claim(&self, device: Fingerprint, place: Place) -> Result<Candidates, Full> {
        let word = device.word(place);
        self.put(device, word)?;
        let census = self.census.fetch_add(CHANGE + 1, AcqRel) + 1;
        // Pairs with the same fence of a racing claim: whichever comes second sees the word that was put before the
        // first, and a growth that the first had seen.
        fence(SeqCst);
        self.grow_if_crowded(low_half(census));
        Ok(self.all_matches(device, Some(place)))
    }

    /// Takes a line out; false when it was not there. Only the owning shard may.
    pub fn release(&self, device: Fingerprint, place: Place) -> bool {
        let word = device.word(place);
        let shape = self.shape();
        let cell = shape
            .homes(device)
            .find_map(|home| self.find(shape, home, word));
        if let Some(cell) = cell {
            // Release: who finds the word gone sees the claim elsewhere that made its owner let go.
            cell.store(0, Release);
            self.census.fetch_add(CHANGE - 1, AcqRel);
        }
        cell.is_some()
    }

    /// Where the device may be: the matches of the first bucket that has any, usually one.
    ///
    /// When the shard at none of them knows the device, [`Self::lookup_all`] tells whether a false match hid it.
    pub fn lookup(&self, device: Fingerprint) -> Candidates {
        let found = self.first_matches(self.shape(), device);
        found.unwrap_or_else(|| self.lookup_again(device))
    }

    /// Every place the device may be at: up to [`Candidates::MAX`].
    pub fn lookup_all(&self, device: Fingerprint) -> Candidates {
        self.all_matches(device, None)
    }

    /// Whether this shard has to move its words: it calls [`Self::rehome`] for each of its lines, at leisure, and
    /// [`Self::finish_rehome`] after the last.
    pub fn is_rehoming(&self, shard: ShardId) -> bool {
        let shape = self.shape();
        shape.is_growing() && self.rehomed_k(shard) != shape.k()
    }

    /// Moves a line to where it belongs since the table grew. Only the owning shard may. Moving twice is harmless.
    ///
    /// # Errors
    ///
    /// [`Full`] as for [`Self::claim`]; the line must be closed.
    pub fn rehome(&self, device: Fingerprint, place: Place) -> Result<(), Full> {
        let word = device.word(place);
        let shape = self.shape();
        let [old, new] = [shape.old_home(device), shape.home(device)];
        if old == new || self.find(shape, new, word).is_some() {
            return Ok(());
        }
        if let Some(cell) = self.find(shape, old, word) {
            self.put(device, word)?;
            // Release: who finds the old word gone finds the new one.
            cell.store(0, Release);
        }
        Ok(())
    }

    /// Tells that the shard has moved all of its words. When the last one has, the old windows are forgotten.
    pub fn finish_rehome(&self, shard: ShardId) {
        if self.is_rehoming(shard) {
            let k = self.shape().k();
            self.rehomed[usize::from(shard.0)].store(k.to_le_bytes()[0], Relaxed);
            self.shape.fetch_sub(Shape::SHARD, AcqRel);
        }
    }

    /// The generation of a new line: greater than every one before, and than those of earlier runs of this node as
    /// long as its clock was right.
    pub fn mint(&self, wall_ms: u64) -> LineGeneration {
        let mut minted = 0;
        let mint = |last: u64| {
            minted = (last + 1).max(wall_ms << LineGeneration::COUNTER_BITS);
            Some(minted)
        };
        _ = self.generation.fetch_update(Relaxed, Relaxed, mint);
        LineGeneration(minted)
    }

    /// How many lines are in the table.
    pub fn len(&self) -> u32 {
        low_half(self.census.load(Relaxed))
    }

    /// Whether no line is in the table.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing was found: looks again until nothing has changed meanwhile, since a line may have been claimed behind
    /// the look and released before it.
    #[cold]
    fn lookup_again(&self, device: Fingerprint) -> Candidates {
        for _ in 0..RESCANS_MAX {
            let census = self.census.load(Acquire);
            let shape = self.shape();
            let found = self.first_matches(shape, device);
            let is_unchanged = self.census.load(Acquire) == census && self.shape() == shape;
            if is_unchanged || found.is_some() {
                return found.unwrap_or_default();
            }
        }
        Candidates::default()
    }

    fn first_matches(&self, shape: Shape, device: Fingerprint) -> Option<Candidates> {
        let mut windows = shape.homes(device).map(|home| self.window(shape, home));
        windows.find_map(|window| window.iter().find_map(|bucket| matches(bucket, device)))
    }

    fn all_matches(&self, device: Fingerprint, except: Option<Place>) -> Candidates {
        let shape = self.shape();
        let windows = shape
            .homes(device)
            .flat_map(|home| self.window(shape, home));
        let mut found = Candidates::default();
        for place in windows
            .filter_map(|bucket| matches(bucket, device))
            .flatten()
        {
            if Some(place) != except {
                found.push(place);
            }
        }
        found
    }

    /// Puts a word into the first free cell from the device's home on, and lets lookups reach that far before.
    fn put(&self, device: Fingerprint, word: u64) -> Result<(), Full> {
        let shape = self.shape();
        let home = shape.home(device);
        for (reach, bucket) in (1..=REACH_MAX).zip(&self.buckets()[home..]) {
            if reach > shape.reach() {
                self.raise_reach(reach);
            }
            if put(bucket, word) {
                return Ok(());
            }
        }
        Err(Full)
    }

    fn raise_reach(&self, reach: u32) {
        let raise =
            |shape: u64| (Shape(shape).reach() < reach).then(|| Shape(shape).reaching(reach).0);
        _ = self.shape.fetch_update(AcqRel, Acquire, raise);
    }

    fn grow_if_crowded(&self, len: u32) {
        let shape = self.shape();
        let words = (BUCKET_WORDS as u64) << shape.k();
        let is_crowded = u64::from(len) * CROWDED.1 > words * CROWDED.0;
        if is_crowded && !shape.is_growing() && shape.k() < self.k_max {
            let grown = shape.grown(self.rehomed.len() as u64);
            // Lost to another claim that grows the table, or to a raised reach: then the next claim tries again.
            _ = self
                .shape
                .compare_exchange(shape.0, grown.0, AcqRel, Relaxed);
        }
    }

    fn find(&self, shape: Shape, home: usize, word: u64) -> Option<&AtomicU64> {
        let mut cells = self.window(shape, home).iter().flatten();
        cells.find(|cell| cell.load(Acquire) == word)
    }

    fn window(&self, shape: Shape, home: usize) -> &[Bucket] {
        &self.buckets()[home..home + shape.reach() as usize]
    }

    fn buckets(&self) -> &[Bucket] {
        self.words[self.first..].as_chunks().0
    }

    fn shape(&self) -> Shape {
        Shape(self.shape.load(Acquire))
    }

    fn rehomed_k(&self, shard: ShardId) -> u32 {
        self.rehomed[usize::from(shard.0)].load(Relaxed).into()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, shape) = (self.len(), self.shape());
        f.debug_struct("Presence")
            .field("len", &len)
            .field("shape", &shape)
            .finish_non_exhaustive()
    }
}

/// What the table knows a device by: 32 bits choose where it looks, 32 bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Never zero, so that no word is.
    fn tag(self) -> u64 {
        (self.0 >> 32).max(1)
    }

    fn word(self, place: Place) -> u64 {
        self.tag() << 32 | u64::from(place.pack())
    }
}

/// The table has no room for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("presence has no room for another line")]
pub struct Full;

/// Orders the lines of a device: the greatest holds it. 48 bits of wall-clock milliseconds, 16 of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineGeneration(pub u64);

impl LineGeneration {
    const COUNTER_BITS: u32 = 16;
}

/// How the table is used at present, in one word: k, the reach, and how many shards have yet to move their words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape(u64);

impl Shape {
    /// One shard that has yet to move.
    const SHARD: u64 = 1 << 16;

    const fn settled(k: u32, reach: u32) -> Self {
        Self((reach << 8 | k) as u64)
    }

    /// How many buckets are in use, as a power of two.
    const fn k(self) -> u32 {
        low_half(self.0) & 0xFF
    }

    /// How many buckets from its home on a word may be in. Raised when a window is full, never lowered.
    const fn reach(self) -> u32 {
        low_half(self.0) >> 8 & 0xFF
    }

    const fn reaching(self, reach: u32) -> Self {
        Self(self.0 & !0xFF00 | (reach as u64) << 8)
    }

    const fn grown(self, shards: u64) -> Self {
        Self(self.0 + 1 + shards * Self::SHARD)
    }

    /// Whether words may still be in the windows of k - 1.
    const fn is_growing(self) -> bool {
        self.0 >= Self::SHARD
    }

    const fn home(self, device: Fingerprint) -> usize {
        (low_half(device.0) & ((1 << self.k()) - 1)) as usize
    }

    const fn old_home(self, device: Fingerprint) -> usize {
        let k = self.k() - self.is_growing() as u32;
        (low_half(device.0) & ((1 << k) - 1)) as usize
    }

    /// Where to look, in this order: words move from the old window to the new one.
    fn homes(self, device: Fingerprint) -> impl Iterator<Item = usize> {
        let homes = [self.old_home(device), self.home(device)];
        homes.into_iter().skip(usize::from(homes[0] == homes[1]))
    }
}

/// A cache line of words. Zero is a free cell.
type Bucket = [AtomicU64; BUCKET_WORDS];

/// What a bucket knows of a device. Acquire: who finds a word sees what its owner did before, and who finds none what
/// the one who cleared it did.
fn matches(bucket: &Bucket, device: Fingerprint) -> Option<Candidates> {
    let words = bucket.each_ref().map(|cell| cell.load(Acquire));
    let is_match = |word: u64| word >> 32 == device.tag();
    if !words.iter().fold(false, |any, &word| any | is_match(word)) {
        return None;
    }
    let mut found = Candidates::default();
    let matching = words.into_iter().filter(|&word| is_match(word));
    matching.for_each(|word| found.push(Place::unpack(low_half(word))));
    Some(found)
}

/// Puts a word into a free cell, if there is one. Release, for the matches.
fn put(bucket: &Bucket, word: u64) -> bool {
    bucket.iter().any(|cell| {
        cell.load(Relaxed) == 0 && cell.compare_exchange(0, word, AcqRel, Relaxed).is_ok()
    })
}

/// The place of a word, the number of lines in the census, the hash that chooses a home.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

/// Bytes.
const CACHE_LINE: usize = 64;

/// A change, in the census.
const CHANGE: u64 = 1 << 32;

/// The table grows when more than 5 of 8 words are taken. Just below, one word in 300,000 lies beyond 6 buckets.
const CROWDED: (u64, u64) = (5, 8);

/// The buckets a table starts with, as a power of two: 64 KB. A shard that sleeps rehomes within a tick of 100 ms, so
/// the next doubling must be further away than the lines a storm brings in that time (25,000 a second).
const K_FIRST: u32 = 10;

/// The furthest a word may be from its home, in buckets.
const REACH_MAX: u32 = 64;

/// How often a lookup that finds nothing looks again while others claim and release.
const RESCANS_MAX: u32 = 64;

/// The primitives and sizes, which loom replaces by its own.
#[cfg(not(tautline_loom))]
mod sync {
    pub(super) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
    pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, fence};

    /// Words in a bucket: a cache line.
    pub(super) const BUCKET_WORDS: usize = 8;
    /// The reach at the start.
    pub(super) const REACH_FIRST: u32 = 4;

    /// Fresh zeroes from the allocator, so that memory is not used before it is touched.
    pub(super) fn zeroed(words: usize) -> Box<[AtomicU64]> {
        bytemuck::allocation::zeroed_slice_box(words)
    }
}

#[cfg(tautline_loom)]
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, fence};
    pub(super) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

    pub(super) const BUCKET_WORDS: usize = 2;
    pub(super) const REACH_FIRST: u32 = 1;

    pub(super) fn zeroed(words: usize) -> Box<[AtomicU64]> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }
}

#[cfg(test)]
#[cfg(not(tautline_loom))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};
    use std::thread;

    use hashbrown::HashMap;
    use rand::Rng as _;

    use super::*;
    use crate::base::seed;

    fn place(shard: u16, slot: u32) -> Place {
        Place {
            shard: ShardId(shard),
            slot,
        }
    }

    #[test]
    fn a_claim_is_found_until_it_is_released() {
        let presence = Presence::new(100, 2);
        let tv = presence.fingerprint(b"tv-1");
        assert!(presence.lookup(tv).is_empty());
        assert!(presence.claim(tv, place(1, 7)).unwrap().is_empty());
        assert!(presence.lookup(tv).iter().eq([place(1, 7)]));
        assert!(!presence.release(tv, place(0, 7)), "another line");
        assert!(presence.release(tv, place(1, 7)));
        assert!(!presence.release(tv, place(1, 7)));
        assert!(presence.lookup(tv).is_empty() && presence.is_empty());
    }

    #[test]
    fn a_claim_yields_the_lines_it_replaces() {
        let presence = Presence::new(100, 2);
        let tv = presence.fingerprint(b"tv-1");
        presence.claim(tv, place(0, 1)).unwrap();
        assert!(
            presence
                .claim(tv, place(1, 2))
                .unwrap()
                .iter()
                .eq([place(0, 1)])
        );
        presence.release(tv, place(0, 1));
        assert!(
            presence
                .claim(tv, place(0, 1))
                .unwrap()
                .iter()
                .eq([place(1, 2)])
        );
        assert_eq!(presence.lookup_all(tv).iter().count(), 2);
    }

    #[test]
    fn a_flood_of_lines_of_one_device_ends_in_a_refusal() {
        let presence = Presence::with_sizes(2, 2, 1);
        let device = Fingerprint(0);
        let room = REACH_MAX * 8;
        assert!((0..room).all(|slot| presence.claim(device, place(0, slot)).is_ok()));
        assert_eq!(presence.claim(device, place(0, room)).err(), Some(Full));
        assert!((0..room).all(|slot| presence.release(device, place(0, slot))));
        assert!(presence.lookup(device).is_empty());
    }

    #[test]
    fn generations_grow_even_when_the_clock_stands_still_or_steps_back() {
        let presence = Presence::new(1, 1);
        let minted = [5, 5, 4, 6].map(|wall_ms| presence.mint(wall_ms));
        assert!(minted.is_sorted_by(|a, b| a < b));
        assert_eq!(minted[3], LineGeneration(6 << 16));
    }

    #[test]
    fn places_survive_packing() {
        for place in [place(0, 0), place(1023, (1 << 22) - 1), place(513, 99)] {
            assert_eq!(Place::unpack(place.pack()), place);
        }
    }

    #[test]
    fn random_operations_agree_with_a_set_while_the_table_grows() {
        const SHARDS: u16 = 3;
        let mut rng = seed::rng();
        let presence = Presence::with_sizes(1, 8, SHARDS);
        // Few distinct homes and tags, so that windows overflow and false matches happen.
        let mut twin: HashMap<Fingerprint, Place> = HashMap::new();
        for slot in 0..20_000 {
            let device = Fingerprint(rng.random_range(1..4_u64) << 32 | rng.random_range(0..400));
            let line = place(rng.random_range(0..SHARDS), slot);
            match (rng.random_range(0..10), twin.get(&device).copied()) {
                (0..5, before) => {
                    let others = presence.claim(device, line).unwrap();
                    assert!(before.is_none_or(|before| is_among(before, others)));
                    assert!(before.is_none_or(|before| presence.release(device, before)));
                    twin.insert(device, line);
                }
                (5..8, Some(before)) => {
                    assert!(presence.release(device, before));
                    twin.remove(&device);
                }
                (8, _) => {
                    let lines = twin.iter().map(|(device, line)| (*device, *line));
                    rehome(&presence, line.shard, lines);
                }
                (_, before) => {
                    let found = presence.lookup_all(device);
                    assert!(before.is_none_or(|before| is_among(before, found)));
                    assert_eq!(presence.lookup(device).is_empty(), found.is_empty());
                }
            }
            assert_eq!(presence.len() as usize, twin.len());
        }
        assert!(presence.shape().k() > 5, "grew to {:?}", presence.shape());
        let mut lines = twin.into_iter();
        assert!(lines.all(|(device, line)| presence.release(device, line)));
        let mut cells = presence.words.iter();
        assert!(cells.all(|cell| cell.load(Relaxed) == 0));
    }

    /// False matches may crowd a place out of a full list.
    fn is_among(place: Place, candidates: Candidates) -> bool {
        candidates.iter().count() == Candidates::MAX || candidates.position(place).is_some()
    }

    fn rehome(
        presence: &Presence,
        shard: ShardId,
        lines: impl Iterator<Item = (Fingerprint, Place)>,
    ) {
        if presence.is_rehoming(shard) {
            let own = lines.filter(|(_, place)| place.shard == shard);
            own.for_each(|(device, place)| presence.rehome(device, place).unwrap());
            presence.finish_rehome(shard);
            assert!(!presence.is_rehoming(shard));
        }
    }

    #[test]
    fn a_device_that_is_always_somewhere_is_never_missed() {
        const SHARDS: u16 = 2;
        const ROUNDS: u32 = 3_000;
        let presence = Presence::with_sizes(2, 12, SHARDS);
        let device = presence.fingerprint(b"wanderer");
        let is_done = AtomicBool::new(false);
        // The shards take turns, so that one has the device while the other claims it anew.
        let turn = AtomicU32::new(1);
        presence.claim(device, place(0, 0)).unwrap();
        thread::scope(|scope| {
            for shard in 0..SHARDS {
                let (presence, turn, is_done) = (&presence, &turn, &is_done);
                scope.spawn(move || {
                    wander(presence, device, shard, turn, ROUNDS);
                    is_done.store(true, Relaxed);
                });
            }
            while !is_done.load(Relaxed) {
                assert!(!presence.lookup(device).is_empty());
            }
        });
        assert!(presence.shape().k() > 6, "grew to {:?}", presence.shape());
    }

    /// Lets go of the device and claims it anew whenever it is this shard's turn: the other shard has it meanwhile.
    /// Claims others in between, so that the table grows.
    fn wander(presence: &Presence, device: Fingerprint, shard: u16, turn: &AtomicU32, rounds: u32) {
        let own = place(shard, 0);
        let mut lines = vec![(device, own)];
        for round in (1..rounds).filter(|round| round % 2 == u32::from(shard)) {
            while turn.load(Acquire) < round {
                thread::yield_now();
            }
            presence.release(device, own);
            presence.claim(device, own).unwrap();
            let filler = (
                presence.fingerprint(&round.to_le_bytes()),
                place(shard, round),
            );
            presence.claim(filler.0, filler.1).unwrap();
            lines.push(filler);
            rehome(presence, ShardId(shard), lines.iter().copied());
            turn.store(round + 1, Release);
        }
    }
}

#[cfg(test)]
#[cfg(tautline_loom)]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const DEVICE: Fingerprint = Fingerprint(7 << 32 | 1);
    const HERE: Place = Place {
        shard: ShardId(0),
        slot: 1,
    };
    const THERE: Place = Place {
        shard: ShardId(1),
        slot: 2,
    };

    /// Three preemptions find what there is to find, and end.
    fn model(test: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(test);
    }

    #[test]
    fn loom_of_two_racing_claims_one_sees_the_other() {
        model(|| {
            let presence = Arc::new(Presence::with_sizes(0, 0, 2));
            let racer = Arc::clone(&presence);
            let there = thread::spawn(move || racer.claim(DEVICE, THERE).unwrap().is_empty());
            let is_first = presence.claim(DEVICE, HERE).unwrap().is_empty();
            assert!(!(there.join().unwrap() && is_first));
        });
    }

    #[test]
    fn loom_a_claim_with_the_old_shape_and_one_with_the_new_see_each_other() {
        model(|| {
            let presence = Arc::new(Presence::with_sizes(0, 1, 2));
            let racer = Arc::clone(&presence);
            let there = thread::spawn(move || racer.claim(DEVICE, THERE).unwrap().is_empty());
            presence.grow_if_crowded(u32::MAX);
            let is_first = presence.claim(DEVICE, HERE).unwrap().is_empty();
            assert!(!(there.join().unwrap() && is_first));
        });
    }

    #[test]
    fn loom_a_device_that_changes_lines_is_never_missed() {
        model(|| {
            let presence = Arc::new(Presence::with_sizes(0, 0, 2));
            // An earlier line in the first cell makes way, so that the claim may come behind or before the look.
            presence.claim(DEVICE, HERE).unwrap();
            let mover = Arc::clone(&presence);
            let moves = thread::spawn(move || {
                mover.claim(DEVICE, THERE).unwrap();
                mover.release(DEVICE, HERE);
                mover.claim(DEVICE, HERE).unwrap();
                mover.release(DEVICE, THERE);
            });
            assert!(!presence.lookup(DEVICE).is_empty());
            moves.join().unwrap();
        });
    }

    #[test]
    fn loom_a_device_that_is_rehomed_is_never_missed() {
        model(|| {
            let presence = Arc::new(Presence::with_sizes(0, 1, 1));
            presence.claim(DEVICE, HERE).unwrap();
            let mover = Arc::clone(&presence);
            let moves = thread::spawn(move || {
                mover.grow_if_crowded(u32::MAX);
                mover.rehome(DEVICE, HERE).unwrap();
                mover.finish_rehome(HERE.shard);
            });
            assert!(!presence.lookup(DEVICE).is_empty());
            moves.join().unwrap();
            assert!(presence.lookup(DEVICE).iter().eq([HERE]));
        });
    }
}
