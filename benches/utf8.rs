//! UTF-8 that arrives whole and in pieces, against the standard library, which needs it whole.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tautline::ws::utf8::Utf8Stream;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    validate(&mut criterion, "ascii", "push me ");
    validate(&mut criterion, "mixed", "推送 push é ");
    criterion.final_summary();
}

fn validate(criterion: &mut Criterion, script: &str, sample: &str) {
    let mut group = criterion.benchmark_group(format!("utf8_{script}"));
    for bytes in [64, 1_024, 16_384] {
        let text = sample.repeat(bytes / sample.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("whole", bytes), |b| {
            b.iter(|| valid_in_pieces(black_box(&text), bytes));
        });
        group.bench_function(BenchmarkId::new("in_pieces_of_100", bytes), |b| {
            b.iter(|| valid_in_pieces(black_box(&text), 100));
        });
        group.bench_function(BenchmarkId::new("std", bytes), |b| {
            b.iter(|| std::str::from_utf8(black_box(text.as_bytes())).is_ok());
        });
    }
    group.finish();
}

fn valid_in_pieces(text: &str, size: usize) -> bool {
    let mut stream = Utf8Stream::default();
    let mut pieces = text.as_bytes().chunks(size);
    pieces.all(|piece| stream.feed(piece).is_ok()) && stream.is_complete()
}
