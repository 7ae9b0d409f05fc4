//! TLS on lines: what all of them share. The bytes are in [`stream`], the sessions to resume in [`ticket`].

pub(crate) mod stream;
mod ticket;
mod trust;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::name::{LineId, is_chosen};
use crate::tls::stream::TlsStream;
use crate::tls::ticket::Tickets;
use crate::tls::trust::TrustAll;

/// How lines speak TLS.
#[derive(Debug)]
pub(crate) struct TlsPlan {
    /// Keeps the sessions it is given, and resumes none.
    full: Arc<ClientConfig>,
    /// Resumes what the other one keeps.
    resuming: Arc<ClientConfig>,
    resume: f64,
    /// The server's name at each target.
    names: Vec<ServerName<'static>>,
}

/// TLS that cannot be spoken.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// The certificates cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, rustls::pki_types::pem::Error),
    /// Certificates that are none, or nothing in common with the library.
    #[error(transparent)]
    Library(#[from] rustls::Error),
    /// A target that can have no certificate.
    #[error("`{0}` is no name a certificate could have")]
    Name(String),
}

impl TlsPlan {
    /// Lines to servers of these names. Of a hundred handshakes, a hundred times `resume` resume a session if there is one
    /// left. Without `ca` every certificate is believed.
    pub(crate) fn new(names: &[String], ca: Option<&Path>, resume: f64) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(cryptography()))
            .with_safe_default_protocol_versions()?;
        let builder = match ca {
            Some(ca) => builder.with_root_certificates(roots(ca)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAll::new(cryptography()))),
        };
        let tickets = Tickets::default();
        let mut full = builder.with_no_client_auth();
        full.resumption = Resumption::store(Arc::new(tickets.store(false)));
        // A copy: the library resumes no session that was verified by another verifier.
        let mut resuming = full.clone();
        resuming.resumption = Resumption::store(Arc::new(tickets.store(true)));
        Ok(Self {
            full: Arc::new(full),
            resuming: Arc::new(resuming),
            resume,
            names: names
                .iter()
                .map(|name| server_name(name))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Starts TLS on a line to one of the targets.
    pub(crate) fn open(
        &self,
        LineId(n): LineId,
        target: usize,
    ) -> Result<Box<TlsStream>, rustls::Error> {
        let config = if is_chosen(n, self.resume) {
            &self.resuming
        } else {
            &self.full
        };
        let name = self.names[target % self.names.len()].clone();
        let connection = UnbufferedClientConnection::new(config.clone(), name)?;
        Ok(Box::new(TlsStream::new(connection)))
    }
}

/// What devices bring: AES-128 first, as browsers do; X25519 without a post-quantum half, so that figures of servers
/// with and without it compare.
fn cryptography() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let first = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| *suite != first);
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    provider
}

fn roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |error| TlsError::Read(ca.to_owned(), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    Ok(roots)
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(ServerName::IpAddress(ip.into())),
        Err(_) => {
            ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_or_addresses() {
        for good in ["push.example.com", "127.0.0.1", "[::1]"] {
            assert!(server_name(good).is_ok(), "{good}");
        }
        assert!(matches!(server_name("a b"), Err(TlsError::Name(_))));
    }

    #[test]
    fn certificates_that_are_not_there_are_an_error() {
        let missing = TlsPlan::new(&["h".to_owned()], Some(Path::new("/nowhere")), 0.0);
        assert!(matches!(missing, Err(TlsError::Read(..))));
    }
}
