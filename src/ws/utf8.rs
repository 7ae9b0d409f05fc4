//! UTF-8 that arrives in pieces, refused at the first byte that nothing could make valid.

use std::str;

/// Validates text piece by piece. Holds at most the three bytes of an unfinished character.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Stream {
    pending: [u8; 3],
    pending_bytes: u8,
}

/// The bytes cannot be the beginning of valid UTF-8, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl Utf8Stream {
    /// Takes the next piece of the text.
    ///
    /// # Errors
    ///
    /// [`InvalidUtf8`] as soon as a byte cannot be completed; the stream is then of no further use.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.finish_pending(piece)?;
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.keep(&rest[error.valid_up_to()..]);
                Ok(())
            }
            Err(_) => Err(InvalidUtf8),
        }
    }

    /// Whether the text may end here: no character is unfinished.
    pub fn is_complete(&self) -> bool {
        self.pending_bytes == 0
    }

    /// Completes the pending character from the front of `piece` and returns what lies behind it.
    fn finish_pending<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        while !self.is_complete() {
            let Some((&byte, rest)) = piece.split_first() else {
                break;
            };
            self.push(byte)?;
            piece = rest;
        }
        Ok(piece)
    }

    /// Adds one byte to the pending character.
    fn push(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let held = usize::from(self.pending_bytes);
        let mut character = [0; 4];
        character[..held].copy_from_slice(&self.pending[..held]);
        character[held] = byte;
        match str::from_utf8(&character[..=held]) {
            Ok(_) => self.pending_bytes = 0,
            Err(error) if error.error_len().is_none() => self.keep(&character[..=held]),
            Err(_) => return Err(InvalidUtf8),
        }
        Ok(())
    }

    /// Remembers the bytes of an unfinished character, of which there are one to three.
    fn keep(&mut self, bytes: &[u8]) {
        self.pending_bytes = 0;
        for (slot, &byte) in self.pending.iter_mut().zip(bytes) {
            *slot = byte;
            self.pending_bytes += 1;
        }
    }
}

const _: () = assert!(size_of::<Utf8Stream>() <= 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// Index of the byte at which a bytewise feed fails.
    fn fails_at(bytes: &[u8]) -> Option<usize> {
        let mut stream = Utf8Stream::default();
        bytes.iter().position(|&b| stream.feed(&[b]).is_err())
    }

    fn feed_in_two(bytes: &[u8], at: usize) -> Result<bool, InvalidUtf8> {
        let mut stream = Utf8Stream::default();
        stream.feed(&bytes[..at])?;
        stream.feed(&bytes[at..])?;
        Ok(stream.is_complete())
    }

    #[test]
    fn the_first_impossible_byte_fails() {
        let table: [(&[u8], Option<usize>); 12] = [
            ("κόσμε 𐍈 \u{10ffff}".as_bytes(), None),
            (
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80",
                Some(12),
            ),
            (b"\xc0\xaf", Some(0)),
            (b"\xc1\xbf", Some(0)),
            (b"\xe0\x80\xaf", Some(1)),
            (b"\xed\xa0\x80", Some(1)),
            (b"\xf0\x80\x80\xaf", Some(1)),
            (b"\xf5", Some(0)),
            (b"\xff", Some(0)),
            (b"\x80", Some(0)),
            (b"a\xe2\x82a", Some(3)),
            (b"\xf0\x9f\x98\xff", Some(3)),
        ];
        for (bytes, expected) in table {
            assert_eq!(fails_at(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn every_cut_of_every_character_is_accepted() {
        let text = "aé€😀".repeat(20);
        for at in 0..text.len() {
            assert_eq!(feed_in_two(text.as_bytes(), at), Ok(true), "cut at {at}");
        }
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_not_complete() {
        for bytes in ["é", "€", "😀"].map(str::as_bytes) {
            for end in 1..bytes.len() {
                assert_eq!(
                    feed_in_two(&bytes[..end], 0),
                    Ok(false),
                    "{bytes:x?} to {end}"
                );
            }
        }
    }
}
