//! What becomes of a figure when runs are merged.

use std::collections::BTreeMap;

use crate::latency::{Latency, QUANTILES};
use crate::report::Figure;

/// What becomes of a figure. Counts and rates of the generators' own lines and messages are added, and percentiles
/// computed from the merged histograms; all else is about the one server or a machine, or is no sum, and left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule<'a> {
    /// It is the sum.
    Add,
    /// It is a percentile of this latency.
    Percentiles(&'a str),
    /// It says how soon lines were back that are counted below this word.
    Back(&'a str),
    /// It stands in the records that are merged.
    LeaveOut,
}

/// How words begin that say that a count or a rate is no sum: the server's own, a bare loop's, the greatest of its kind, the
/// rate of a rung, a part of the run.
const NOT_ADDED: [&str; 6] = [
    "server",
    "baseline",
    "attempts_max",
    "knee",
    "broke_at",
    "cycles",
];
/// What follows is a server's word.
const QUOTES: [&str; 2] = ["setbacks.", ".status."];

impl<'a> Rule<'a> {
    /// What becomes of a figure where these latencies are known.
    pub(super) fn of(figure: &'a Figure, latencies: &BTreeMap<String, Latency>) -> Self {
        if let Some(name) = latency_of(figure) {
            return Self::Percentiles(name);
        }
        if let Some(word) = back_of(figure)
            && latencies.contains_key(&back_latency(word))
        {
            return Self::Back(word);
        }
        let is_amount = ["", "/s"].contains(&figure.unit.as_str());
        let quoted = QUOTES.iter().find_map(|quote| figure.key.split_once(quote));
        let own = quoted.map_or(&*figure.key, |(own, _)| own);
        let is_no_sum = |word: &str| NOT_ADDED.iter().any(|start| word.starts_with(start));
        if is_amount && !own.split('.').any(is_no_sum) {
            Self::Add
        } else {
            Self::LeaveOut
        }
    }
}

/// Of which latency a figure is a percentile.
pub(super) fn latency_of(figure: &Figure) -> Option<&str> {
    let key = (figure.unit == "µs").then_some(&figure.key)?;
    QUANTILES
        .iter()
        .find_map(|(name, _)| key.strip_suffix(name)?.strip_suffix('.'))
}

/// The latency from a cut until lines were back.
pub(super) fn back_latency(word: &str) -> String {
    format!("{word}.back")
}

fn back_of(figure: &Figure) -> Option<&str> {
    let (word, name) = figure.key.rsplit_once('.')?;
    (name == "return_rate" || name.starts_with("back_")).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule<'a>(figure: &'a Figure, known: &[&str]) -> Rule<'a> {
        let known = known.iter().map(|name| (name.to_string(), Latency::new()));
        Rule::of(figure, &known.collect())
    }

    #[test]
    fn lines_messages_and_their_rates_are_added() {
        for (key, unit) in [
            ("lines.opened", ""),
            ("ramp.rate", "/s"),
            ("push.status.200", ""),
            ("canary.lost", ""),
            ("busy.push.messages.received", ""),
            ("churn.return_rate", "/s"),
            ("setbacks.closed with 4000 server.drain", ""),
            ("busy.d2d.status.server_busy", ""),
        ] {
            assert_eq!(rule(&Figure::new(key, 1.0, unit), &[]), Rule::Add, "{key}");
        }
    }

    #[test]
    fn percentiles_and_comebacks_are_computed_again() {
        let p999 = Figure::new("canary.storm.p99.9", 1.0, "µs");
        assert_eq!(rule(&p999, &[]), Rule::Percentiles("canary.storm"));
        for (key, unit) in [("a.storm.back_99", "s"), ("a.storm.return_rate", "/s")] {
            let figure = Figure::new(key, 1.0, unit);
            assert_eq!(rule(&figure, &["a.storm.back"]), Rule::Back("a.storm"));
        }
    }

    #[test]
    fn what_is_the_servers_or_a_machines_or_no_sum_is_left_out() {
        for (key, unit) in [
            ("server.rss", "B"),
            ("server.cpu_per_message", "µs"),
            ("broadcast.server_written", ""),
            ("calm.idle.kernel.tcp_queues", "B"),
            ("baseline.rate", "/s"),
            ("push.generator_cpu", "cores"),
            ("ramp.time", "s"),
            ("storm.attempts_per_line", "tries"),
            ("storm.attempts_max", ""),
            ("connect.knee", "/s"),
            ("connect.broke_at", "/s"),
            ("soak.cycles", ""),
            ("storm.back_100", "s"),
        ] {
            let figure = Figure::new(key, 1.0, unit);
            assert_eq!(rule(&figure, &[]), Rule::LeaveOut, "{key}");
        }
    }
}
