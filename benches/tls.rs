//! What TLS costs a reactor: a handshake on the server's side alone, and a record sealed and opened; beside them rustls'
//! buffered connection, whose buffers an idle line cannot afford.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tautline::config::Config;
use tautline::net::tls::policy::{TicketKeys, TlsPolicies, TlsPolicy};
use tautline::net::tls::session::Session;

/// A server's policy and a far end that knows it.
struct Pair {
    policy: Arc<TlsPolicy>,
    far: Arc<ClientConfig>,
}

impl Pair {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm, resumes: bool) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            Some(path)
        };
        let mut config = Config::default();
        config.devices_tls.certificate_file = write("pem", certificate.pem());
        config.devices_tls.private_key_file = write("key", key.serialize_pem());
        let tickets = TicketKeys::new().expect("randomness");
        let policies = TlsPolicies::load(&config, &tickets).expect("a good pair");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut far = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            far.resumption = Resumption::disabled();
        }
        Self {
            policy: policies.devices.expect("TLS is on"),
            far: Arc::new(far),
        }
    }

    fn far_end(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::clone(&self.far), name).expect("a connection")
    }

    /// An open connection, and how long the server's side of the handshake took.
    fn shake_hands(&self, buf: &mut [u8]) -> (Session, ClientConnection, Duration) {
        let mut far = self.far_end();
        let mut taken = Duration::ZERO;
        let mut near = timed(&mut taken, || {
            Session::new(Arc::clone(&self.policy)).expect("a session")
        });
        loop {
            let sent = sent(&mut far);
            if sent.is_empty() {
                return (near, far, taken);
            }
            timed(&mut taken, || receive(&mut near, &sent, buf));
            let records = near.outgoing().to_vec();
            near.take_sent(records.len());
            deliver(&mut far, &records);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "only one side is measured")]
fn timed<T>(taken: &mut Duration, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    *taken += start.elapsed();
    result
}

fn sent(far: &mut ClientConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while far.wants_write() {
        far.write_tls(&mut sent).expect("a Vec takes all");
    }
    sent
}

fn deliver(far: &mut ClientConnection, mut records: &[u8]) {
    while !records.is_empty() {
        far.read_tls(&mut records).expect("a slice gives all");
        far.process_new_packets().expect("good records");
    }
}

fn receive(near: &mut Session, records: &[u8], buf: &mut [u8]) -> usize {
    let start = near.prepare(buf);
    let end = start + records.len();
    buf[start..end].copy_from_slice(records);
    near.receive(buf, end).plaintext
}

fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls_handshake");
    group.throughput(Throughput::Elements(1));
    let mut buf = vec![0; 64 * 1024];
    for (name, algorithm, resumes) in [
        ("full/ecdsa_p256", &PKCS_ECDSA_P256_SHA256, false),
        ("full/rsa_2048", &PKCS_RSA_SHA256, false),
        ("resumed/ecdsa_p256", &PKCS_ECDSA_P256_SHA256, true),
    ] {
        let pair = Pair::new(algorithm, resumes);
        // The first one leaves a ticket.
        pair.shake_hands(&mut buf);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| pair.shake_hands(&mut buf).2).sum());
        });
    }
    group.finish();
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls_record");
    let pair = Pair::new(&PKCS_ECDSA_P256_SHA256, false);
    let mut buf = vec![0; 64 * 1024];
    for size in [64, 1_024, 16_384] {
        let message = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        let (mut near, mut far, _) = pair.shake_hands(&mut buf);
        group.bench_function(format!("seal/session/{size}"), |bencher| {
            bencher.iter(|| {
                near.seal(black_box(&message));
                let length = near.outgoing().len();
                near.take_sent(length)
            });
        });
        group.bench_function(format!("open/session/{size}"), |bencher| {
            bencher.iter_custom(|count| {
                let mut taken = Duration::ZERO;
                for _ in 0..count {
                    far.writer().write_all(&message).expect("room");
                    let records = sent(&mut far);
                    timed(&mut taken, || receive(&mut near, &records, &mut buf));
                }
                taken
            });
        });
        let mut buffered = Buffered::new(&pair);
        group.bench_function(format!("seal/buffered/{size}"), |bencher| {
            bencher.iter(|| {
                buffered
                    .near
                    .writer()
                    .write_all(black_box(&message))
                    .expect("room");
                buffered.out.clear();
                buffered
                    .near
                    .write_tls(&mut buffered.out)
                    .expect("a Vec takes all")
            });
        });
        group.bench_function(format!("open/buffered/{size}"), |bencher| {
            bencher.iter_custom(|count| {
                let mut taken = Duration::ZERO;
                for _ in 0..count {
                    buffered.far.writer().write_all(&message).expect("room");
                    let records = sent(&mut buffered.far);
                    timed(&mut taken, || buffered.receive(&records, &mut buf));
                }
                taken
            });
        });
    }
    group.finish();
}

/// The alternative: the connection that owns its buffers.
struct Buffered {
    near: ServerConnection,
    far: ClientConnection,
    out: Vec<u8>,
}

impl Buffered {
    fn new(pair: &Pair) -> Self {
        let near = ServerConnection::new(Arc::clone(pair.policy.server()));
        let mut near = near.expect("a connection");
        let mut far = pair.far_end();
        loop {
            let sent = sent(&mut far);
            if sent.is_empty() {
                break;
            }
            let mut records = &sent[..];
            while !records.is_empty() {
                near.read_tls(&mut records).expect("a slice gives all");
                near.process_new_packets().expect("good records");
            }
            let mut back = Vec::new();
            while near.wants_write() {
                near.write_tls(&mut back).expect("a Vec takes all");
            }
            deliver(&mut far, &back);
        }
        Self {
            near,
            far,
            out: Vec::new(),
        }
    }

    fn receive(&mut self, mut records: &[u8], buf: &mut [u8]) -> usize {
        let mut count = 0;
        while !records.is_empty() {
            self.near.read_tls(&mut records).expect("a slice gives all");
            let state = self.near.process_new_packets().expect("good records");
            // A long record comes in pieces: until the last one there is nothing to read.
            if state.plaintext_bytes_to_read() > 0 {
                count += self.near.reader().read(buf).expect("plaintext");
            }
        }
        count
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = handshake, record
}
criterion_main!(benches);
