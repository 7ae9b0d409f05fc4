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
        self.points.push((at_s, value));
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
