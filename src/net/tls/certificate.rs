//! Certificates: from files to what is shown, and from what is shown to us to a name.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::secret;
use crate::config::section::{CertificatePair, NameKind};

/// The certificates of a listener; the one that fits is shown.
#[derive(Debug)]
pub(super) struct Certificates(Vec<Shown>);

/// A certificate chain with its key.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    /// The DNS names it is for; one may begin with `*.`.
    names: Vec<String>,
    not_after_s: i64,
    signature_cost_us: u32,
}

impl Certificates {
    /// Reads every pair of a section of the configuration.
    pub(super) fn read(
        section: &str,
        pairs: &[(String, CertificatePair)],
        crypto: &CryptoProvider,
    ) -> Result<Self, ConfigErrors> {
        let mut shown = Vec::new();
        let mut errors = Vec::new();
        for (place, pair) in pairs {
            match Shown::read(&format!("{section}.{place}"), pair, crypto) {
                Ok(one) => shown.push(one),
                Err(error) => errors.push(error),
            }
        }
        ConfigErrors::check(errors)?;
        Ok(Self(shown))
    }

    /// When the first of them ends, in seconds since the Unix epoch.
    pub(super) fn not_after_s(&self) -> i64 {
        let ends = self.0.iter().map(|shown| shown.not_after_s);
        ends.min().unwrap_or(i64::MAX)
    }

    /// What the dearest signature among them costs.
    pub(super) fn signature_cost_us(&self) -> u32 {
        let costs = self.0.iter().map(|shown| shown.signature_cost_us);
        costs.max().unwrap_or(0)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let signs = |shown: &&Shown| {
            let schemes = hello.signature_schemes();
            shown.key.key.choose_scheme(schemes).is_some()
        };
        let is_for = |shown: &&Shown| {
            let name = hello.server_name();
            name.is_some_and(|name| shown.names.iter().any(|pattern| matches(pattern, name)))
        };
        let usable = || self.0.iter().filter(signs);
        let shown = usable().find(is_for).or_else(|| usable().next());
        let shown = shown.or_else(|| self.0.first())?;
        Some(Arc::clone(&shown.key))
    }
}

impl Shown {
    fn read(
        place: &str,
        pair: &CertificatePair,
        crypto: &CryptoProvider,
    ) -> Result<Self, ConfigError> {
        let chain = read_chain(&format!("{place}certificate_file"), &pair.certificate_file)?;
        let place = format!("{place}private_key_file");
        let bytes = secret::read(&place, &pair.private_key_file)?;
        let error = |cause: &str| {
            let file = pair.private_key_file.display();
            ConfigError::new(&place, format!("{file}: {cause}"))
        };
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            error("no private key as PEM").advise(
                "it begins with -----BEGIN PRIVATE KEY-----, or with EC or RSA before PRIVATE",
            )
        })?;
        let leaf = Leaf::read(&chain[0]).ok_or_else(|| error("its certificate cannot be read"))?;
        let key = CertifiedKey::from_der(chain, key, crypto).map_err(|cause| {
            error(&format!("not the key of the certificate: {cause}"))
                .advise("certificate_file begins with the certificate that was made for this key")
        })?;
        Ok(Self {
            key: Arc::new(key),
            names: leaf.names,
            not_after_s: leaf.not_after_s,
            signature_cost_us: leaf.signature_cost_us,
        })
    }
}

/// What we want to know of a certificate of our own.
struct Leaf {
    names: Vec<String>,
    not_after_s: i64,
    signature_cost_us: u32,
}

impl Leaf {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let signature_cost_us =
            if let PublicKey::RSA(key) = certificate.public_key().parsed().ok()? {
                rsa_cost_us(key.key_size())
            } else {
                EC_SIGNATURE_US
            };
        let names = alternative_names(&certificate, dns_name);
        Some(Self {
            names: names.into_iter().map(str::to_owned).collect(),
            not_after_s: certificate.validity().not_after.timestamp(),
            signature_cost_us,
        })
    }
}

/// Reads the certificates of a file, of which there must be one at least.
pub(super) fn read_chain(
    place: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = secret::read(place, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.unwrap_or_default();
    if chain.is_empty() {
        let cause = format!("{}: no certificate as PEM", path.display());
        return Err(
            ConfigError::new(place, cause).advise("it begins with -----BEGIN CERTIFICATE-----")
        );
    }
    Ok(chain)
}

/// The name that says who brings a certificate; `None` when there is none of its kind, or more than one. Only for
/// certificates that were verified.
pub fn bearer(der: &[u8], kind: NameKind) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names: Vec<&str> = match kind {
        NameKind::CommonName => certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .collect(),
        NameKind::Dns => alternative_names(&certificate, dns_name),
        NameKind::Uri => alternative_names(&certificate, uri_end),
    };
    match names[..] {
        [name] => Some(name.to_owned()),
        _ => None,
    }
}

fn alternative_names<'a>(
    certificate: &'a X509Certificate<'a>,
    pick: impl Fn(&'a GeneralName<'a>) -> Option<&'a str>,
) -> Vec<&'a str> {
    // Two such extensions are forbidden; then no name counts.
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.into_iter().flat_map(|e| &e.value.general_names);
    names.filter_map(pick).collect()
}

fn dns_name<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(name) = name {
        Some(name)
    } else {
        None
    }
}

/// What follows the last slash of a URI.
fn uri_end<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name {
        uri.rsplit('/').next()
    } else {
        None
    }
}

/// Whether a certificate's name covers a host: whole, or `*` for its first label.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(_, rest)| parent.eq_ignore_ascii_case(rest)),
    }
}

/// A signature grows with the cube of the modulus; 2,048 bits take about half a millisecond.
fn rsa_cost_us(bits: usize) -> u32 {
    let kilobits = u32::try_from(bits.div_ceil(1_024)).unwrap_or(u32::MAX);
    kilobits.saturating_pow(3).saturating_mul(62)
}

/// ECDSA on P-256 and Ed25519 alike.
const EC_SIGNATURE_US: u32 = 25;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            let value = DnValue::Utf8String(common_name.into());
            params.distinguished_name.push(DnType::CommonName, value);
        }
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn the_configured_name_says_who_brings_a_certificate() {
        let der = certificate(
            "tv-1",
            &[dns("tv-2"), uri("spiffe://example.org/device/tv-3")],
        );
        assert_eq!(bearer(&der, NameKind::CommonName).unwrap(), "tv-1");
        assert_eq!(bearer(&der, NameKind::Dns).unwrap(), "tv-2");
        assert_eq!(bearer(&der, NameKind::Uri).unwrap(), "tv-3");
        let urn = certificate("", &[uri("urn:dev:tv-4")]);
        assert_eq!(bearer(&urn, NameKind::Uri).unwrap(), "urn:dev:tv-4");
    }

    #[test]
    fn a_missing_or_ambiguous_name_says_nothing() {
        let two = certificate("", &[dns("tv-1"), dns("tv-2")]);
        for kind in [NameKind::CommonName, NameKind::Dns, NameKind::Uri] {
            assert_eq!(bearer(&two, kind), None, "{kind:?}");
        }
        assert_eq!(bearer(b"\x30\x03abc", NameKind::Dns), None);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, expected) in [
            ("push.example.com", "PUSH.example.com", true),
            ("push.example.com", "push.example.org", false),
            ("*.example.com", "push.example.com", true),
            ("*.example.com", "a.push.example.com", false),
            ("*.example.com", "example.com", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_longer_modulus_costs_more() {
        assert_eq!(rsa_cost_us(2_048), 496);
        assert!(rsa_cost_us(4_096) > 3_000);
    }
}
