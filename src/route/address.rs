//! How many connections each address holds, and how many it has lately made.
//!
//! Kept only while a limit is configured, one entry for each address with a connection, so that an open node pays
//! nothing. Many devices may stand behind one address: operators name such networks as exempt.

use std::collections::VecDeque;
use std::net::IpAddr;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hashbrown::DefaultHashBuilder;

use crate::base::time::Tick;

/// What one address may do; 0 stands for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections open at once.
    pub open_max: u32,
    /// Connections made in one second.
    pub per_second_max: u32,
}

/// An address as it is counted: an IPv4 address, or the /64 of an IPv6 one, which is what one customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(u64);

/// What a newcomer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its address is within its limits.
    Good,
    /// It is not: refuse the connection and say why.
    Excessive,
    /// It is at more than twice a limit: not even worth a refusal.
    Hopeless,
}

/// The addresses of a node, counted by all shards.
#[derive(Debug, Default)]
pub struct Addresses(DashMap<AddressKey, Count, DefaultHashBuilder>);

/// Addresses whose last connection has ended in the current second: forgotten once that is over, so that closing and
/// coming again does not start the count anew. One for each shard.
#[derive(Debug, Default)]
pub struct Fading(VecDeque<(u32, AddressKey)>);

#[derive(Debug)]
struct Count {
    open: u32,
    second: u32,
    arrivals: u32,
}

impl AddressLimits {
    /// Whether there is anything to count for.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl AddressKey {
    /// What an address counts as.
    pub fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => Self(u64::from(addr.to_bits())),
            // The upper half of ::/64 is all zero, and nobody connects from there.
            IpAddr::V6(addr) => Self(u64::try_from(addr.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

impl Addresses {
    /// Counts a connection, whether it may stay or not: a refused one takes a socket too, until it has ended.
    pub fn arrive(&self, key: AddressKey, limits: AddressLimits, now: Tick) -> Standing {
        let mut count = self.0.entry(key).or_insert(Count {
            open: 0,
            second: second(now),
            arrivals: 0,
        });
        if count.second != second(now) {
            (count.second, count.arrivals) = (second(now), 0);
        }
        count.open = count.open.saturating_add(1);
        count.arrivals = count.arrivals.saturating_add(1);
        let exceeds = |factor: u32| {
            let is_over = |n: u32, max: u32| max > 0 && n > max.saturating_mul(factor);
            is_over(count.open, limits.open_max) || is_over(count.arrivals, limits.per_second_max)
        };
        match (exceeds(1), exceeds(2)) {
            (false, _) => Standing::Good,
            (true, false) => Standing::Excessive,
            (true, true) => Standing::Hopeless,
        }
    }

    /// Counts a connection out.
    pub fn leave(&self, key: AddressKey, fading: &mut Fading, now: Tick) {
        let Some(mut count) = self.0.get_mut(&key) else {
            return;
        };
        count.open = count.open.saturating_sub(1);
        if count.open == 0 {
            fading.0.push_back((second(now), key));
        }
    }

    /// Forgets addresses that have no connection, and had none made in this second.
    pub fn forget(&self, fading: &mut Fading, now: Tick) {
        while let Some((_, key)) = fading.0.pop_front_if(|(then, _)| *then != second(now)) {
            if let Entry::Occupied(count) = self.0.entry(key)
                && count.get().open == 0
                && count.get().second != second(now)
            {
                count.remove();
            }
        }
    }

    /// How many addresses are counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn second(now: Tick) -> u32 {
    now.0 / TICKS_PER_SECOND
}

const TICKS_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;

    use rand::Rng;

    use super::*;
    use crate::base::seed;

    const LIMITS: AddressLimits = AddressLimits {
        open_max: 3,
        per_second_max: 5,
    };

    fn key(text: &str) -> AddressKey {
        AddressKey::of(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_one_of_ipv4_or_a_64_of_ipv6() {
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn an_address_beyond_its_limit_is_refused_and_beyond_twice_of_it_cut() {
        let addresses = Addresses::default();
        let arrive = || addresses.arrive(key("10.0.0.1"), LIMITS, Tick(0));
        let standings: Vec<_> = (0..7).map(|_| arrive()).collect();
        assert_eq!(standings[..3], [Standing::Good; 3]);
        assert_eq!(standings[3..6], [Standing::Excessive; 3]);
        assert_eq!(standings[6], Standing::Hopeless);
        assert_eq!(
            addresses.arrive(key("10.0.0.2"), LIMITS, Tick(0)),
            Standing::Good
        );
    }

    #[test]
    fn closing_and_coming_again_does_not_start_the_count_anew() {
        let (addresses, mut fading) = (Addresses::default(), Fading::default());
        let here = key("10.0.0.1");
        for n in 1..=6 {
            let standing = addresses.arrive(here, LIMITS, Tick(3));
            assert_eq!(standing == Standing::Good, n <= 5, "{n}");
            addresses.leave(here, &mut fading, Tick(3));
            addresses.forget(&mut fading, Tick(3));
        }
        addresses.forget(&mut fading, Tick(10));
        assert!(addresses.is_empty(), "the next second has begun");
        assert_eq!(addresses.arrive(here, LIMITS, Tick(11)), Standing::Good);
    }

    /// Against a twin that remembers everything.
    #[test]
    fn random_comings_and_goings_leave_nothing_behind() {
        let mut random = seed::rng();
        let (addresses, mut fading) = (Addresses::default(), Fading::default());
        let mut open: HashMap<u32, u32> = HashMap::new();
        let mut arrivals: HashMap<(u32, u32), u32> = HashMap::new();
        let mut tick = 0;
        for _ in 0..20_000 {
            tick += random.random_range(0..3);
            let now = Tick(tick);
            let n = random.random_range(0..20);
            let key = AddressKey(n.into());
            if random.random_bool(0.5) {
                let standing = addresses.arrive(key, LIMITS, now);
                let open = open.entry(n).or_default();
                let arrivals = arrivals.entry((n, second(now))).or_default();
                (*open, *arrivals) = (*open + 1, *arrivals + 1);
                let is_over = *open > LIMITS.open_max || *arrivals > LIMITS.per_second_max;
                assert_eq!(standing != Standing::Good, is_over);
            } else if open.get(&n).is_some_and(|&open| open > 0) {
                addresses.leave(key, &mut fading, now);
                *open.entry(n).or_default() -= 1;
            }
            addresses.forget(&mut fading, now);
        }
        for (n, count) in open {
            (0..count).for_each(|_| {
                addresses.leave(AddressKey(n.into()), &mut fading, Tick(tick));
            });
        }
        addresses.forget(&mut fading, Tick(tick + 10));
        assert!(addresses.is_empty());
    }
}
