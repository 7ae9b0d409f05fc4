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
    }

    /// All curves.
    pub(super) fn finish(self) -> BTreeMap<String, Series> {
        self.series
    }

    fn push(&mut self, name: &str, unit: &str, at_s: f64, value: f64) {
        let series = self.series.entry(name.to_owned());
        series
            .or_insert_with(|| Series::new(unit))
            .push(at_s, value);
    }
}
