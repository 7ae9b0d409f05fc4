//! Sessions against rustls' own client, without sockets.

mod handshake;
mod open;

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

use super::policy::{TicketKeys, TlsPolicies, TlsPolicy};
use super::session::{Received, Secured, Session};
use crate::config::Config;
use crate::config::section::{CertificatePair, NameKind, Tls};
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
            assert_eq!(self.near.sealed(), count);
            let records = self.near.outgoing().to_vec();
            assert_eq!(
                self.near.take_sent(records.len() - 1),
                None,
                "not the last byte"
            );
            assert_eq!(self.near.sealed(), count, "it is still on its way");
            assert_eq!(self.near.take_sent(1), Some(count));
            assert_eq!(self.near.sealed(), 0);
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
