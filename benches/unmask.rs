//! Unmasking in place: eight bytes at a time against one at a time.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tautline::ws::mask;

const KEY: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    unmask(&mut criterion);
    criterion.final_summary();
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for bytes in [64, 256, 1_024, 16_384] {
        let mut payload = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("tautline", bytes), |b| {
            b.iter(|| mask::apply(black_box(&mut payload), KEY, 0));
        });
        group.bench_function(BenchmarkId::new("turned", bytes), |b| {
            b.iter(|| mask::apply(black_box(&mut payload), KEY, 3));
        });
        group.bench_function(BenchmarkId::new("bytewise", bytes), |b| {
            b.iter(|| bytewise(black_box(&mut payload), KEY));
        });
    }
    group.finish();
}

fn bytewise(payload: &mut [u8], key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}
