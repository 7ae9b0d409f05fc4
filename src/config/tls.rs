//! The TLS sections: what they share, and what they may not say, alone and beside the rest.

use std::path::PathBuf;

use super::Config;
use super::error::ConfigError;
use super::section::{ApiKey, AuthMode, CertificateDemand, CertificatePair, Section, Tls};

impl Tls {
    /// The section of the sending API's listener; its keys are those of the devices'.
    pub const API_SECTION: Section = Section {
        name: "api_tls",
        about: &[" TLS for back ends (https); keys as in [devices_tls]."],
        keys: Self::SECTION.keys,
    };

    /// The section of the listener of back ends' streams.
    pub const PEER_SECTION: Section = Section {
        name: "peer_tls",
        about: &[" TLS for back ends' streams (wss); keys as in [devices_tls]."],
        keys: Self::SECTION.keys,
    };

    /// The section of the ops listener.
    pub const OPS_SECTION: Section = Section {
        name: "ops_tls",
        about: &[
            " TLS for metrics and probes (https); keys as in [devices_tls], without client_identity.",
        ],
        keys: Self::SECTION.keys,
    };

    /// Every certificate with its key, in the order of preference, and where in the section it stands.
    pub fn all_pairs(&self) -> Vec<(String, CertificatePair)> {
        let first = match (&self.certificate_file, &self.private_key_file) {
            (Some(certificate_file), Some(private_key_file)) => {
                let pair = CertificatePair {
                    certificate_file: certificate_file.clone(),
                    private_key_file: private_key_file.clone(),
                };
                Some((String::new(), pair))
            }
            _ => None,
        };
        let more = self.pairs.iter().enumerate();
        let more = more.map(|(i, pair)| (format!("pairs[{i}]."), pair.clone()));
        first.into_iter().chain(more).collect()
    }

    /// Every file that is named.
    pub fn files(&self) -> Vec<PathBuf> {
        let pairs = self.all_pairs().into_iter();
        let pairs = pairs.flat_map(|(_, pair)| [pair.certificate_file, pair.private_key_file]);
        pairs.chain(self.client_ca_file.clone()).collect()
    }

    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.certificate_file.is_some() || !self.pairs.is_empty()
    }

    /// What a URL's scheme ends with: `ws` or `wss`, `http` or `https`.
    pub fn scheme_end(&self) -> &'static str {
        if self.is_on() { "s" } else { "" }
    }

    /// Whether everybody who connects has proven to be known to an authority of ours.
    pub fn demands_certificates(&self) -> bool {
        self.is_on()
            && self.client_ca_file.is_some()
            && self.client_certificates == CertificateDemand::Required
    }
}

impl Config {
    /// Halves of pairs, and client certificates that nobody asks for or reads.
    pub(super) fn tls_mistakes(&self) -> Vec<ConfigError> {
        let sections = [
            ("devices_tls", &self.devices_tls),
            ("api_tls", &self.api_tls),
            ("peer_tls", &self.peer_tls),
            ("ops_tls", &self.ops_tls),
        ];
        let mut errors: Vec<_> = sections
            .into_iter()
            .flat_map(|(name, tls)| listener_mistakes(name, tls))
            .collect();
        if self.ops_tls.client_identity.is_some() {
            let cause = "nobody is told apart by name there";
            errors.push(
                ConfigError::new("ops_tls.client_identity", cause)
                    .advise("leave it out; client_ca_file alone lets in whom it names"),
            );
        }
        let names_devices =
            self.devices_tls.demands_certificates() && self.devices_tls.client_identity.is_some();
        if self.auth.mode == AuthMode::Certificate && !names_devices {
            let cause = "\"certificate\" needs client certificates that name devices";
            errors.push(ConfigError::new("auth.mode", cause).advise(
                "set devices_tls.client_ca_file and client_identity, and leave \
                 client_certificates at \"required\"",
            ));
        }
        let keys = self.api.keys.iter().enumerate();
        errors.extend(keys.filter_map(|(i, key)| self.key_mistake(i, key)));
        errors
    }

    /// Whether client certificates tell back ends apart on one of their listeners.
    fn names_back_ends(&self) -> bool {
        let listeners = [&self.api_tls, &self.peer_tls];
        listeners
            .into_iter()
            .any(|tls| tls.client_identity.is_some())
    }

    fn key_mistake(&self, index: usize, key: &ApiKey) -> Option<ConfigError> {
        let place = format!("api.keys[{index}]");
        match (&key.key_file, &key.certificate) {
            (Some(_), None) => None,
            (None, Some(_)) if self.names_back_ends() => None,
            (None, Some(_)) => Some(
                ConfigError::new(place, "nothing says which name of a certificate counts")
                    .advise("set client_ca_file and client_identity of api_tls or peer_tls"),
            ),
            (Some(_), Some(_)) | (None, None) => {
                let cause = format!("{}: needs key_file or certificate, and not both", key.name);
                Some(ConfigError::new(place, cause))
            }
        }
    }
}

fn listener_mistakes(name: &str, tls: &Tls) -> Vec<ConfigError> {
    let is_half = tls.certificate_file.is_some() != tls.private_key_file.is_some();
    let has_client_keys = tls.client_ca_file.is_some() || tls.client_identity.is_some();
    let findings = [
        (
            is_half,
            "certificate_file",
            "a certificate and its private key come together",
            "set certificate_file and private_key_file",
        ),
        (
            has_client_keys && !tls.is_on() && !is_half,
            "client_ca_file",
            "client certificates need TLS",
            "set certificate_file and private_key_file",
        ),
        (
            tls.client_identity.is_some() && tls.client_ca_file.is_none(),
            "client_identity",
            "no authority is named whose certificates are believed",
            "set client_ca_file",
        ),
    ];
    findings
        .into_iter()
        .filter(|finding| finding.0)
        .map(|(_, key, cause, advice)| {
            ConfigError::new(format!("{name}.{key}"), cause).advise(advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap();
        let errors = config.validate().err();
        errors
            .into_iter()
            .flat_map(|e| e.0)
            .map(|e| e.place)
            .collect()
    }

    const PAIR: &str = "certificate_file = \"c\"\nprivate_key_file = \"k\"\n";

    #[test]
    fn a_listener_has_whole_pairs_and_reads_the_certificates_it_asks_for() {
        for (toml, places) in [
            (format!("[devices_tls]\n{PAIR}"), &[][..]),
            (
                "[api_tls]\ncertificate_file = \"c\"\n".into(),
                &["api_tls.certificate_file"],
            ),
            (
                "[ops_tls]\nprivate_key_file = \"k\"\n".into(),
                &["ops_tls.certificate_file"],
            ),
            (
                "[devices_tls]\nclient_ca_file = \"a\"\n".into(),
                &["devices_tls.client_ca_file"],
            ),
            (
                format!("[devices_tls]\n{PAIR}client_identity = \"dns\"\n"),
                &["devices_tls.client_identity"],
            ),
            (
                format!("[ops_tls]\n{PAIR}client_ca_file = \"a\"\nclient_identity = \"dns\"\n"),
                &["ops_tls.client_identity"],
            ),
            (
                format!("[devices_tls]\n{PAIR}client_ca_file = \"a\"\nclient_identity = \"uri\"\n"),
                &[],
            ),
        ] {
            assert_eq!(mistakes(&toml), places, "{toml}");
        }
    }

    #[test]
    fn devices_are_named_by_certificates_only_if_all_must_show_one() {
        let keys = "[[api.keys]]\nname = \"a\"\nkey_file = \"k\"\nroles = [\"send\"]\n";
        let whole = |more: &str| {
            format!(
                "auth.mode = \"certificate\"\n{keys}[devices_tls]\n{PAIR}client_ca_file = \"a\"\n{more}"
            )
        };
        assert_eq!(mistakes(&whole("client_identity = \"dns\"\n")), [""; 0]);
        assert_eq!(mistakes(&whole("")), ["auth.mode"]);
        let optional = "client_identity = \"dns\"\nclient_certificates = \"optional\"\n";
        assert_eq!(mistakes(&whole(optional)), ["auth.mode"]);
    }

    #[test]
    fn a_back_end_has_a_key_or_a_certificate() {
        let key = |rest: &str| format!("[[api.keys]]\nname = \"a\"\nroles = [\"send\"]\n{rest}\n");
        let named = format!("[api_tls]\n{PAIR}client_ca_file = \"a\"\nclient_identity = \"dns\"\n");
        assert_eq!(mistakes(&key("key_file = \"k\"")), [""; 0]);
        assert_eq!(mistakes(&key("")), ["api.keys[0]"]);
        assert_eq!(
            mistakes(&key("key_file = \"k\"\ncertificate = \"b\"")),
            ["api.keys[0]"]
        );
        assert_eq!(mistakes(&key("certificate = \"b\"")), ["api.keys[0]"]);
        assert_eq!(mistakes(&(key("certificate = \"b\"") + &named)), [""; 0]);
    }
}
