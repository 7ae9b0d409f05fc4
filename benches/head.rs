//! One request head to a 101: in one piece and byte by byte, against tungstenite's parser and answer.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tautline::head::buffer::HeadBuffer;
use tautline::head::request::{Limits, Request};
use tautline::ws::handshake::Upgrade;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, create_response, write_response};

const LIMITS: Limits = Limits {
    head_bytes_max: 8_192,
    target_bytes_max: 2_048,
};

const SUPPORTED: [&str; 2] = ["tautline.v1.json", "tautline.v1.raw"];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    upgrade(&mut criterion);
    drip(&mut criterion);
    criterion.final_summary();
}

fn upgrade(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upgrade");
    let head = browser_head("");
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("tautline", head.len()), |b| {
        b.iter(|| answer(black_box(&head)));
    });
    group.bench_function(BenchmarkId::new("tungstenite", head.len()), |b| {
        b.iter(|| answer_by_tungstenite(black_box(&head)));
    });
    group.finish();
}

/// The slowest way to send the largest head: one byte per read. The cost per byte must not grow with the size.
fn drip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drip");
    for bytes in [1_024, 8_192] {
        let pad = bytes - browser_head("").len();
        let head = browser_head(&"x".repeat(pad));
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(BenchmarkId::new("tautline", bytes), |b| {
            b.iter(|| {
                let mut buffer = HeadBuffer::default();
                let mut pieces = black_box(&head).chunks(1);
                pieces.any(|piece| matches!(buffer.receive(piece, &LIMITS), Ok(Some(_))))
            });
        });
        group.bench_function(BenchmarkId::new("tungstenite", bytes), |b| {
            b.iter(|| {
                let mut ends = 1..=black_box(&head).len();
                ends.any(|end| matches!(server::Request::try_parse(&head[..end]), Ok(Some(_))))
            });
        });
    }
    group.finish();
}

fn answer(input: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = HeadBuffer::default();
    let head = buffer.receive(input, &LIMITS).ok()??;
    let request = Request::parse(head.bytes, &LIMITS).ok()?;
    let (method, minor_version) = (request.method(), request.minor_version());
    let upgrade = Upgrade::accept(method, minor_version, request.headers(), &SUPPORTED).ok()?;
    let mut out = Vec::with_capacity(256);
    upgrade.encode_response(&mut out);
    Some(out)
}

fn answer_by_tungstenite(input: &[u8]) -> Option<Vec<u8>> {
    let (_, request) = server::Request::try_parse(input).ok()??;
    let response = create_response(&request).ok()?;
    let mut out = Vec::with_capacity(256);
    write_response(&mut out, &response).ok()?;
    Some(out)
}

fn browser_head(pad: &str) -> Vec<u8> {
    format!(
        "GET /ws?device_id=tv-1 HTTP/1.1\r\nHost: push.example.com\r\nConnection: Upgrade\r\n\
         Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0{pad}\r\n\
         Upgrade: websocket\r\nOrigin: https://tv.example.com\r\nSec-WebSocket-Version: 13\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: tautline.v1.json\r\n\r\n"
    )
    .into_bytes()
}
