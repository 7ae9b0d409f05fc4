//! Everything that can be read at one moment, and the figures two moments give.

use std::io;
use std::time::Duration;

use crate::clock::Clock;
use crate::node::Node;
use crate::report::Figure;
use crate::sample::{KernelSample, ProcessSample};
use crate::swarm::catch::Catch;
use crate::swarm::tally::Total;

/// Counts of the lines, and what the kernel says about server, generator and itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) at: Duration,
    pub(crate) total: Total,
    pub(crate) server: Option<ProcessSample>,
    pub(crate) generator: ProcessSample,
    pub(crate) kernel: KernelSample,
}

impl Reading {
    /// Reads everything now.
    pub(crate) fn take(node: &Node, total: Total, clock: Clock) -> io::Result<Self> {
        Ok(Self {
            at: clock.now(),
            total,
            server: node.sample(),
            generator: ProcessSample::read_own()?,
            kernel: KernelSample::read()?,
        })
    }

    /// Seconds from another reading to this one.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }

    /// CPU time the server used since, in microseconds; `None` when its process is unknown.
    pub(crate) fn server_cpu_us_since(&self, earlier: &Self) -> Option<f64> {
        Some((self.server? - earlier.server?).cpu.as_secs_f64() * 1e6)
    }

    /// Cores the generator used since.
    pub(crate) fn generator_cores_since(&self, earlier: &Self) -> f64 {
        (self.generator - earlier.generator).cpu.as_secs_f64() / self.seconds_since(earlier)
    }
}

/// What a ramp cost and how fast it was.
pub(crate) fn ramp_figures(before: &Reading, after: &Reading, catch: &Catch) -> Vec<Figure> {
    let total = &after.total;
    let seconds = after.seconds_since(before);
    let mut figures = vec![
        Figure::new("lines.opened", count(total.opened), ""),
        Figure::new("lines.failed", count(total.failed), ""),
        Figure::new("ramp.time", seconds, "s"),
        Figure::new("ramp.rate", count(total.opened) / seconds, "/s"),
    ];
    figures.extend(catch.opening.figures("ramp.open"));
    let per_line = after
        .server_cpu_us_since(before)
        .map(|us| us / count(total.opened.max(1)));
    figures.extend(per_line.map(|us| Figure::new("server.cpu_per_new_line", us, "µs")));
    figures.push(Figure::new(
        "ramp.generator_cpu",
        after.generator_cores_since(before),
        "cores",
    ));
    figures.push(Figure::new("ramp.late_starts", count(total.late), ""));
    figures
}

/// What the open lines take, compared with the moment before the first.
pub(crate) fn memory_figures(before: &Reading, after: &Reading) -> Vec<Figure> {
    let lines = count(after.total.open().max(1));
    let per_line = |bytes: u64| count(bytes) / lines;
    let mut figures = Vec::new();
    if let (Some(first), Some(last)) = (before.server, after.server) {
        let grown = last - first;
        figures.extend([
            Figure::new("server.rss_before", count(first.rss), "B"),
            Figure::new("server.rss", count(last.rss), "B"),
            Figure::new("server.rss_peak", count(last.rss_peak), "B"),
            Figure::new("server.bytes_per_line", per_line(grown.rss), "B"),
            Figure::new("server.anon_bytes_per_line", per_line(grown.rss_anon), "B"),
        ]);
    }
    let slab = after.kernel.slab.saturating_sub(before.kernel.slab);
    figures.extend([
        Figure::new("kernel.slab_per_line_all_ends", per_line(slab), "B"),
        Figure::new("kernel.tcp_queues", count(after.kernel.tcp), "B"),
        Figure::new(
            "generator.bytes_per_line",
            per_line((after.generator - before.generator).rss),
            "B",
        ),
    ]);
    figures
}

/// Counts are far below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵³")]
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}

/// One line of live numbers; rates are those since `last`.
pub(crate) fn live_text(last: &Reading, now: &Reading) -> String {
    let seconds = now.seconds_since(last).max(0.001);
    let rate = |new: u64, old: u64| count(new.saturating_sub(old)) / seconds;
    let total = &now.total;
    let mut text = format!(
        "{} open, {} failed, {:.0} lines/s, {:.0} pings/s, {:.0} messages/s",
        total.open(),
        total.failed + total.lost,
        rate(total.opened, last.total.opened),
        rate(total.pings, last.total.pings),
        rate(total.messages, last.total.messages),
    );
    if let (Some(server), Some(cpu_us)) = (now.server, now.server_cpu_us_since(last)) {
        let memory = bytesize::ByteSize(server.rss).display().iec();
        text += &format!(", server {memory}, {:.2} cores", cpu_us / 1e6 / seconds);
    }
    text
}
