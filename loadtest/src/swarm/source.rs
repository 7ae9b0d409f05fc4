//! Where lines connect from.

use std::net::{IpAddr, Ipv4Addr};

use crate::name::{LineId, Names};

/// The addresses that lines connect from, each for [`SOURCE_LINES`] lines in turn.
#[derive(Clone, Debug)]
pub(crate) enum Sources {
    /// The kernel chooses.
    Kernel,
    /// These, by turns.
    Given(Vec<IpAddr>),
    /// As many of 127/8 as it takes, from this second byte on.
    Loopback(u8),
}

/// Linux gives `connect` every other port of its range first, 14,000 of the usual 28,000; with these taken, each further
/// connect searches them all in vain before it tries the others.
const SOURCE_LINES: u32 = 12_000;
/// A line that comes back does so from another address, since its former port may be taken for a minute, or its former
/// socket may still be there.
const LIVES: u8 = 8;

impl Sources {
    /// How many there are; `None` if there are always enough.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Self::Kernel => Some(1),
            Self::Given(addresses) => Some(addresses.len().max(1)),
            Self::Loopback(_) => None,
        }
    }

    /// The address for the `start`th start of a line.
    pub(crate) fn of(&self, names: &Names, LineId(n): LineId, start: u16) -> Option<IpAddr> {
        let LineId(first) = names.first();
        match self {
            Self::Kernel => None,
            Self::Given(addresses) => {
                let turn = (n / SOURCE_LINES - first / SOURCE_LINES) as usize;
                let place = (turn + usize::from(start)) % addresses.len().max(1);
                addresses.get(place).copied()
            }
            Self::Loopback(net) => {
                let life = start.to_le_bytes()[0] % LIVES;
                let zero = u32::from(Ipv4Addr::new(127, net + life, 0, 1));
                let turn = n / SOURCE_LINES % (1 << 16);
                Some(Ipv4Addr::from(zero + turn).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_source_has_no_more_lines_than_connect_is_quick_for() {
        for (first, lines) in [(0, 50_000), (6_000, 23_999), (19_000, 19_000), (0, 1)] {
            let names = Names::new(first, lines, 4);
            let mut counts = BTreeMap::<_, u32>::new();
            for n in first..first + lines {
                let source = Sources::Loopback(1).of(&names, LineId(n), 0).unwrap();
                *counts.entry(source).or_default() += 1;
            }
            let is_quick = counts.values().all(|count| *count <= SOURCE_LINES);
            assert!(is_quick, "{counts:?}");
        }
    }

    #[test]
    fn a_line_that_comes_back_has_another_source() {
        let names = Names::new(0, 9, 4);
        let of = |sources: &Sources, start| sources.of(&names, LineId(8), start);
        let lives: Vec<_> = (0..LIVES)
            .map(|n| of(&Sources::Loopback(1), n.into()))
            .collect();
        assert!((1..lives.len()).all(|n| !lives[..n].contains(&lives[n])));
        let given = Sources::Given(
            ["10.0.0.1", "10.0.0.2"]
                .map(|a| a.parse().unwrap())
                .to_vec(),
        );
        assert_ne!(of(&given, 0), of(&given, 1));
        assert_eq!(of(&Sources::Kernel, 0), None);
        assert_eq!(of(&Sources::Given(Vec::new()), 0), None);
    }
}
