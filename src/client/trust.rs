//! Whose word a client takes for who a node is: an authority named by file, or those of the system.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::error::ClientError;

/// The authorities that are believed.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    roots: Vec<CertificateDer<'static>>,
    crypto: Arc<CryptoProvider>,
}

impl Trust {
    /// Reads the file, or what the system has when there is none.
    pub(super) fn load(ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let roots = match ca_file {
            None => rustls_native_certs::load_native_certs().certs,
            Some(path) => {
                let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
                    .and_then(Iterator::collect)
                    .map_err(|cause| cause.to_string());
                read.map_err(|cause| no_authority(Some(path), &cause))?
            }
        };
        if roots.is_empty() {
            return Err(no_authority(ca_file, "no certificate is in it"));
        }
        Ok(Self {
            roots,
            crypto: Arc::new(aws_lc_rs::default_provider()),
        })
    }

    /// For a line.
    pub(super) fn for_line(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let mut roots = RootCertStore::empty();
        // A system has some that nobody can read.
        roots.add_parsable_certificates(self.roots.iter().cloned());
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.crypto))
            .with_safe_default_protocol_versions()
            .map_err(|cause| no_authority(None, &cause.to_string()))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// For requests.
    pub(super) fn for_api(&self) -> TlsConfig {
        let roots = self.roots.iter();
        let roots: Vec<_> = roots
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::clone(&self.crypto))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build()
    }
}

fn no_authority(file: Option<&Path>, cause: &str) -> ClientError {
    let place = file.map_or_else(
        || "the system's certificates".into(),
        |path| path.display().to_string(),
    );
    ClientError::NoAuthority {
        place,
        cause: cause.into(),
    }
}
