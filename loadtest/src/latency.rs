//! Latencies: one histogram per thread, merged when the threads are done.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::Figure;

/// A histogram of nanoseconds, three significant digits, from 1 µs to two minutes.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 120_000_000_000;

/// The quantiles every latency is shown with.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

impl Latency {
    /// An empty one.
    pub(crate) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "constant bounds")]
        let histogram =
            Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("the bounds are in order");
        Self(histogram)
    }

    /// Adds one; longer than two minutes counts as two minutes.
    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(HIGHEST_NS);
        self.0.saturating_record(ns.min(HIGHEST_NS));
    }

    /// Takes in another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        let merged = self.0.add(&other.0);
        debug_assert!(merged.is_ok(), "all histograms have the same bounds");
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value at a quantile between 0 and 1.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// A figure for each usual quantile, in microseconds; none when nothing was recorded.
    pub(crate) fn figures(&self, key: &str) -> Vec<Figure> {
        let shown = QUANTILES.iter().filter(|_| self.count() > 0);
        shown
            .map(|(name, q)| {
                Figure::new(
                    format!("{key}.{name}"),
                    self.quantile(*q).as_secs_f64() * 1e6,
                    "µs",
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_all_merged_threads() {
        let mut all = Latency::new();
        for part in 0..2 {
            let mut latency = Latency::new();
            (1..=500).for_each(|ms| latency.record(Duration::from_millis(part * 500 + ms)));
            all.merge(&latency);
        }
        assert_eq!(all.count(), 1000);
        let median = all.quantile(0.5).as_secs_f64();
        assert!((0.499..0.502).contains(&median), "{median}");
    }

    #[test]
    fn nothing_recorded_shows_nothing_and_an_age_counts_as_two_minutes() {
        let mut latency = Latency::new();
        assert!(latency.figures("x").is_empty());
        latency.record(Duration::from_secs(3600));
        assert!(latency.quantile(1.0) < Duration::from_secs(121));
    }
}
