//! The arena against the slab crate: a random look at one of 200,000 values, and a line that comes and goes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slab::Slab;
use tautline::base::arena::Arena;

const LINES: u32 = 200_000;

/// As heavy as an idle connection.
type Value = (Box<u32>, [u64; 4]);

fn benches(c: &mut Criterion) {
    let mut arena = Arena::new(LINES + 1);
    let ids: Vec<_> = (0..LINES)
        .filter_map(|i| arena.insert(value(i)).ok())
        .collect();
    let mut slab = Slab::new();
    let keys: Vec<_> = (0..LINES).map(|i| slab.insert(value(i))).collect();
    let mut group = c.benchmark_group("arena");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements(1));
    let mut order = (0..LINES as usize)
        .map(|i| i.wrapping_mul(99_991) % LINES as usize)
        .cycle();
    group.bench_function("get/arena", |b| {
        b.iter(|| order.next().and_then(|i| arena.get(ids[i]).map(|v| v.1[0])))
    });
    group.bench_function("get/slab", |b| {
        b.iter(|| order.next().and_then(|i| slab.get(keys[i]).map(|v| v.1[0])))
    });
    group.bench_function("churn/arena", |b| {
        b.iter_with_setup(
            || value(0),
            |value| {
                arena
                    .insert(value)
                    .ok()
                    .and_then(|id| black_box(arena.remove(id)))
            },
        );
    });
    group.bench_function("churn/slab", |b| {
        b.iter_with_setup(
            || value(0),
            |value| {
                let key = slab.insert(value);
                black_box(slab.remove(key))
            },
        );
    });
    group.finish();
}

fn value(i: u32) -> Value {
    (Box::new(i), [u64::from(i); 4])
}

criterion_group!(groups, benches);
criterion_main!(groups);
