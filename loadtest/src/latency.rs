//! Latencies: one histogram per thread, merged when the threads are done.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::iterators::IterationValue;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::report::Figure;
use crate::series::with_digits;

/// A histogram of nanoseconds, three significant digits, from 1 µs to two minutes. It is 100 KiB large, so an empty one
/// has none: every thread has several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency(Option<Box<Histogram<u64>>>);

/// A latency as a record keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    /// How many were recorded.
    pub(crate) count: u64,
    /// As in figures.
    pub(crate) unit: String,
    /// Percentile, and the latency that so many in a hundred did not exceed: many where it is steep, that is towards 100.
    /// Empty if no plot shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) percentiles: Vec<(f64, f64)>,
    /// All of it, in nanoseconds: HdrHistogram's V2 compressed form in base64. Earlier records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) histogram: Option<String>,
}

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 120_000_000_000;
const DIGITS: u8 = 3;

/// Percentiles kept on each half of the way that is left to 100.
const STEPS_PER_HALF: u32 = 5;

/// The quantiles every latency is shown with.
pub(crate) const QUANTILES: [(&str, f64); 5] = [
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

    /// The histogram and all percentiles in detail; `None` when nothing was recorded.
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
        Some(Distribution {
            percentiles: steps.map(percentile).collect(),
            ..self.unplotted()?
        })
    }

    /// The histogram alone.
    pub(crate) fn unplotted(&self) -> Option<Distribution> {
        (self.count() > 0).then(|| Distribution {
            count: self.count(),
            unit: "µs".to_owned(),
            percentiles: Vec::new(),
            histogram: self.encode(),
        })
    }

    /// What [`Distribution::histogram`] holds.
    pub(crate) fn decode(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &*bytes)
            .map_err(|error| error.to_string())?;
        let bounds = (histogram.low(), histogram.high(), histogram.sigfig());
        if bounds != (LOWEST_NS, HIGHEST_NS, DIGITS) {
            return Err("its bounds are others".to_owned());
        }
        Ok(Self(Some(Box::new(histogram))))
    }

    fn encode(&self) -> Option<String> {
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(self.0.as_deref()?, &mut bytes);
        debug_assert!(written.is_ok(), "a vector takes every byte: {written:?}");
        written.ok().map(|_| STANDARD.encode(bytes))
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
            let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)
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
    use rand::rngs::SmallRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn parts_that_were_kept_and_read_back_are_together_the_histogram_of_the_whole() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = SmallRng::seed_from_u64(seed);
        let mut whole = Latency::new();
        let mut parts = [const { Latency::new() }; 3];
        for _ in 0..20_000 {
            // As many of each magnitude, and some beyond both bounds.
            let ns = 10_f64.powf(random.random_range(2.0..12.0));
            let latency = Duration::from_secs_f64(ns / 1e9);
            whole.record(latency);
            parts[random.random_range(0..3)].record(latency);
        }
        let mut merged = Latency::new();
        for part in &parts {
            let kept = part.distribution().unwrap().histogram.unwrap();
            merged.merge(&Latency::decode(&kept).unwrap());
        }
        assert_eq!(merged.0, whole.0);
        assert_eq!(merged.distribution(), whole.distribution());
    }

    #[test]
    fn what_is_no_histogram_of_ours_is_refused() {
        let other = Histogram::new_with_max(1_000, 2).unwrap();
        let other = Latency(Some(Box::new(other))).encode().unwrap();
        for text in ["", "~", "AAAA", &other] {
            assert!(Latency::decode(text).is_err(), "{text}");
        }
    }

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
