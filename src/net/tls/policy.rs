//! What a listener goes by when somebody speaks TLS to it. Replaced whole on reload; ticket keys outlive that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientCertVerifierBuilder, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier,
};

use crate::config::Config;
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::section::{CertificateDemand, NameKind, Tls, TlsVersion};
use crate::net::tls::certificate::{self, Certificates};

/// The TLS of one listener.
#[derive(Debug)]
pub struct TlsPolicy {
    server: Arc<ServerConfig>,
    identity: Option<NameKind>,
    not_after_s: i64,
    full_cost_us: u32,
}

/// The TLS of every listener that has any.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicies {
    /// Devices.
    pub devices: Option<Arc<TlsPolicy>>,
    /// Back ends.
    pub api: Option<Arc<TlsPolicy>>,
    /// Back ends' streams.
    pub peer: Option<Arc<TlsPolicy>>,
    /// Operators.
    pub ops: Option<Arc<TlsPolicy>>,
}

/// The keys that tickets are sealed with, a set for each listener: a session of one must not open another. They change
/// every six hours, and the previous ones are good for as long again.
#[derive(Debug)]
pub struct TicketKeys {
    devices: Arc<dyn ProducesTickets>,
    api: Arc<dyn ProducesTickets>,
    peer: Arc<dyn ProducesTickets>,
    ops: Arc<dyn ProducesTickets>,
}

/// The policies in force, and what became of attempts to replace them.
#[derive(Debug)]
pub struct TlsCell {
    /// The policies in force: who connects from now on gets these.
    pub policies: ArcSwap<TlsPolicies>,
    /// Ticket keys, the same for as long as the process lives.
    pub tickets: TicketKeys,
    /// Times that changed certificates were taken into use.
    pub reloads: AtomicU64,
    /// Times that they could not be used, and the old ones stayed.
    pub failed_reloads: AtomicU64,
}

impl TlsCell {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// As [`TlsPolicies::load`].
    pub fn load(config: &Config) -> Result<Self, ConfigErrors> {
        let tickets = TicketKeys::new()?;
        Ok(Self {
            policies: ArcSwap::from_pointee(TlsPolicies::load(config, &tickets)?),
            tickets,
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        })
    }
}

impl TicketKeys {
    /// Makes new keys.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> Result<Self, ConfigErrors> {
        let keys = || {
            aws_lc_rs::Ticketer::new()
                .map_err(|cause| ConfigErrors(vec![ConfigError::new("tls", cause.to_string())]))
        };
        Ok(Self {
            devices: keys()?,
            api: keys()?,
            peer: keys()?,
            ops: keys()?,
        })
    }
}

impl TlsPolicies {
    /// Reads the certificates, keys and authorities that the configuration names.
    ///
    /// # Errors
    /// One for each file that cannot be read or used, and for each key that is not its certificate's.
    pub fn load(config: &Config, tickets: &TicketKeys) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut load = |name, tls, tickets| match TlsPolicy::load(name, tls, tickets) {
            Ok(policy) => policy.map(Arc::new),
            Err(found) => {
                errors.extend(found.0);
                None
            }
        };
        let policies = Self {
            devices: load("devices_tls", &config.devices_tls, &tickets.devices),
            api: load("api_tls", &config.api_tls, &tickets.api),
            peer: load("peer_tls", &config.peer_tls, &tickets.peer),
            ops: load("ops_tls", &config.ops_tls, &tickets.ops),
        };
        ConfigErrors::check(errors)?;
        Ok(policies)
    }

    /// Each listener with TLS, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Arc<TlsPolicy>)> {
        let all = [
            ("devices", &self.devices),
            ("api", &self.api),
            ("peer", &self.peer),
            ("ops", &self.ops),
        ];
        all.into_iter()
            .filter_map(|(name, policy)| Some((name, policy.as_ref()?)))
    }
}

impl TlsPolicy {
    fn load(
        name: &str,
        tls: &Tls,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Option<Self>, ConfigErrors> {
        if !tls.is_on() {
            return Ok(None);
        }
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let certificates = Certificates::read(name, &tls.all_pairs(), &crypto)?;
        let versions: &[_] = match tls.version_min {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let unusable =
            |cause: rustls::Error| ConfigErrors(vec![ConfigError::new(name, cause.to_string())]);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto))
            .with_protocol_versions(versions)
            .map_err(unusable)?;
        let builder = match &tls.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let place = format!("{name}.client_ca_file");
                let demand = tls.client_certificates;
                builder.with_client_cert_verifier(verifier(&place, path, demand, crypto)?)
            }
        };
        let (not_after_s, signature_us) =
            (certificates.not_after_s(), certificates.signature_cost_us());
        let mut server = builder.with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // After the handshake the records are ours (`compact`).
        server.enable_secret_extraction = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if tls.client_ca_file.is_none() {
            server.ticketer = Arc::clone(tickets);
            server.send_tls13_tickets = 1;
        } else {
            // A resumed session would let in a certificate that is no longer good.
            server.send_tls13_tickets = 0;
        }
        let verification_us = if tls.client_ca_file.is_some() {
            VERIFICATION_US
        } else {
            0
        };
        Ok(Some(Self {
            server: Arc::new(server),
            identity: tls.client_identity,
            not_after_s,
            full_cost_us: EXCHANGE_US + signature_us + verification_us,
        }))
    }

    /// What rustls goes by.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// When the first certificate ends, in seconds since the Unix epoch.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }

    /// About how long a handshake keeps a thread busy.
    pub(super) fn cost_us(&self, is_resumed: bool) -> u32 {
        if is_resumed {
            EXCHANGE_US / 2
        } else {
            self.full_cost_us
        }
    }

    /// Who brings a certificate; `None` when nobody asks, empty when the certificate does not say.
    pub(super) fn bearer(&self, der: &[u8]) -> Option<Box<str>> {
        let kind = self.identity?;
        Some(certificate::bearer(der, kind).unwrap_or_default().into())
    }
}

fn verifier(
    place: &str,
    path: &Path,
    demand: CertificateDemand,
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ConfigErrors> {
    let error = |cause: String| {
        let cause = format!("{}: {cause}", path.display());
        ConfigErrors(vec![ConfigError::new(place, cause)])
    };
    let mut roots = RootCertStore::empty();
    for root in certificate::read_chain(place, path).map_err(|error| ConfigErrors(vec![error]))? {
        roots.add(root).map_err(|cause| error(cause.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto);
    let builder: ClientCertVerifierBuilder = match demand {
        CertificateDemand::Required => builder,
        CertificateDemand::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|cause| error(cause.to_string()))
}

/// A key exchange and the rest of a full handshake without its signature (`benches/tls.rs`), the hybrid with ML-KEM
/// included.
const EXCHANGE_US: u32 = 85;
/// Verifying a client's certificate, its chain and its signature.
const VERIFICATION_US: u32 = 150;
