//! The record layer of TLS 1.3 (RFC 8446, section 5) with no more state than keys and counters.
//!
//! Only the keys themselves are kept, not what a cipher expands them to: that would be most of an idle line's memory,
//! and expanding them again for each record costs a fifth of a microsecond.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::AeadKey;

/// What one direction is protected with.
pub(super) struct RecordKeys {
    algorithm: &'static Algorithm,
    /// Overwrites itself when it is dropped.
    key: AeadKey,
    iv: [u8; 12],
    /// Records so far.
    sequence: u64,
}

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The application's bytes.
    Data,
    /// A message of the handshake.
    Handshake,
    /// An alert.
    Alert,
}

/// Why a record is not taken; the number is that of the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRecord(pub(super) u8);

impl RecordKeys {
    /// Takes secrets over from rustls; `None` for a suite that it has and we do not.
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        Some(Self {
            algorithm,
            key,
            iv: iv.as_ref().try_into().ok()?,
            sequence,
        })
    }

    /// Whether it is time for new keys: well before the limits of section 5.5.
    pub(super) fn are_worn(&self) -> bool {
        self.sequence >= RECORDS_PER_KEY_MAX
    }

    /// Appends one record with all of `plaintext`; `false`, and nothing appended, if that cannot be.
    pub(super) fn seal(&mut self, content: Content, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
        let (Some(cipher), Some(nonce)) = (self.cipher(), self.next_nonce()) else {
            return false;
        };
        let start = out.len();
        let length = plaintext.len() + 1 + TAG_BYTES;
        let Ok(length) = u16::try_from(length) else {
            return false;
        };
        let header = header(length);
        out.reserve_exact(HEADER_BYTES + usize::from(length));
        out.extend_from_slice(&header);
        out.extend_from_slice(plaintext);
        out.push(content.number());
        let body = &mut out[start + HEADER_BYTES..];
        match cipher.seal_in_place_separate_tag(nonce, Aad::from(header), body) {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                true
            }
            Err(_) => {
                out.truncate(start);
                false
            }
        }
    }

    /// Opens a whole record in its place: what it carries, and how many bytes behind its header.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Content, usize), BadRecord> {
        let Some((header, body)) = record.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(BadRecord(DECODE_ERROR));
        };
        let (Some(cipher), Some(nonce)) = (self.cipher(), self.next_nonce()) else {
            return Err(BadRecord(INTERNAL_ERROR));
        };
        let opened = cipher.open_in_place(nonce, Aad::from(*header), body);
        let opened = opened.map_err(|_| BadRecord(BAD_RECORD_MAC))?;
        // The type is the last byte that is not padding; a record of padding alone has none.
        let at = opened.iter().rposition(|&byte| byte != 0);
        let at = at.ok_or(BadRecord(UNEXPECTED_MESSAGE))?;
        if at > PLAINTEXT_BYTES_MAX {
            return Err(BadRecord(RECORD_OVERFLOW));
        }
        let content = Content::of(opened[at]).ok_or(BadRecord(UNEXPECTED_MESSAGE))?;
        Ok((content, at))
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(self.algorithm, self.key.as_ref()).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// The number of the record and the IV, each number once.
    fn next_nonce(&mut self) -> Option<Nonce> {
        let mut nonce = self.iv;
        let number = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(number).for_each(|(n, s)| *n ^= s);
        self.sequence = self.sequence.checked_add(1)?;
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

impl Content {
    fn number(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [Self::Alert, Self::Handshake, Self::Data];
        all.into_iter().find(|content| content.number() == number)
    }
}

/// The length of the record that begins with `bytes`, header included; `None` while the header is not whole.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, BadRecord> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    // Once hands are shaken everything is protected, and looks like data.
    if kind != Content::Data.number() {
        return Err(BadRecord(UNEXPECTED_MESSAGE));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > PLAINTEXT_BYTES_MAX + 256 {
        return Err(BadRecord(RECORD_OVERFLOW));
    }
    Ok(Some(HEADER_BYTES + length))
}

fn header(length: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = length.to_be_bytes();
    [Content::Data.number(), 3, 3, high, low]
}

/// Plaintext of one record.
pub(super) const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
pub(super) const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// RFC 8446 allows 2^24.5 with AES-GCM.
const RECORDS_PER_KEY_MAX: u64 = 1 << 22;

pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
pub(super) const DECODE_ERROR: u8 = 50;
pub(super) const INTERNAL_ERROR: u8 = 80;

impl std::fmt::Debug for RecordKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordKeys")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::Iv;

    use super::*;

    fn keys(algorithm: &str) -> RecordKeys {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
        let secrets = match algorithm {
            "aes" => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        };
        RecordKeys::new((0, secrets)).unwrap()
    }

    fn open(keys: &mut RecordKeys, mut record: Vec<u8>) -> Result<(Content, Vec<u8>), BadRecord> {
        assert_eq!(record_length(&record), Ok(Some(record.len())));
        let (content, length) = keys.open(&mut record)?;
        Ok((
            content,
            record[HEADER_BYTES..HEADER_BYTES + length].to_vec(),
        ))
    }

    #[test]
    fn what_was_sealed_is_opened_in_order_and_no_other_way() {
        for algorithm in ["aes", "chacha"] {
            let (mut near, mut far) = (keys(algorithm), keys(algorithm));
            let mut records = [Vec::new(), Vec::new(), Vec::new()];
            for (text, record) in [&b"one"[..], b"", b"three"].into_iter().zip(&mut records) {
                assert!(near.seal(Content::Data, text, record));
            }
            let [one, two, three] = records;
            assert_ne!(one[5..], two[5..]);
            assert_eq!(
                open(&mut far, one.clone()),
                Ok((Content::Data, b"one".to_vec()))
            );
            assert_eq!(open(&mut far, two), Ok((Content::Data, Vec::new())));
            let mut replayed = keys(algorithm);
            open(&mut replayed, one.clone()).unwrap();
            assert_eq!(open(&mut replayed, one), Err(BadRecord(BAD_RECORD_MAC)));
            assert_eq!(
                open(&mut replayed, three),
                Ok((Content::Data, b"three".to_vec()))
            );
        }
    }

    #[test]
    fn padding_is_taken_off_and_a_record_of_nothing_else_is_refused() {
        let (mut near, mut far) = (keys("aes"), keys("aes"));
        let mut padded = Vec::new();
        // The type that is appended counts as padding's end here: put one before it by hand.
        let mut inner = b"text".to_vec();
        inner.push(Content::Data.number());
        inner.extend([0; 100]);
        seal_raw(&mut near, &inner, &mut padded);
        assert_eq!(
            open(&mut far, padded),
            Ok((Content::Data, b"text".to_vec()))
        );
        for inner in [&[0; 40][..], b"", b"x\x14", b"x\x18"] {
            let mut record = Vec::new();
            seal_raw(&mut near, inner, &mut record);
            assert_eq!(open(&mut far, record), Err(BadRecord(UNEXPECTED_MESSAGE)));
        }
    }

    /// A record whose inside is exactly this.
    fn seal_raw(keys: &mut RecordKeys, inner: &[u8], out: &mut Vec<u8>) {
        let header = header(u16::try_from(inner.len() + TAG_BYTES).unwrap());
        let (cipher, nonce) = (keys.cipher().unwrap(), keys.next_nonce().unwrap());
        let mut body = inner.to_vec();
        cipher
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut body)
            .unwrap();
        out.extend_from_slice(&header);
        out.extend_from_slice(&body);
    }

    #[test]
    fn a_record_holds_16_kib_and_no_more() {
        let (mut near, mut far) = (keys("aes"), keys("aes"));
        let mut record = Vec::new();
        assert!(near.seal(Content::Data, &[1; PLAINTEXT_BYTES_MAX], &mut record));
        assert_eq!(open(&mut far, record).unwrap().1.len(), PLAINTEXT_BYTES_MAX);
        let mut record = Vec::new();
        assert!(near.seal(Content::Data, &[1; PLAINTEXT_BYTES_MAX + 1], &mut record));
        assert_eq!(open(&mut far, record), Err(BadRecord(RECORD_OVERFLOW)));
        assert_eq!(
            record_length(&[23, 3, 3, 0x41, 1]),
            Err(BadRecord(RECORD_OVERFLOW))
        );
        assert_eq!(
            record_length(&[22, 3, 3, 0, 1]),
            Err(BadRecord(UNEXPECTED_MESSAGE))
        );
        assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
    }

    #[test]
    fn any_bit_that_was_turned_is_noticed() {
        let (mut near, far) = (keys("chacha"), keys("chacha"));
        let mut record = Vec::new();
        near.seal(Content::Data, b"a message", &mut record);
        drop(far);
        for bit in 0..record.len() * 8 {
            let mut turned = record.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(keys("chacha").open(&mut turned).is_err(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(keys("chacha").open(&mut record.clone()[..length]).is_err());
        }
    }
}
