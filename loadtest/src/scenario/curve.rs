//! The curves of a run: what the readings say over time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scenario::reading::{Reading, count};
use crate::series::Series;

/// Curves in the making.
#[derive(Debug)]
pub(super) struct Curves {
    interval: Duration,
    last: Reading,
    series: BTreeMap<String, Series>,
}

/// With so many points every two become one, and half as many are added from then on: a day is as large as an hour.
const POINTS_MAX: usize = 1_200;

impl Curves {
    /// No points yet; then one each interval.
    pub(super) fn new(interval: Duration, first: Reading) -> Self {
        Self {
            interval,
            last: first,
            series: BTreeMap::new(),
        }
    }

    /// Adds a point to each curve if it is time. Rates are those since the last point.
    pub(super) fn note(&mut self, reading: &Reading) {
        if reading.at < self.last.at + self.interval {
            return;
        }
        let (last, total) = (self.last, &reading.total);
        let seconds = reading.seconds_since(&last);
        let rate = |new: u64, old: u64| count(new.saturating_sub(old)) / seconds;
        let old = &last.total;
        let counts = [
            ("lines.open", total.open(), ""),
            ("kernel.slab", reading.kernel.slab, "B"),
            ("kernel.tcp_queues", reading.kernel.tcp, "B"),
            ("generator.rss", reading.generator.rss, "B"),
        ];
        let rates = [
            (
                "lines.opened",
                total.opened + total.returned,
                old.opened + old.returned,
            ),
            (
                "lines.ended",
                total.ended + total.lost,
                old.ended + old.lost,
            ),
            ("lines.attempts", total.attempts, old.attempts),
            ("lines.refused", total.refused(), old.refused()),
            ("lines.unreached", total.unreached, old.unreached),
            ("lines.pings", total.pings, old.pings),
            ("lines.messages", total.messages, old.messages),
        ];
        let at = reading.at.as_secs_f64();
        for (name, value, unit) in counts {
            self.push(name, unit, at, count(value));
        }
        for (name, new, old) in rates {
            self.push(name, "/s", at, rate(new, old));
        }
        let generator = reading.generator_cores_since(&last);
        self.push("generator.cpu", "cores", at, generator);
        if let Some(server) = reading.server {
            self.push("server.rss", "B", at, count(server.rss));
        }
        if let Some(us) = reading.server_cpu_us_since(&last) {
            self.push("server.cpu", "cores", at, us / 1e6 / seconds);
        }
        self.last = *reading;
        let points = self.series.values().map(|series| series.points.len()).max();
        if points >= Some(POINTS_MAX) {
            self.series.values_mut().for_each(thin);
            self.interval *= 2;
        }
    }

    /// All curves.
    pub(super) fn finish(self) -> BTreeMap<String, Series> {
        let curves = self.series.into_iter();
        curves
            .map(|(name, curve)| (name, curve.without_runs()))
            .collect()
    }

    fn push(&mut self, name: &str, unit: &str, at_s: f64, value: f64) {
        let series = self.series.entry(name.to_owned());
        series
            .or_insert_with(|| Series::new(unit))
            .push(at_s, value);
    }
}

/// Makes one point of two. A rate is that of both together, a count the later one.
fn thin(series: &mut Series) {
    let is_rate = ["/s", "cores"].contains(&series.unit.as_str());
    let pairs = series.points.chunks(2).map(|pair| match pair {
        [(_, a), (at, b)] if is_rate => (*at, f64::midpoint(*a, *b)),
        [_, last] | [last] => *last,
        _ => (0.0, 0.0),
    });
    series.points = pairs.collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{KernelSample, ProcessSample};
    use crate::swarm::tally::Total;

    fn reading(ms: u64) -> Reading {
        Reading {
            at: Duration::from_millis(ms),
            total: Total {
                opened: ms / 100,
                pings: ms,
                ..Total::default()
            },
            server: None,
            generator: ProcessSample::default(),
            kernel: KernelSample::default(),
        }
    }

    #[test]
    fn a_curve_has_counts_and_rates() {
        let mut curves = Curves::new(Duration::from_millis(400), reading(0));
        for ms in [100, 500, 1_500] {
            curves.note(&reading(ms));
        }
        let series = curves.finish();
        assert_eq!(series["lines.open"].points, [(0.5, 5.0), (1.5, 15.0)]);
        assert_eq!(
            series["lines.pings"].points,
            [(0.5, 1_000.0), (1.5, 1_000.0)]
        );
        assert!(
            !series.contains_key("server.rss"),
            "its process is not known"
        );
    }

    #[test]
    fn a_day_is_kept_in_as_few_points_as_an_hour() {
        let mut curves = Curves::new(Duration::from_millis(250), reading(0));
        for tick in 1..86_400 * 4 {
            curves.note(&reading(tick * 250));
        }
        let series = curves.finish();
        let points = &series["lines.open"].points;
        assert!(
            (POINTS_MAX / 2 - 1..POINTS_MAX).contains(&points.len()),
            "{}",
            points.len()
        );
        assert!(
            points.is_sorted(),
            "counts are those of the time they stand at"
        );
        let rates = &series["lines.pings"].points;
        assert_eq!(rates.len(), 2, "what stays needs two points");
        assert!(rates.iter().all(|(_, rate)| *rate == 1_000.0));
    }
}
