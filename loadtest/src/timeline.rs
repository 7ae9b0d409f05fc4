//! Latencies over time: a few quantiles for each window of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::series::Series;

/// The latencies of each window, by when messages were meant to leave.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    window: Duration,
    windows: BTreeMap<u32, Window>,
}

#[derive(Clone, Debug, Default)]
struct Window {
    /// Microseconds, the first [`WINDOW_SAMPLES_MAX`] of them.
    samples: Vec<u32>,
    max: u32,
}

/// Beyond so many a window only keeps the longest: quantiles are known well enough by then.
const WINDOW_SAMPLES_MAX: usize = 4_096;

impl Timeline {
    /// An empty one, in windows of this length.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window: window.max(Duration::from_millis(1)),
            windows: BTreeMap::new(),
        }
    }

    /// Adds the latency of a message that was meant to leave then.
    pub(crate) fn record(&mut self, intended: Duration, latency: Duration) {
        let place = intended.as_millis() / self.window.as_millis();
        let window = self.windows.entry(place.try_into().unwrap_or(u32::MAX));
        let window = window.or_default();
        let us = latency.as_micros().try_into().unwrap_or(u32::MAX);
        window.max = window.max.max(us);
        if window.samples.len() < WINDOW_SAMPLES_MAX {
            window.samples.push(us);
        }
    }

    /// Takes in another one with windows of the same length.
    pub(crate) fn merge(&mut self, other: Self) {
        for (place, more) in other.windows {
            let window = self.windows.entry(place).or_default();
            window.max = window.max.max(more.max);
            let room = WINDOW_SAMPLES_MAX.saturating_sub(window.samples.len());
            window.samples.extend(more.samples.iter().take(room));
        }
    }

    /// `key.p50`, `key.p99` and `key.max` of every window in which something was sent, in microseconds.
    pub(crate) fn series(mut self, key: &str) -> Vec<(String, Series)> {
        let mut all =
            ["p50", "p99", "max"].map(|name| (format!("{key}.{name}"), Series::new("µs")));
        for (place, window) in &mut self.windows {
            window.samples.sort_unstable();
            let at = (self.window * *place).as_secs_f64();
            let values = [window.quantile(50), window.quantile(99), window.max];
            for ((_, series), us) in all.iter_mut().zip(values) {
                series.push(at, f64::from(us));
            }
        }
        all.into()
    }
}

impl Window {
    /// Of sorted samples.
    fn quantile(&self, percent: usize) -> u32 {
        let rank = (self.samples.len() * percent).div_ceil(100).max(1);
        self.samples.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_its_own_quantiles_from_all_threads() {
        let ms = Duration::from_millis;
        let mut all = Timeline::new(ms(100));
        for part in 0..2 {
            let mut timeline = Timeline::new(ms(100));
            (1..=50).for_each(|n| timeline.record(ms(110), ms(part * 50 + n)));
            timeline.record(ms(350), ms(7));
            all.merge(timeline);
        }
        let series = all.series("canary");
        let points = |n: usize| (series[n].0.as_str(), &series[n].1.points[..]);
        assert_eq!(
            points(0),
            ("canary.p50", &[(0.1, 50_000.0), (0.3, 7_000.0)][..])
        );
        assert_eq!(
            points(1),
            ("canary.p99", &[(0.1, 99_000.0), (0.3, 7_000.0)][..])
        );
        assert_eq!(
            points(2),
            ("canary.max", &[(0.1, 100_000.0), (0.3, 7_000.0)][..])
        );
    }

    #[test]
    fn a_full_window_still_knows_the_longest() {
        let mut timeline = Timeline::new(Duration::from_secs(1));
        (0..=WINDOW_SAMPLES_MAX)
            .for_each(|_| timeline.record(Duration::ZERO, Duration::from_micros(3)));
        timeline.record(Duration::ZERO, Duration::from_secs(9));
        let series = timeline.series("x");
        assert_eq!(series[1].1.points, [(0.0, 3.0)]);
        assert_eq!(series[2].1.points, [(0.0, 9e6)]);
    }
}
