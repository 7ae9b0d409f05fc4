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
    /// Its bits, which are as random as a hash's.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

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

#[cfg(all(test, not(tautline_loom)))]
mod tests;

#[cfg(all(test, tautline_loom))]
mod loom_tests;
