//! A size in bytes, written `"64KiB"`.

use std::fmt;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// A number of bytes below 4 GiB; in the file `"64KiB"`, `"1MB"` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "ByteSize", into = "String")]
pub struct Size(u32);

impl Size {
    /// `n` times 1024 bytes; `n` is a constant below 4,194,304.
    pub const fn kib(n: u32) -> Self {
        Self(n * 1024)
    }

    /// In bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// In bytes, for lengths and indices.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<ByteSize> for Size {
    type Error = String;

    fn try_from(size: ByteSize) -> Result<Self, String> {
        u32::try_from(size.as_u64())
            .map(Self)
            .map_err(|_| format!("{size} is more than a size may be (4 GiB)"))
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    /// In the largest unit that is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let exact = |unit: &&(u32, &str)| self.0 != 0 && self.0.is_multiple_of(unit.0);
        let (bytes, name) = UNITS.iter().find(exact).unwrap_or(&(1, "B"));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Holder {
        size: Size,
    }

    #[test]
    fn sizes_are_read_with_units_and_written_exactly() {
        for (text, bytes, written) in [
            ("\"64KiB\"", 65_536, "64KiB"),
            ("\"64 KiB\"", 65_536, "64KiB"),
            ("\"1MB\"", 1_000_000, "1000000B"),
            ("1500", 1_500, "1500B"),
            ("\"3MiB\"", 3 << 20, "3MiB"),
            ("0", 0, "0B"),
        ] {
            let holder: Holder = toml::from_str(&format!("size = {text}")).unwrap();
            assert_eq!(holder.size.bytes(), bytes, "{text}");
            assert_eq!(holder.size.to_string(), written);
            let again: Holder = toml::from_str(&toml::to_string(&holder).unwrap()).unwrap();
            assert_eq!(again, holder);
        }
    }

    #[test]
    fn sizes_out_of_range_or_without_sense_are_refused() {
        for text in ["\"4GiB\"", "-1", "\"many\"", "true"] {
            assert!(
                toml::from_str::<Holder>(&format!("size = {text}")).is_err(),
                "{text}"
            );
        }
    }
}
