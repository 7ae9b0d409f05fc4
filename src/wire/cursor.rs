//! Where a page of a list begins. Opaque to callers.

use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::id::ShardId;
use crate::base::place::Place;

/// A place in a list that is ordered by places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Place);

impl Cursor {
    const BYTES: usize = 6;

    /// Reads the text form; `None` when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let [a, b, slot @ ..] = <[u8; Self::BYTES]>::try_from(bytes).ok()?;
        let (shard, slot) = (u16::from_be_bytes([a, b]), u32::from_be_bytes(slot));
        let is_place = u32::from(shard) < Place::SHARDS_MAX && slot < Place::SLOTS_MAX;
        let shard = ShardId(shard);
        is_place.then_some(Self(Place { shard, slot }))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.0.shard.0.to_be_bytes();
        let [c, d, e, g] = self.0.slot.to_be_bytes();
        Base64Display::new(&[a, b, c, d, e, g], &URL_SAFE_NO_PAD).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_form() {
        let shard = ShardId(515);
        let cursor = Cursor(Place {
            shard,
            slot: 4_000_000,
        });
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        // The last two name places that no node has.
        for bad in [
            "",
            "AAAA",
            "AAAAAAAAAAAA",
            "not one!",
            "__8AAAAA",
            "AAD_____",
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
    }
}
