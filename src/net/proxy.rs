//! The PROXY protocol's header, with which a load balancer says for whom it connects (versions 1 and 2 of HAProxy's
//! specification).
//!
//! `ppp` reads the header once it is whole; here is only told when that is, so that a header that trickles in costs
//! nothing and one that never ends is cut off.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// A header that is on its way.
#[derive(Debug, Default)]
pub struct ProxyHeader {
    bytes: Vec<u8>,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// For whom the connection was made; `None` when the load balancer speaks for itself, as in a health check, or
    /// does not say.
    pub source: Option<SocketAddr>,
    /// Bytes of the last input that belong to the header.
    pub consumed: usize,
}

/// What came is no header, or none of a stream over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxyHeader;

impl ProxyHeader {
    /// Takes the next bytes of the connection; `None` while the header is not whole.
    ///
    /// # Errors
    /// [`BadProxyHeader`] as soon as the bytes so far show it.
    pub fn receive(&mut self, input: &[u8]) -> Result<Option<Proxied>, BadProxyHeader> {
        let held = self.bytes.len();
        let room = BYTES_MAX - held;
        self.bytes
            .extend_from_slice(&input[..input.len().min(room)]);
        let Some(length) = whole_length(&self.bytes)? else {
            // No acceptable header is longer.
            return if self.bytes.len() < BYTES_MAX {
                Ok(None)
            } else {
                Err(BadProxyHeader)
            };
        };
        let header = &self.bytes[..length];
        let source = if header.starts_with(v2::PROTOCOL_PREFIX) {
            source_v2(header)?
        } else {
            source_v1(header)?
        };
        Ok(Some(Proxied {
            source,
            consumed: length - held,
        }))
    }
}

/// How long the header at the front of `bytes` is, when all of it is there.
fn whole_length(bytes: &[u8]) -> Result<Option<usize>, BadProxyHeader> {
    let begins = |prefix: &[u8]| {
        let common = bytes.len().min(prefix.len());
        bytes[..common] == prefix[..common]
    };
    if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
        return match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => Ok(Some(end + 2)),
            None if line.len() == V1_BYTES_MAX => Err(BadProxyHeader),
            None => Ok(None),
        };
    }
    if !begins(v2::PROTOCOL_PREFIX) {
        return Err(BadProxyHeader);
    }
    let Some(&[high, low]) = bytes.get(V2_LENGTH_AT..V2_LENGTH_AT + 2) else {
        return Ok(None);
    };
    let length = V2_LENGTH_AT + 2 + usize::from(u16::from_be_bytes([high, low]));
    if length > BYTES_MAX {
        return Err(BadProxyHeader);
    }
    Ok((bytes.len() >= length).then_some(length))
}

fn source_v1(header: &[u8]) -> Result<Option<SocketAddr>, BadProxyHeader> {
    let header = v1::Header::try_from(header).map_err(|_| BadProxyHeader)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
    })
}

fn source_v2(header: &[u8]) -> Result<Option<SocketAddr>, BadProxyHeader> {
    let header = v2::Header::try_from(header).map_err(|_| BadProxyHeader)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    if header.protocol == v2::Protocol::Datagram {
        return Err(BadProxyHeader);
    }
    Ok(match header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
    })
}

/// The longest line of version 1, its line break included (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Where version 2 says how long the rest is: after the signature, version and family.
const V2_LENGTH_AT: usize = 14;
/// The longest header of version 2 that is taken: addresses of any family, and as much again for what load balancers
/// add (certificate names, ids), which is not read.
const BYTES_MAX: usize = 536;

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 7400\r\n";
    const REST: &[u8] = b"GET /ws";

    /// Version 2, over TCP and IPv6, with a TLV that is not read.
    fn v2() -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x21, 0x21, 0, 36 + 4]);
        header.extend(
            "2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        header.extend([0; 16]);
        header.extend([0x9c, 0x40, 0x1c, 0xe8]);
        header.extend([0x04, 0, 1, 42]);
        header
    }

    /// What comes of a header given in pieces, and how much of the input was left.
    fn receive(bytes: &[u8], size: usize) -> Result<Option<Option<SocketAddr>>, BadProxyHeader> {
        let mut header = ProxyHeader::default();
        let mut taken = 0;
        for piece in bytes.chunks(size) {
            if let Some(proxied) = header.receive(piece)? {
                assert_eq!(&bytes[taken + proxied.consumed..], REST);
                return Ok(Some(proxied.source));
            }
            taken += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn a_header_is_read_however_it_is_cut_and_what_follows_is_left() {
        let v2 = v2();
        for (header, source) in [
            (V1, Some("203.0.113.7:40000")),
            (
                b"PROXY TCP6 2001:db8::7 ::1 40000 1\r\n",
                Some("[2001:db8::7]:40000"),
            ),
            (b"PROXY UNKNOWN\r\n", None),
            (
                b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
                None,
            ),
            (&v2, Some("[2001:db8::7]:40000")),
        ] {
            let bytes = [header, REST].concat();
            let expected = source.map(|source| source.parse().unwrap());
            for size in [1, 2, 7, 13, bytes.len()] {
                assert_eq!(receive(&bytes, size), Ok(Some(expected)), "{size}");
            }
        }
    }

    #[test]
    fn a_load_balancer_may_speak_for_itself() {
        let local = [v2::PROTOCOL_PREFIX, &[0x20, 0, 0, 0], REST].concat();
        assert_eq!(receive(&local, 5), Ok(Some(None)));
        let unix = [
            v2::PROTOCOL_PREFIX,
            &[0x21, 0x31, 0, 216],
            &[b'/'; 216],
            REST,
        ]
        .concat();
        assert_eq!(receive(&unix, 100), Ok(Some(None)));
    }

    #[test]
    fn what_is_no_header_is_found_at_the_first_byte_that_shows_it() {
        for bytes in [
            &b"GET /ws HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXZ",
            b"\r\n\r\n\0\r\nQUIX",
            b"PROXY TCP4 203.0.113.256 10.0.0.1 1 1\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 01 1\r\n",
            b"PROXY TCP5 1 2 3 4\r\n",
            b"PROXY \xff\r\n",
        ] {
            for size in [1, bytes.len()] {
                assert_eq!(receive(bytes, size), Err(BadProxyHeader), "{bytes:?}");
            }
        }
        let v2 = |rest: &[u8]| [v2::PROTOCOL_PREFIX, rest].concat();
        for header in [
            v2(&[0x31, 0x11, 0, 0]),
            v2(&[0x22, 0x11, 0, 12, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0, 1]),
            v2(&[0x21, 0x12, 0, 12, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0, 1]),
            v2(&[0x21, 0x11, 0, 4, 1, 1, 1, 1]),
        ] {
            assert_eq!(receive(&header, 1), Err(BadProxyHeader), "{header:?}");
        }
    }

    #[test]
    fn a_header_that_does_not_end_is_cut_off() {
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        assert_eq!(receive(&endless, 1), Err(BadProxyHeader));
        let long = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(
            receive(&long, 1),
            Err(BadProxyHeader),
            "before its bytes are kept"
        );
    }
}
