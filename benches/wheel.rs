//! What a deadline costs: the wheel and the arena's sweep, against a sorted map and a field in each record.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tautline::base::arena::Arena;
use tautline::base::time::Tick;
use tautline::base::wheel::Wheel;

const TIMERS: u32 = 100_000;
const LINES: u32 = 1_000_000;

/// A record of 128 bytes with its deadline inside.
#[repr(align(128))]
struct Record {
    due: Tick,
}

fn benches(c: &mut Criterion) {
    rearm(c);
    sweep(c);
}

/// Cancels a timer and schedules it anew, among many.
fn rearm(c: &mut Criterion) {
    let mut wheel = Wheel::new();
    let mut ids: Vec<_> = (0..TIMERS)
        .map(|key| wheel.schedule(deadline(key), key))
        .collect();
    let mut map: BTreeMap<_, _> = (0..TIMERS).map(|key| ((deadline(key), key), ())).collect();
    let mut group = c.benchmark_group("rearm");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements(1));
    let mut keys = (0..TIMERS)
        .map(|key| key.wrapping_mul(99_991) % TIMERS)
        .cycle();
    group.bench_function("wheel/100k", |b| {
        b.iter(|| {
            let key = keys.next().unwrap_or(0);
            wheel.cancel(ids[key as usize], key);
            ids[key as usize] = wheel.schedule(deadline(key), key);
        });
    });
    group.bench_function("btree_map/100k", |b| {
        b.iter(|| {
            let key = keys.next().unwrap_or(0);
            map.remove(&(deadline(key), key));
            map.insert((deadline(key), key), ());
        });
    });
    group.finish();
}

/// Looks through every line, none of which is due.
fn sweep(c: &mut Criterion) {
    let mut arena = Arena::new(LINES);
    while let Ok(id) = arena.insert(()) {
        arena.set_due(id.slot, Tick(1_000));
    }
    let records: Vec<_> = (0..LINES).map(|_| Record { due: Tick(1_000) }).collect();
    let mut found = Vec::new();
    let mut group = c.benchmark_group("sweep");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements(LINES.into()));
    group.bench_function("arena/1M", |b| {
        b.iter(|| arena.sweep(0..LINES, Tick(5), &mut found))
    });
    group.bench_function("record/1M", |b| {
        b.iter(|| {
            black_box(&records)
                .iter()
                .filter(|record| record.due <= Tick(5))
                .count()
        });
    });
    group.finish();
}

/// Spread over half a minute.
fn deadline(key: u32) -> u64 {
    u64::from(key) * 7_919 % 30_000
}

criterion_group!(groups, benches);
criterion_main!(groups);
