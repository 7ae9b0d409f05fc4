//! JSON that is small and that people can still read: a line for each figure and each curve, and no digits that say
//! nothing.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

/// Whatever is in a value of the top level, and in that one's values, begins a line.
const LINES_DEPTH: usize = 2;
/// Below this whole numbers are exact, and are written as such.
const WHOLE_MAX: f64 = 9e15;

/// Breaks lines down to a depth.
#[derive(Debug, Default)]
struct Shallow {
    depth: usize,
}

/// A value as JSON, with a line for each value of its values.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(
        &mut text,
        Shallow::default(),
    ))?;
    text.push(b'\n');
    Ok(text)
}

impl Shallow {
    fn open<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        out.write_all(bracket)
    }

    fn close<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        self.begin_line(out, self.depth < LINES_DEPTH)?;
        out.write_all(bracket)
    }

    fn separate<W: io::Write + ?Sized>(&self, out: &mut W, is_first: bool) -> io::Result<()> {
        out.write_all(if is_first { b"" } else { b"," })?;
        self.begin_line(out, self.depth <= LINES_DEPTH)
    }

    fn begin_line<W: io::Write + ?Sized>(&self, out: &mut W, is_due: bool) -> io::Result<()> {
        if !is_due {
            return Ok(());
        }
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b" "))
    }
}

impl Formatter for Shallow {
    fn write_f64<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
            write!(out, "{value:.0}")
        } else {
            CompactFormatter.write_f64(out, value)
        }
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.separate(out, is_first)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.separate(out, is_first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_figure_and_each_curve_has_a_line() {
        let value = json!({
            "faults": [],
            "figures": [{"key": "a", "value": 19_000.0}, {"key": "b", "value": 1.5}],
            "series": {"lines.open": {"points": [[0.1, 2.0], [0.2, -3.0]]}},
        });
        let text = String::from_utf8(json(&value).unwrap()).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "{",
                "\"faults\": [",
                "],",
                "\"figures\": [",
                "{\"key\": \"a\",\"value\": 19000},",
                "{\"key\": \"b\",\"value\": 1.5}",
                "],",
                "\"series\": {",
                "\"lines.open\": {\"points\": [[0.1,2],[0.2,-3]]}",
                "}",
                "}",
            ]
        );
    }

    #[test]
    fn numbers_read_back_as_they_were() {
        let numbers = [0.0, -0.0, 1e-9, 0.1 + 0.2, 19_000.0, 9e15, 1e300, f64::MIN];
        let text = json(&numbers).unwrap();
        assert_eq!(serde_json::from_slice::<[f64; 8]>(&text).unwrap(), numbers);
        let nothing = json(&[f64::NAN]).unwrap();
        assert_eq!(
            serde_json::from_slice::<[Value; 1]>(&nothing).unwrap(),
            [Value::Null]
        );
    }
}
