//! Presence against dashmap, both with the standard library's keyed hasher: a million lines, read by one thread and two.

use std::hash::RandomState;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use dashmap::DashMap;
use tautline::base::id::ShardId;
use tautline::base::place::Place;
use tautline::route::presence::Presence;

/// What both tables do.
trait Table: Sync {
    fn claim(&self, device: &[u8; 16], place: Place);
    fn release(&self, device: &[u8; 16], place: Place);
    fn lookup(&self, device: &[u8; 16]) -> Option<Place>;
    /// Helps the table grow: lines from zero up to this are in it.
    fn settle(&self, _lines: u32) {}
}

impl Table for Presence {
    fn claim(&self, device: &[u8; 16], place: Place) {
        black_box(Self::claim(self, self.fingerprint(device), place).is_ok());
    }

    fn release(&self, device: &[u8; 16], place: Place) {
        Self::release(self, self.fingerprint(device), place);
    }

    fn lookup(&self, device: &[u8; 16]) -> Option<Place> {
        Self::lookup(self, self.fingerprint(device)).iter().next()
    }

    fn settle(&self, lines: u32) {
        if self.is_rehoming(ShardId(0)) {
            for (device, place) in (0..lines).map(line) {
                black_box(self.rehome(self.fingerprint(&device), place).is_ok());
            }
            self.finish_rehome(ShardId(0));
        }
    }
}

impl Table for DashMap<[u8; 16], Place, RandomState> {
    fn claim(&self, device: &[u8; 16], place: Place) {
        self.insert(*device, place);
    }

    fn release(&self, device: &[u8; 16], _: Place) {
        self.remove(device);
    }

    fn lookup(&self, device: &[u8; 16]) -> Option<Place> {
        self.get(device).map(|place| *place)
    }
}

/// Reads of one thread in one iteration.
const READS: u64 = 100_000;
const LINES: u32 = 1_000_000;

fn benches(c: &mut Criterion) {
    let presence = Presence::new(LINES, 1);
    let dashmap = DashMap::with_capacity_and_hasher(LINES as usize, RandomState::new());
    fill(&presence);
    fill(&dashmap);
    let mut group = c.benchmark_group("presence");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    for (case, span, writes_percent) in [
        ("random", LINES, 0),
        ("hot", 1_000, 0),
        ("write_5_percent", LINES, 5),
    ] {
        for threads in [1, 2] {
            let ours = format!("{case}/presence");
            measure(
                &mut group,
                &ours,
                &presence,
                (threads, span, writes_percent),
            );
            let theirs = format!("{case}/dashmap");
            measure(
                &mut group,
                &theirs,
                &dashmap,
                (threads, span, writes_percent),
            );
        }
    }
    group.finish();
}

/// Lets every thread walk its own pseudo-random sequence of devices.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: &str,
    table: &impl Table,
    (threads, span, writes_percent): (u64, u32, u64),
) {
    group.throughput(Throughput::Elements(threads * READS));
    group.bench_function(BenchmarkId::new(case, threads), |b| {
        b.iter(|| {
            thread::scope(|scope| {
                for seed in 1..=threads {
                    scope.spawn(move || walk(table, seed, span, writes_percent));
                }
            });
        });
    });
}

fn walk(table: &impl Table, seed: u64, span: u32, writes_percent: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..READS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        // Each thread has lines of its own, as shards do.
        let nth = low_half(((random >> 32) * u64::from(span / 2)) >> 32);
        let slot = nth * 2 + low_half(seed % 2);
        let (device, place) = line(slot);
        if (random >> 16) % 100 < writes_percent {
            table.release(&device, place);
            table.claim(&device, place);
        } else {
            black_box(table.lookup(&device));
        }
    }
}

fn fill(table: &impl Table) {
    for slot in 0..LINES {
        let (device, place) = line(slot);
        table.claim(&device, place);
        table.settle(slot + 1);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn low_half(word: u64) -> u32 {
    word as u32
}

fn line(slot: u32) -> ([u8; 16], Place) {
    let shard = ShardId(0);
    (u128::from(slot).to_le_bytes(), Place { shard, slot })
}

criterion_group!(groups, benches);
criterion_main!(groups);
