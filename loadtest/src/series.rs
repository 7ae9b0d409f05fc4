//! Curves: numbers over the time of a run.

use serde::{Deserialize, Serialize};

/// One curve of `record.json`: `{"unit": "/s", "points": [[0.1, 3.0], …]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// As in a figure.
    pub(crate) unit: String,
    /// Seconds since the start of the run, and the number then.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Digits of a number that a curve shows; whole numbers keep theirs, and no number has more decimals than that.
const DIGITS: i32 = 5;
const DECIMALS_MAX: i32 = 12;
/// Decimals of a time: milliseconds.
const TIME_DECIMALS: i32 = 3;

impl Series {
    /// An empty one.
    pub(crate) fn new(unit: &str) -> Self {
        Self {
            unit: unit.to_owned(),
            points: Vec::new(),
        }
    }

    /// Adds a point.
    pub(crate) fn push(&mut self, at_s: f64, value: f64) {
        self.points
            .push((with_decimals(at_s, TIME_DECIMALS), with_digits(value)));
    }

    /// The same later in a longer run.
    pub(crate) fn after(&self, seconds: f64) -> Self {
        let mut later = Self::new(&self.unit);
        for (at_s, value) in &self.points {
            later.push(at_s + seconds, *value);
        }
        later
    }

    /// The same without what lies between two points of one value: the line that is drawn through it is the same.
    pub(crate) fn without_runs(mut self) -> Self {
        let mut kept: Vec<(f64, f64)> = Vec::new();
        for point in self.points {
            if let [.., (_, before), last] = &mut kept[..]
                && *before == point.1
                && last.1 == point.1
            {
                *last = point;
            } else {
                kept.push(point);
            }
        }
        self.points = kept;
        self
    }

    /// One with these points.
    #[cfg(test)]
    pub(crate) fn of(unit: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            unit: unit.to_owned(),
            points: points.into_iter().collect(),
        }
    }

    /// Whether there is nothing to see: no line, or one that never leaves zero.
    pub(crate) fn is_flat_zero(&self) -> bool {
        self.points.len() < 2 || self.points.iter().all(|(_, value)| *value == 0.0)
    }
}

/// A number as far as a curve, or a plot of latencies, shows it.
pub(crate) fn with_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an exponent")]
    let exponent = value.abs().log10().floor() as i32;
    with_decimals(value, (DIGITS - 1 - exponent).clamp(0, DECIMALS_MAX))
}

fn with_decimals(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_the_digits_that_can_be_seen() {
        let mut series = Series::new("/s");
        series.push(0.133_190_276, 14_902.670_027_497);
        series.push(0.233_591_764, 0.643_350_694_165);
        series.push(16.1, 931_246_080.0);
        series.push(17.0, 0.0);
        assert_eq!(
            series.points,
            [
                (0.133, 14_903.0),
                (0.234, 0.643_35),
                (16.1, 931_246_080.0),
                (17.0, 0.0)
            ]
        );
        assert_eq!(series.after(0.2).points[0], (0.333, 14_903.0));
        let odd = [f64::INFINITY, 1e-300, 1e300, -12.345_678];
        assert_eq!(odd.map(with_digits), [f64::INFINITY, 0.0, 1e300, -12.346]);
    }

    #[test]
    fn what_stays_needs_two_points() {
        let of = |values: &[f64]| {
            let points = (0_u8..).map(f64::from).zip(values.iter().copied());
            Series::of("", points).without_runs().points
        };
        let flat = of(&[0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 7.0]);
        assert_eq!(
            flat,
            [(0.0, 0.0), (2.0, 0.0), (3.0, 5.0), (6.0, 5.0), (7.0, 7.0)]
        );
        assert_eq!(of(&[1.0, 2.0, 1.0]).len(), 3);
        assert!(of(&[]).is_empty());
    }
}
