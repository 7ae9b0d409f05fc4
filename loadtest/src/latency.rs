//! Latencies: one histogram per thread, merged when the threads are done.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::iterators::IterationValue;
use serde::{Deserialize, Serialize};

use crate::report::Figure;
use crate::series::with_digits;

/// A histogram of nanoseconds, three significant digits, from 1 µs to two minutes. It is 100 KiB large, so an empty one
/// has none: every thread has several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency(Option<Box<Histogram<u64>>>);

/// A latency by percentiles: many where it is steep, that is towards 100.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    /// How many were recorded.
    pub(crate) count: u64,
    /// As in figures.
    pub(crate) unit: String,
    /// Percentile, and the latency that so many in a hundred did not exceed.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 120_000_000_000;

/// Percentiles kept on each half of the way that is left to 100.
const STEPS_PER_HALF: u32 = 5;

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
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Adds one; longer than two minutes counts as two minutes.
    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(HIGHEST_NS);
        self.histogram().saturating_record(ns.min(HIGHEST_NS));
    }

    /// Takes in another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        if let Some(more) = &other.0 {
            let merged = self.histogram().add(&**more);
            debug_assert!(merged.is_ok(), "all histograms have the same bounds");
        }
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The value at a quantile between 0 and 1.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let histogram = self.0.as_ref();
        let time = histogram.map(|h| time(h, h.value_at_quantile(quantile)));
        time.unwrap_or_default()
    }

    /// Within what time so many of `all` were done; `None` if fewer were.
    pub(crate) fn share_done(&self, share: f64, all: u64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵³")]
        let (all, count) = (all as f64, self.count() as f64);
        let wanted = (share * all).ceil();
        (0.0 < wanted && wanted <= count).then(|| self.quantile(wanted / count))
    }

    /// All percentiles in detail; `None` when nothing was recorded.
    pub(crate) fn distribution(&self) -> Option<Distribution> {
        let histogram = self.0.as_ref()?;
        let steps = histogram.iter_quantiles(STEPS_PER_HALF);
        let percentile = |step: IterationValue<u64>| {
            let latency = time(histogram, step.value_iterated_to());
            (
                step.quantile_iterated_to() * 100.0,
                with_digits(latency.as_secs_f64() * 1e6),
            )
        };
        (self.count() > 0).then(|| Distribution {
            count: self.count(),
            unit: "µs".to_owned(),
            percentiles: steps.map(percentile).collect(),
        })
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

    fn histogram(&mut self) -> &mut Histogram<u64> {
        self.0.get_or_insert_with(|| {
            #[expect(clippy::expect_used, reason = "constant bounds")]
            let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3)
                .expect("the bounds are in order");
            Box::new(histogram)
        })
    }
}

/// A histogram says the longest that it cannot tell from what was recorded; what it cannot tell from nothing is nothing.
fn time(histogram: &Histogram<u64>, ns: u64) -> Duration {
    let is_nothing = histogram.lowest_equivalent(ns) == 0;
    Duration::from_nanos(if is_nothing { 0 } else { ns })
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
    fn a_share_of_all_is_done_when_that_many_are() {
        let mut latency = Latency::new();
        (1..=90).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let ms = |share| latency.share_done(share, 100).map(|time| time.as_millis());
        assert_eq!(
            [0.5, 0.9, 0.91, 1.0].map(ms),
            [Some(50), Some(90), None, None]
        );
        assert_eq!(Latency::new().share_done(0.5, 0), None);
    }

    #[test]
    fn a_distribution_rises_to_the_maximum() {
        let mut latency = Latency::new();
        (1..=2_000).for_each(|us| latency.record(Duration::from_micros(us)));
        let distribution = latency.distribution().unwrap();
        let steps = &distribution.percentiles;
        assert!(steps.is_sorted() && steps.len() > 20, "{steps:?}");
        let (percentile, us) = *steps.last().unwrap();
        assert_eq!((distribution.count, percentile), (2_000, 100.0));
        assert!((1_999.0..2_003.0).contains(&us), "{us}");
    }

    #[test]
    fn what_takes_no_time_is_shown_to_take_none() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        assert_eq!(latency.quantile(1.0), Duration::ZERO);
        let steps = latency.distribution().unwrap().percentiles;
        assert!(steps.iter().all(|(_, us)| *us == 0.0), "{steps:?}");
    }

    #[test]
    fn nothing_recorded_shows_nothing_and_an_age_counts_as_two_minutes() {
        let mut latency = Latency::new();
        assert!(latency.figures("x").is_empty() && latency.distribution().is_none());
        latency.record(Duration::from_secs(3600));
        assert!(latency.quantile(1.0) < Duration::from_secs(121));
    }
}
