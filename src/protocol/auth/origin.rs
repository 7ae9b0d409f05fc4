//! Which web pages may connect. A browser sends any page's request with the user's cookies, and says whose it is.

use url::{Host, Url};

use crate::config::error::ConfigError;
use crate::config::section::{Auth, AuthMode};

/// The pages that may connect.
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    admits_loopback: bool,
    allowed: Vec<AllowedOrigin>,
}

/// One entry of `auth.origins`; what it leaves out does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AllowedOrigin {
    scheme: Option<String>,
    host: Host,
    port: Option<u16>,
}

impl OriginPolicy {
    /// The policy of `[auth]`: its origins, and in dev mode every page on loopback.
    ///
    /// # Errors
    /// The first entry that is no origin.
    pub fn new(auth: &Auth) -> Result<Self, ConfigError> {
        let allowed = auth.origins.iter().map(|entry| AllowedOrigin::parse(entry));
        Ok(Self {
            admits_loopback: auth.mode == AuthMode::Dev,
            allowed: allowed.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a request with this `Origin` header may connect. Without one it comes from no browser and may.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if origin == "null" {
            return self.admits_loopback;
        }
        let Some(url) = parse_origin(origin) else {
            return false;
        };
        let Some(host) = host_of(&url) else {
            return false;
        };
        (self.admits_loopback && is_loopback(&host))
            || self
                .allowed
                .iter()
                .any(|allowed| allowed.matches(&url, &host))
    }
}

impl AllowedOrigin {
    fn parse(entry: &str) -> Result<Self, ConfigError> {
        Self::parse_whole(entry).or_else(|| Self::parse_host(entry)).ok_or_else(|| {
            ConfigError::new("auth.origins", format!("\"{entry}\" is no origin"))
                .advise("write \"app.example.com\" or \"https://app.example.com\"; patterns are not supported")
        })
    }

    /// `scheme://host[:port]`: all of it counts.
    fn parse_whole(entry: &str) -> Option<Self> {
        let url = parse_origin(entry)?;
        Some(Self {
            scheme: Some(url.scheme().into()),
            host: host_of(&url)?,
            port: url.port_or_known_default(),
        })
    }

    /// `host[:port]`: over http or https alike. A URL drops the default port of its scheme, so both are asked.
    fn parse_host(entry: &str) -> Option<Self> {
        let plain = parse_origin(&format!("http://{entry}"))?;
        let secure = parse_origin(&format!("https://{entry}"))?;
        Some(Self {
            scheme: None,
            host: host_of(&plain)?,
            port: plain.port().or_else(|| secure.port()),
        })
    }

    fn matches(&self, url: &Url, host: &Host) -> bool {
        let scheme_matches = match &self.scheme {
            Some(scheme) => scheme == url.scheme(),
            None => matches!(url.scheme(), "http" | "https"),
        };
        let port_matches = self.port.is_none() || self.port == url.port_or_known_default();
        scheme_matches && port_matches && self.host == *host
    }
}

/// An origin has no user, path, query or fragment.
fn parse_origin(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let has_rest =
        !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    let has_user = !url.username().is_empty() || url.password().is_some() || text.contains('@');
    (!has_rest && !has_user).then_some(url)
}

/// The host as compared: lower case, international names as punycode, without the dot of a rooted name.
fn host_of(url: &Url) -> Option<Host> {
    match url.host()?.to_owned() {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
            let is_name = !name.is_empty() && !name.contains('*');
            is_name.then_some(Host::Domain(name))
        }
        address @ (Host::Ipv4(_) | Host::Ipv6(_)) => Some(address),
    }
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(addr) => addr.is_loopback(),
        Host::Ipv6(addr) => addr.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: AuthMode, origins: &[&str]) -> OriginPolicy {
        let origins = origins.iter().map(ToString::to_string).collect();
        OriginPolicy::new(&Auth {
            mode,
            origins,
            ..Auth::default()
        })
        .unwrap()
    }

    #[test]
    fn a_listed_host_is_compared_whole() {
        let policy = policy(AuthMode::Jwt, &["example.com"]);
        for origin in [
            "https://example.com",
            "http://example.com:8080",
            "https://EXAMPLE.com",
            "https://example.com.",
        ] {
            assert!(policy.allows(Some(origin)), "{origin}");
        }
        for origin in [
            "https://evilexample.com",
            "https://example.com.evil.org",
            "https://example.com@evil.org",
            "https://evil.org/example.com",
            "https://evil.org#example.com",
            "https://app.example.com",
            "chrome-extension://example.com",
            "file://example.com",
            "example.com",
            "null",
            "",
            "https://",
        ] {
            assert!(!policy.allows(Some(origin)), "{origin}");
        }
    }

    #[test]
    fn scheme_and_port_count_when_given() {
        let policy = policy(
            AuthMode::Jwt,
            &[
                "https://a.example",
                "b.example:8080",
                "http://[::1]:3000",
                "c.example:80",
            ],
        );
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://a.example:443", true),
            ("https://a.example:444", false),
            ("http://a.example", false),
            ("http://b.example:8080", true),
            ("https://b.example:8080", true),
            ("https://b.example", false),
            ("http://[0:0::1]:3000", true),
            ("http://c.example", true),
            ("https://c.example", false),
        ] {
            assert_eq!(policy.allows(Some(origin)), allowed, "{origin}");
        }
    }

    #[test]
    fn international_names_match_in_either_form() {
        let policy = policy(AuthMode::Jwt, &["bücher.example"]);
        assert!(policy.allows(Some("https://bücher.example")));
        assert!(policy.allows(Some("https://xn--bcher-kva.example")));
        assert!(!policy.allows(Some("https://bucher.example")));
    }

    #[test]
    fn no_origin_is_fine_and_dev_admits_what_is_local() {
        let strict = policy(AuthMode::Jwt, &[]);
        let dev = policy(AuthMode::Dev, &[]);
        assert!(strict.allows(None) && dev.allows(None));
        for local in [
            "null",
            "http://localhost:5173",
            "http://127.0.0.9",
            "https://[::1]",
            "http://app.localhost",
        ] {
            assert!(dev.allows(Some(local)), "{local}");
            assert!(!strict.allows(Some(local)), "{local}");
        }
        assert!(!dev.allows(Some("http://localhost.evil.org")));
    }

    #[test]
    fn an_entry_that_is_no_origin_is_refused() {
        for entry in [
            "*",
            "*.example.com",
            "https://a.example/path",
            "",
            "http://",
            "user@a.example",
        ] {
            let auth = Auth {
                origins: vec![entry.into()],
                ..Auth::default()
            };
            assert!(OriginPolicy::new(&auth).is_err(), "{entry}");
        }
    }
}
