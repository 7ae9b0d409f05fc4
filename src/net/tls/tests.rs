//! Sessions against rustls' own client, without sockets.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tempfile::TempDir;

use super::policy::{TicketKeys, TlsPolicies, TlsPolicy};
use super::session::{Received, Secured, Session};
use crate::config::Config;
use crate::config::section::{CertificateDemand, CertificatePair, NameKind, Tls, TlsVersion};
use crate::metrics::TlsFailure;

/// An authority, and the files of a server it has certified.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            dir: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(params, key),
            root,
        }
    }

    fn certify(&self, name: &str, key: &KeyPair) -> rcgen::Certificate {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// The files of a certificate for `name`.
    fn pair(&self, name: &str, key: &KeyPair) -> CertificatePair {
        let write = |suffix: &str, text: String| {
            let path = self.dir.path().join(format!("{name}.{suffix}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        CertificatePair {
            certificate_file: write("pem", self.certify(name, key).pem()),
            private_key_file: write("key", key.serialize_pem()),
        }
    }

    /// TLS with one ECDSA certificate.
    fn tls(&self) -> Tls {
        Tls {
            pairs: vec![self.pair("push.test", &KeyPair::generate().unwrap())],
            ..Tls::default()
        }
    }

    /// TLS that asks for certificates of this authority.
    fn mutual(&self, identity: Option<NameKind>) -> Tls {
        let path = self.dir.path().join("root.pem");
        std::fs::write(&path, pem(&self.root)).unwrap();
        Tls {
            client_ca_file: Some(path),
            client_identity: identity,
            ..self.tls()
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    /// A far end that knows this authority.
    fn far_config(&self) -> ClientConfig {
        far_builder(rustls::ALL_VERSIONS)
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// A far end with a certificate of its own.
    fn far_config_as(&self, name: &str) -> ClientConfig {
        let key = KeyPair::generate().unwrap();
        let chain = vec![self.certify(name, &key).der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        far_builder(rustls::ALL_VERSIONS)
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }
}

fn far_builder(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .unwrap()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn policy(tls: &Tls, tickets: &TicketKeys) -> Arc<TlsPolicy> {
    let config = Config {
        devices_tls: tls.clone(),
        ..Config::default()
    };
    TlsPolicies::load(&config, tickets)
        .unwrap()
        .devices
        .unwrap()
}

/// Both ends, and what passed between them.
struct Pair {
    near: Session,
    far: ClientConnection,
    /// How many bytes reach the near end at once.
    piece: usize,
    secured: Option<Secured>,
    heard: Vec<u8>,
    failure: Option<TlsFailure>,
    cost_us: u32,
}

impl Pair {
    fn new(policy: &Arc<TlsPolicy>, far: ClientConfig) -> Self {
        Self::with(policy, Arc::new(far), "push.test")
    }

    fn with(policy: &Arc<TlsPolicy>, far: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            near: Session::new(Arc::clone(policy)).unwrap(),
            far: ClientConnection::new(far, name).unwrap(),
            piece: usize::MAX,
            secured: None,
            heard: Vec::new(),
            failure: None,
            cost_us: 0,
        }
    }

    /// Passes bytes in both directions until none are left.
    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            while self.far.wants_write() {
                self.far.write_tls(&mut sent).unwrap();
            }
            sent.chunks(self.piece.min(READ_BYTES))
                .for_each(|piece| self.feed(piece));
            let back = self.near.outgoing().to_vec();
            if sent.is_empty() && back.is_empty() {
                return;
            }
            self.near.take_sent(back.len());
            self.deliver(&back);
        }
    }

    fn feed(&mut self, records: &[u8]) {
        let mut buf = vec![0; 64 * 1024];
        let start = self.near.prepare(&mut buf);
        let end = start + records.len();
        buf[start..end].copy_from_slice(records);
        let Received {
            plaintext,
            secured,
            cost_us,
        } = self.near.receive(&mut buf, end);
        self.heard.extend_from_slice(&buf[..plaintext]);
        self.secured = secured.or_else(|| self.secured.take());
        self.cost_us += cost_us;
        self.failure = self.near.take_failure().or(self.failure);
    }

    fn deliver(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            self.far.read_tls(&mut records).unwrap();
            // What the far end thinks of it is seen in what it sends.
            self.far.process_new_packets().map(drop).unwrap_or_default();
        }
    }

    /// Sends to the far end, as the reactor does, and returns what it read.
    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        let mut taken = 0;
        while taken < bytes.len() {
            let count = self.near.seal(&bytes[taken..]);
            assert_ne!(count, 0, "nothing can be sealed");
            let records = self.near.outgoing().to_vec();
            assert_eq!(
                self.near.take_sent(records.len() - 1),
                None,
                "not the last byte"
            );
            assert_eq!(self.near.take_sent(1), Some(count));
            taken += count;
            self.deliver(&records);
            // It errs when all that came was read.
            self.far.reader().read_to_end(&mut read).unwrap_or_default();
        }
        read
    }

    fn echo(&mut self, bytes: &[u8]) {
        self.heard.clear();
        for piece in bytes.chunks(32 * 1024) {
            self.far.writer().write_all(piece).unwrap();
            self.settle();
        }
        assert!(self.heard == bytes, "what the far end said");
        assert!(self.say(bytes) == bytes, "what the far end heard");
    }
}

const READ_BYTES: usize = 40 * 1024;

#[test]
fn both_versions_and_both_kinds_of_keys_carry_bytes_both_ways() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let long: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
    ] {
        let tls = Tls {
            pairs: vec![authority.pair("push.test", &key)],
            ..Tls::default()
        };
        let policy = policy(&tls, &keys);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for piece in [1, 700, usize::MAX] {
                let mut far = far_builder(&[version])
                    .with_root_certificates(authority.roots())
                    .with_no_client_auth();
                far.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                let mut pair = Pair::new(&policy, far);
                pair.piece = piece;
                pair.settle();
                assert_eq!(pair.failure, None);
                assert!(!pair.secured.clone().unwrap().is_resumed);
                assert_eq!(pair.far.alpn_protocol(), Some(&b"http/1.1"[..]));
                pair.echo(b"hello");
                if piece > 1 {
                    pair.echo(&long);
                }
                assert_eq!(format!("{:?}", pair.near), "Session { stage: Open, .. }");
                assert!(pair.near.outgoing().is_empty());
            }
        }
    }
}

#[test]
fn a_hello_in_many_small_records_is_read_and_an_endless_one_is_not() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut far = authority.far_config();
    far.max_fragment_size = Some(64);
    let mut pair = Pair::new(&policy, far);
    pair.piece = 50;
    pair.settle();
    pair.echo(b"hello");
    // A hello that announces 60,000 bytes and keeps coming.
    let mut pair = Pair::new(&policy, authority.far_config());
    let mut record = vec![0x16, 3, 1, 0x10, 0];
    record.extend([0; 4_096]);
    record[5..9].copy_from_slice(&[1, 0, 0xea, 0x60]);
    let mut held = 0;
    while pair.failure.is_none() {
        pair.feed(&record);
        record[5..9].fill(0);
        held += record.len();
        assert!(held < 40_000, "kept without end");
    }
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}

#[test]
fn sessions_are_resumed_after_a_reload_but_not_on_another_listener() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let far = far_builder(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let far = Arc::new(far);
        let resumed = |policy: &Arc<TlsPolicy>| {
            let mut pair = Pair::with(policy, Arc::clone(&far), "push.test");
            pair.settle();
            pair.echo(b"hello");
            let is_resumed = pair.secured.unwrap().is_resumed;
            let kind = pair.far.handshake_kind().unwrap();
            assert_eq!(is_resumed, kind == HandshakeKind::Resumed);
            (is_resumed, pair.cost_us)
        };
        let first = resumed(&policy(&authority.tls(), &keys));
        let second = resumed(&policy(&authority.tls(), &keys));
        assert_eq!((first.0, second.0), (false, true), "{version:?}");
        assert!(second.1 < first.1, "{first:?} {second:?}");
        let config = Config {
            api_tls: authority.tls(),
            ..Config::default()
        };
        let policies = TlsPolicies::load(&config, &keys).unwrap();
        assert!(
            !resumed(&policies.api.unwrap()).0,
            "another listener's keys"
        );
    }
}

#[test]
fn who_shows_a_certificate_is_named_by_it_and_never_resumes() {
    let authority = Authority::new();
    let policy = policy(
        &authority.mutual(Some(NameKind::Dns)),
        &TicketKeys::new().unwrap(),
    );
    let far = Arc::new(authority.far_config_as("tv-1"));
    for _ in 0..2 {
        let mut pair = Pair::with(&policy, Arc::clone(&far), "push.test");
        pair.settle();
        let expected = Secured {
            is_resumed: false,
            bearer: Some("tv-1".into()),
        };
        assert_eq!(pair.secured, Some(expected));
        assert_eq!(pair.far.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_certificate_that_is_required_must_come_from_our_authority() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let required = policy(&authority.mutual(None), &keys);
    let none = Pair::new(&required, authority.far_config());
    let mut stranger = Authority::new();
    stranger.root = authority.root.clone();
    let foreign = Pair::new(&required, stranger.far_config_as("tv-1"));
    for mut pair in [none, foreign] {
        pair.settle();
        assert_eq!(pair.failure, Some(TlsFailure::Certificate));
        assert_eq!(pair.secured, None);
    }
    let optional = Tls {
        client_certificates: CertificateDemand::Optional,
        ..authority.mutual(Some(NameKind::Dns))
    };
    let optional = policy(&optional, &keys);
    let mut none = Pair::new(&optional, authority.far_config());
    none.settle();
    assert_eq!(none.secured.unwrap().bearer, None);
    let mut foreign = Pair::new(&optional, stranger.far_config_as("tv-1"));
    foreign.settle();
    assert_eq!(foreign.failure, Some(TlsFailure::Certificate));
}

#[test]
fn the_certificate_that_fits_is_shown() {
    let authority = Authority::new();
    let (ecdsa, rsa) = (
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
    );
    let tls = Tls {
        pairs: vec![
            authority.pair("push.test", &ecdsa),
            authority.pair("other.test", &rsa),
        ],
        ..Tls::default()
    };
    let policy = policy(&tls, &TicketKeys::new().unwrap());
    for name in ["push.test", "other.test"] {
        let mut pair = Pair::with(&policy, Arc::new(authority.far_config()), name);
        pair.settle();
        // The far end compares the name itself.
        pair.echo(name.as_bytes());
    }
    let mut unknown = Pair::with(&policy, Arc::new(authority.far_config()), "no.test");
    unknown.settle();
    assert_eq!(unknown.failure, Some(TlsFailure::Alert), "it refuses ours");
}

#[test]
fn what_cannot_be_agreed_on_ends_with_its_cause_and_an_alert() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let new_only = Tls {
        version_min: TlsVersion::V1_3,
        ..authority.tls()
    };
    let old = far_builder(&[&rustls::version::TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut http2 = authority.far_config();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let strange = far_builder(rustls::ALL_VERSIONS)
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    for (tls, far, expected) in [
        (new_only, old, TlsFailure::Incompatible),
        (authority.tls(), http2, TlsFailure::Protocol),
        (authority.tls(), strange, TlsFailure::Alert),
    ] {
        let mut pair = Pair::new(&policy(&tls, &keys), far);
        pair.settle();
        assert_eq!(pair.failure, Some(expected));
        assert_eq!(pair.near.seal(b"x"), 0, "nothing is sealed after it");
        let told = pair.far.process_new_packets();
        assert!(told.is_err(), "the far end knows: {expected:?}");
    }
}

#[test]
fn a_record_that_was_tampered_with_ends_the_connection_after_what_came_before() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    let mut records = Vec::new();
    for text in [b"good", b"evil"] {
        pair.far.writer().write_all(text).unwrap();
        pair.far.write_tls(&mut records).unwrap();
    }
    let last = records.len() - 1;
    records[last] ^= 1;
    pair.feed(&records);
    assert_eq!(pair.heard, b"good");
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
    let alert = pair.near.outgoing().to_vec();
    pair.deliver(&alert);
    assert!(pair.far.process_new_packets().is_err());
}

#[test]
fn garbage_never_gets_beyond_its_first_record() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    for garbage in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16GET / HTTP/1.1\r\n\r\n",
        b"\x17\x03\x03\x00\x01x",
        &[0x16; 20_000],
    ] {
        let mut pair = Pair::new(&policy, authority.far_config());
        pair.feed(garbage);
        assert_eq!(pair.failure, Some(TlsFailure::Misbehaved), "{garbage:?}");
    }
}

#[test]
fn new_keys_are_taken_and_a_flood_of_them_is_not() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    for _ in 0..100 {
        pair.far.refresh_traffic_keys().unwrap();
        pair.settle();
        pair.echo(b"hello");
    }
    let mut records = Vec::new();
    for _ in 0..100 {
        pair.far.refresh_traffic_keys().unwrap();
        while pair.far.wants_write() {
            pair.far.write_tls(&mut records).unwrap();
        }
    }
    pair.feed(&records);
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}

#[test]
fn what_is_said_while_a_record_is_incomplete_arrives() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    let mut records = Vec::new();
    pair.far.refresh_traffic_keys().unwrap();
    pair.far.writer().write_all(b"in two halves").unwrap();
    while pair.far.wants_write() {
        pair.far.write_tls(&mut records).unwrap();
    }
    for cut in 0..records.len() {
        pair.feed(&records[cut..=cut]);
        assert_eq!(pair.say(b"meanwhile"), b"meanwhile");
    }
    assert_eq!(pair.heard, b"in two halves");
}

#[test]
fn a_goodbye_is_heard_and_said_once() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    pair.far.send_close_notify();
    pair.settle();
    assert!(pair.near.is_over());
    assert_eq!(
        pair.say(b"the answer"),
        b"the answer",
        "our side is still open"
    );
    pair.near.say_goodbye();
    let records = pair.near.outgoing().to_vec();
    pair.near.take_sent(records.len());
    pair.near.say_goodbye();
    assert!(pair.near.outgoing().is_empty());
    pair.deliver(&records);
    assert!(pair.far.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn renegotiation_is_refused() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let far = far_builder(&[&rustls::version::TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut pair = Pair::new(&policy, far);
    pair.settle();
    // A hello in plain, behind the handshake.
    pair.feed(b"\x16\x03\x03\x00\x04\x01\x00\x00\x00");
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}

#[test]
fn a_pair_that_does_not_match_is_named() {
    let authority = Authority::new();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut pair = authority.pair("push.test", &one);
    pair.private_key_file = authority.pair("other.test", &other).private_key_file;
    let mut nothing = authority.pair("third.test", &one);
    std::fs::write(&nothing.certificate_file, "nothing").unwrap();
    let mut gone = authority.pair("fourth.test", &one);
    gone.private_key_file = "/nowhere/key".into();
    std::fs::write(&mut nothing.private_key_file, "nothing").unwrap();
    let config = Config {
        devices_tls: Tls {
            pairs: vec![pair, nothing, gone],
            ..Tls::default()
        },
        ..Config::default()
    };
    let errors = TlsPolicies::load(&config, &TicketKeys::new().unwrap()).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|e| e.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "devices_tls.pairs[0].private_key_file",
            "devices_tls.pairs[1].certificate_file",
            "devices_tls.pairs[2].private_key_file",
        ]
    );
}
