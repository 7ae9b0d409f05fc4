//! The frame codec: decode one frame per read and 64 per read, encode one frame.
//!
//! Beside it stand tungstenite's `WebSocket`, which owns its buffers, and a loop that reads only the shortest form of
//! header by hand: the floor.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tautline::ws::decoder::Decoder;
use tautline::ws::encoder;
use tautline::ws::frame::{Limits, Opcode};
use tautline::ws::mask;
use tungstenite::WebSocket;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig};

const LIMITS: Limits = Limits {
    message_bytes_max: 65_536,
    fragments_max: 64,
};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    decode(&mut criterion);
    decode_in_pieces(&mut criterion);
    encode(&mut criterion);
    criterion.final_summary();
}

/// Whole frames of 32 bytes, as many per read as the parameter says. All cases copy the bytes in first.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for frames in [1, 64] {
        let bytes = frame(&[b'x'; 32]).repeat(frames);
        let mut buffer = bytes.clone();
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(BenchmarkId::new("tautline", frames), |b| {
            let mut decoder = Decoder::default();
            b.iter(|| {
                buffer.copy_from_slice(&bytes);
                drain(&mut decoder, &mut buffer)
            });
        });
        group.bench_function(BenchmarkId::new("tungstenite", frames), |b| {
            let mut socket = tungstenite_socket(bytes.clone());
            b.iter(|| {
                socket.get_mut().position = 0;
                let mut payload = 0;
                while let Ok(message) = socket.read() {
                    payload += message.len();
                }
                payload
            });
        });
        group.bench_function(BenchmarkId::new("floor", frames), |b| {
            b.iter(|| {
                buffer.copy_from_slice(&bytes);
                shortest_form_only(&mut buffer)
            });
        });
    }
    group.finish();
}

/// A text message that arrives in reads of 1,000 bytes: what the assembly costs.
fn decode_in_pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_in_pieces");
    let bytes = frame(&[b'x'; 16_000]);
    let mut buffer = bytes.clone();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(BenchmarkId::new("tautline", bytes.len()), |b| {
        let mut decoder = Decoder::default();
        b.iter(|| {
            buffer.copy_from_slice(&bytes);
            let pieces = buffer.chunks_mut(1_000);
            pieces
                .map(|piece| drain(&mut decoder, piece))
                .sum::<usize>()
        });
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let payload = [b'x'; 256];
    let mut out = Vec::with_capacity(512);
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("tautline", payload.len()), |b| {
        b.iter(|| {
            out.clear();
            encoder::encode(Opcode::Text, black_box(&payload), &mut out);
            out.len()
        });
    });
    group.bench_function(BenchmarkId::new("tungstenite", payload.len()), |b| {
        b.iter(|| {
            out.clear();
            let payload = black_box(&payload).to_vec();
            let frame = Frame::message(payload, OpCode::Data(Data::Text), true);
            frame.format(&mut out).map(|()| out.len())
        });
    });
    group.finish();
}

/// Decodes all of `input`; how many events it held.
fn drain(decoder: &mut Decoder, input: &mut [u8]) -> usize {
    let (mut at, mut events) = (0, 0);
    while let Ok(decoded) = decoder.decode(&mut input[at..], &LIMITS, 0) {
        at += decoded.consumed;
        if black_box(decoded.event).is_none() {
            break;
        }
        events += 1;
    }
    events
}

fn shortest_form_only(input: &mut [u8]) -> usize {
    let (mut at, mut events) = (0, 0);
    while let Some([0x81, length, a, b, c, d]) = input[at..].first_chunk() {
        let key = [*a, *b, *c, *d];
        let end = at + 6 + usize::from(length & 0x7f);
        let payload = &mut input[at + 6..end];
        mask::apply(payload, key, 0);
        black_box(simdutf8::basic::from_utf8(payload).is_ok());
        events += 1;
        at = end;
    }
    events
}

/// A masked text frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder::encode_header(Opcode::Text, payload.len(), &mut out);
    out[1] |= 0x80;
    let key = [0x5a, 0x01, 0xff, 0x80];
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[start..], key, 0);
    out
}

fn tungstenite_socket(bytes: Vec<u8>) -> WebSocket<Replay> {
    let config = WebSocketConfig::default().read_buffer_size(4_096);
    let position = bytes.len();
    let replay = Replay { bytes, position };
    WebSocket::from_raw_socket(replay, Role::Server, Some(config))
}

/// A socket that gives its bytes again whenever its position is set back.
struct Replay {
    bytes: Vec<u8>,
    position: usize,
}

impl Read for Replay {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = (&self.bytes[self.position..]).read(out)?;
        self.position += read;
        match read {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(read),
        }
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
