//! Latencies over time: a few quantiles for each window of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::series::Series;

/// The latencies of each window, by when messages were meant to leave.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    /// Its length: what was asked for, or twice that, or four times.
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
/// With so many windows every two become one: a day is as large as an hour.
const WINDOWS_MAX: usize = 1_200;

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
        let us = latency.as_micros().try_into().unwrap_or(u32::MAX);
        window.or_default().record(us);
        self.thin();
    }

    /// Takes in another one, of which the same was asked.
    pub(crate) fn merge(&mut self, mut other: Self) {
        while self.window < other.window {
            self.pair_up();
        }
        while other.window < self.window {
            other.pair_up();
        }
        for (place, more) in other.windows {
            self.windows.entry(place).or_default().take_in(more);
        }
        self.thin();
    }

    fn thin(&mut self) {
        while self.windows.len() > WINDOWS_MAX {
            self.pair_up();
        }
    }

    /// Makes one window of two.
    fn pair_up(&mut self) {
        self.window *= 2;
        for (place, more) in std::mem::take(&mut self.windows) {
            self.windows.entry(place / 2).or_default().take_in(more);
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
    fn record(&mut self, us: u32) {
        self.max = self.max.max(us);
        if self.samples.len() < WINDOW_SAMPLES_MAX {
            self.samples.push(us);
        }
    }

    /// Takes in another one; of too many samples every other one stays.
    fn take_in(&mut self, other: Self) {
        self.max = self.max.max(other.max);
        self.samples.extend(other.samples);
        if self.samples.len() > WINDOW_SAMPLES_MAX {
            self.samples = self.samples.iter().copied().step_by(2).collect();
        }
    }

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

    #[test]
    fn a_day_is_kept_in_as_few_windows_as_an_hour_whichever_thread_was_there_how_long() {
        let s = Duration::from_secs;
        let mut day = Timeline::new(s(1));
        (0..86_400).for_each(|n| day.record(s(n), Duration::from_micros(n)));
        let mut minute = Timeline::new(s(1));
        (0..60).for_each(|n| minute.record(s(n), Duration::from_micros(100_000 + n)));
        let mut other = minute.clone();
        other.merge(day.clone());
        day.merge(minute);
        let series = day.series("x");
        assert_eq!(series, other.series("x"), "whoever comes first");
        let points = &series[2].1.points;
        assert!((WINDOWS_MAX / 2..=WINDOWS_MAX).contains(&points.len()));
        assert_eq!(points[0], (0.0, 100_059.0), "the longest is kept");
        assert_eq!(points.last().unwrap().1, 86_399.0);
    }
}
