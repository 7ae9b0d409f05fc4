//! Lists of addresses on the command line: single ones, and networks for all addresses in them.
//!
//! A pair of addresses has some 28,000 ports for connections to one port, so many lines need many pairs.

use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// One address, or all of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressBlock(Vec<IpAddr>);

/// Text that is no list of addresses.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    /// Neither an address nor a network.
    #[error("an address, such as 10.0.0.7, or a network, such as 10.0.1.0/28")]
    Malformed,
    /// A network with more addresses than anybody has.
    #[error("a network has at most {ADDRESSES_MAX} addresses here")]
    Wide,
}

const ADDRESSES_MAX: usize = 4_096;
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What Linux takes if nobody says otherwise.
const PORTS_USUAL: u32 = 28_232;

impl AddressBlock {
    /// All addresses of some blocks.
    pub(crate) fn all(blocks: &[Self]) -> Vec<IpAddr> {
        blocks
            .iter()
            .flat_map(|block| block.0.iter().copied())
            .collect()
    }
}

impl FromStr for AddressBlock {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse() {
            return Ok(Self(vec![address]));
        }
        let network: IpNet = text.parse().map_err(|_| AddressError::Malformed)?;
        let addresses: Vec<IpAddr> = network.hosts().take(ADDRESSES_MAX + 1).collect();
        if addresses.len() > ADDRESSES_MAX {
            return Err(AddressError::Wide);
        }
        Ok(Self(addresses))
    }
}

/// Ports that this machine has for connections between two addresses.
pub(crate) fn ports() -> u32 {
    let text = fs::read_to_string(PORT_RANGE).unwrap_or_default();
    range_length(&text).unwrap_or(PORTS_USUAL)
}

fn range_length(text: &str) -> Option<u32> {
    let mut ends = text.split_ascii_whitespace().map(str::parse::<u32>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    last.checked_sub(first).map(|length| length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Result<Vec<String>, AddressError> {
        let block: AddressBlock = text.parse()?;
        Ok(block.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_block_is_one_address_or_those_of_a_network() {
        let some = |list: &[&str]| Ok(list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(addresses("10.0.0.7"), some(&["10.0.0.7"]));
        assert_eq!(addresses("10.0.0.0/30"), some(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(addresses("10.0.0.7/32"), some(&["10.0.0.7"]));
        assert_eq!(addresses("::1"), some(&["::1"]));
        let two = ["10.0.0.0/30", "::1"].map(|text| text.parse().unwrap());
        assert_eq!(AddressBlock::all(&two).len(), 3);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.1-9"] {
            assert_eq!(addresses(bad), Err(AddressError::Malformed), "{bad}");
        }
        for wide in ["10.0.0.0/8", "fd00::/64"] {
            assert_eq!(addresses(wide), Err(AddressError::Wide), "{wide}");
        }
    }

    #[test]
    fn the_range_of_ports_includes_both_ends() {
        assert_eq!(range_length("32768\t60999\n"), Some(PORTS_USUAL));
        assert_eq!(range_length("9 3"), None);
        assert_eq!(range_length(""), None);
        assert!(ports() > 0);
    }
}
