//! Where a URL leads.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use crate::node::NodeError;

/// Something to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// How it was named: what requests say.
    pub(crate) authority: String,
    /// Its name alone, for a certificate.
    pub(super) host: String,
    /// Whether it is spoken to over TLS.
    pub(super) is_tls: bool,
}

impl Target {
    /// Reads `scheme://host:port/…` or `host:port`. `schemes` are the plain one and, where there is one, that with TLS.
    pub(super) fn resolve(url: &str, schemes: &[&str]) -> Result<Self, NodeError> {
        let bad = || NodeError::Address(url.to_owned(), schemes.join(":// or "));
        let (scheme, rest) = url.split_once("://").unwrap_or((schemes[0], url));
        let is_tls = schemes.iter().position(|known| *known == scheme);
        let is_tls = is_tls.ok_or_else(bad)? > 0;
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
                (host, port.parse().map_err(|_| bad())?)
            }
            Some(_) | None if is_tls && !authority.is_empty() => (authority, 443),
            Some(_) | None => return Err(bad()),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = (bare, port).to_socket_addrs().ok();
        let address = found.and_then(|mut addresses| addresses.next());
        Ok(Self {
            address: address.ok_or_else(bad)?,
            authority: authority.to_owned(),
            host: host.to_owned(),
            is_tls,
        })
    }

    /// The same at another address: requests and certificates keep its name.
    pub(super) fn at_address(&self, ip: IpAddr) -> Self {
        Self {
            address: SocketAddr::new(ip, self.address.port()),
            ..self.clone()
        }
    }

    /// What has no name but its address.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            authority: address.to_string(),
            host: address.ip().to_string(),
            is_tls: false,
        }
    }
}

/// What targets may be: the plain scheme first.
pub(super) const DEVICES: [&str; 2] = ["ws", "wss"];
pub(super) const API: [&str; 1] = ["http"];
pub(super) const PEER: [&str; 1] = ["ws"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_a_target_as_it_was_named() {
        let target = Target::resolve("wss://localhost/ws", &DEVICES).unwrap();
        assert_eq!(
            (target.authority.as_str(), target.host.as_str()),
            ("localhost", "localhost")
        );
        let target = Target::at("127.0.0.1:9".parse().unwrap());
        assert_eq!(
            (target.authority.as_str(), target.host.as_str()),
            ("127.0.0.1:9", "127.0.0.1")
        );
    }

    #[test]
    fn another_address_keeps_port_and_name() {
        let target = Target::resolve("wss://localhost:99", &DEVICES).unwrap();
        let other = target.at_address("10.0.0.7".parse().unwrap());
        assert_eq!(other.address.to_string(), "10.0.0.7:99");
        assert_eq!(
            (other.host.as_str(), other.authority.as_str()),
            ("localhost", "localhost:99")
        );
        assert!(other.is_tls);
    }

    fn address(url: &str, schemes: &[&str]) -> Option<(String, String, bool)> {
        let target = Target::resolve(url, schemes).ok()?;
        Some((target.address.to_string(), target.host, target.is_tls))
    }

    #[test]
    fn targets_are_urls_or_addresses() {
        let plain = || Some(("127.0.0.1:7400".to_owned(), "127.0.0.1".to_owned(), false));
        assert_eq!(address("ws://127.0.0.1:7400", &DEVICES), plain());
        assert_eq!(address("http://127.0.0.1:7400/x", &API), plain());
        assert_eq!(address("127.0.0.1:7400", &PEER), plain());
        for bad in [
            "",
            "ws://",
            "127.0.0.1",
            "127.0.0.1:http",
            "wss://",
            "ws://:1",
        ] {
            assert_eq!(address(bad, &DEVICES), None, "{bad}");
        }
    }

    #[test]
    fn only_lines_speak_tls() {
        let secure = |port: u16| {
            let address = format!("127.0.0.1:{port}");
            Some((address, "127.0.0.1".to_owned(), true))
        };
        assert_eq!(address("wss://127.0.0.1:7400/ws", &DEVICES), secure(7400));
        assert_eq!(address("wss://127.0.0.1", &DEVICES), secure(443));
        assert_eq!(address("wss://127.0.0.1:7402", &PEER), None);
        assert_eq!(address("https://127.0.0.1:7401", &API), None);
        let v6 = address("wss://[::1]", &DEVICES).map(|(address, ..)| address);
        assert_eq!(v6.as_deref(), Some("[::1]:443"));
    }
}
