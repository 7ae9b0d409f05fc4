//! The lines of an account that has several: a sorted list, or a tree once it is long.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::base::place::Place;

/// Packed places in order, at least two of them.
#[derive(Debug)]
pub(super) enum Members {
    /// As long as they are, and no longer: most accounts have a handful.
    Few(Box<[u32]>),
    /// Where moving all that come after would show. Never a list again before nearly everyone has left.
    #[expect(
        clippy::box_collection,
        reason = "so that an account with a few lines costs no more for it"
    )]
    Crowd(Box<BTreeSet<u32>>),
}

impl Members {
    pub(super) fn of_two(one: u32, other: u32) -> Self {
        Self::Few([one.min(other), one.max(other)].into())
    }

    pub(super) fn insert(&mut self, place: u32) {
        match self {
            Self::Few(few) => {
                let Err(at) = few.binary_search(&place) else {
                    return;
                };
                if few.len() == FEW_MAX {
                    let mut crowd: BTreeSet<_> = few.iter().copied().collect();
                    crowd.insert(place);
                    *self = Self::Crowd(Box::new(crowd));
                    return;
                }
                let (before, after) = few.split_at(at);
                *few = [before, &[place], after].concat().into();
            }
            Self::Crowd(crowd) => {
                crowd.insert(place);
            }
        }
    }

    pub(super) fn remove(&mut self, place: u32) {
        match self {
            Self::Few(few) => {
                if let Ok(at) = few.binary_search(&place) {
                    *few = [&few[..at], &few[at + 1..]].concat().into();
                }
            }
            Self::Crowd(crowd) => {
                crowd.remove(&place);
                if crowd.len() <= FEW_MAX / 2 {
                    *self = Self::Few(crowd.iter().copied().collect());
                }
            }
        }
    }

    /// The last one, if there is no other.
    pub(super) fn only(&self) -> Option<u32> {
        match self {
            Self::Few(few) if few.len() == 1 => few.first().copied(),
            Self::Few(_) | Self::Crowd(_) => None,
        }
    }

    pub(super) fn page(&self, after: Bound<u32>, limit: usize) -> Vec<Place> {
        match self {
            Self::Few(few) => {
                let start = match after {
                    Bound::Excluded(after) => few.partition_point(|&place| place <= after),
                    Bound::Included(_) | Bound::Unbounded => 0,
                };
                let page = few[start..].iter().take(limit);
                page.copied().map(Place::unpack).collect()
            }
            Self::Crowd(crowd) => {
                let page = crowd.range((after, Bound::Unbounded)).take(limit);
                page.copied().map(Place::unpack).collect()
            }
        }
    }
}

/// The longest list: 128 bytes, which move in a few nanoseconds.
const FEW_MAX: usize = 32;

const _: () = assert!(size_of::<Members>() == 16);
