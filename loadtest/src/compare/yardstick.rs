//! What makes are compared by: figures of scenarios, under short names.

use crate::compare::CompareArg;
use crate::make::Make;
use crate::report::Record;
use crate::scenario::idle::heartbeat_settings;

/// A figure of a comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yardstick {
    /// Which trial it is from.
    pub(super) trial: &'static str,
    /// What a comparison calls it.
    pub(super) name: &'static str,
    /// What the scenario calls it, or what it is worked out of.
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Figure(&'static str),
    Share(&'static str, &'static str, &'static str),
}

/// Scenarios that every make can take part in, in the order they run; what comes after a dot is a way to run one.
pub(super) const TRIALS: [&str; 5] = ["idle", "push", "push.queued", "push.pipelined", "storm"];
/// Connections of a trial that pipelines, and unanswered messages on each.
const PIPELINED: (u32, u32) = (4, 16);

/// All of them, in the order they are shown.
pub(super) const YARDSTICKS: [Yardstick; 15] = [
    figure("idle", "bytes_per_line", "server.bytes_per_line"),
    figure("idle", "new_lines", "ramp.rate"),
    figure("idle", "cpu_per_ping", "server.cpu_per_heartbeat"),
    figure("push", "cpu_per_push", "server.cpu_per_message"),
    figure(
        "push.queued",
        "cpu_per_push_queued",
        "server.cpu_per_message",
    ),
    figure(
        "push.pipelined",
        "cpu_per_push_pipelined",
        "server.cpu_per_message",
    ),
    figure("storm", "storm_time", "storm.back_100"),
    figure("storm", "storm_rate", "storm.return_rate"),
    figure("push", "pushes", "push.rate"),
    figure("push.pipelined", "pushes_pipelined", "push.rate"),
    figure("push", "push_p50", "push.delivery.p50"),
    figure("push", "push_p99", "push.delivery.p99"),
    figure("idle", "cpu_per_new_line", "server.cpu_per_new_line"),
    figure("storm", "cpu_per_line_back", "server.cpu_per_line_back"),
    Yardstick {
        trial: "idle",
        name: "bytes_per_line_all",
        source: Source::Share("server.rss", "lines.opened", "B"),
    },
];

const fn figure(trial: &'static str, name: &'static str, key: &'static str) -> Yardstick {
    Yardstick {
        trial,
        name,
        source: Source::Figure(key),
    }
}

impl Yardstick {
    /// The scenario of a trial, and what it is to do beside what all are told.
    pub(super) fn words(trial: &str, make: Make, arg: &CompareArg) -> Vec<String> {
        let (scenario, way) = trial.split_once('.').unwrap_or((trial, ""));
        let mut words = vec![scenario.to_owned()];
        let ping_after = humantime::format_duration(arg.ping_after);
        if scenario == "idle" {
            let hold = humantime::format_duration(arg.hold);
            words.extend([
                format!("--hold={hold}"),
                format!("--ping-after={ping_after}"),
            ]);
            return words;
        }
        if scenario == "push" {
            words.extend(push_words(way, make, arg));
        } else {
            // All at once, and nothing else going on: what others promise to lines that are away is theirs to know.
            words.extend(["--comeback=at-once".to_owned(), "--push-rate=0".to_owned()]);
        }
        let heartbeats = heartbeat_settings(arg.ping_after);
        words.extend(heartbeats.iter().map(|setting| format!("--set={setting}")));
        words
    }

    /// What a run gave, and its unit.
    pub(super) fn read(&self, record: &Record) -> Option<(f64, String)> {
        match self.source {
            Source::Figure(key) => {
                let figure = record.figure(key)?;
                Some((figure.value, figure.unit.clone()))
            }
            Source::Share(of, by, unit) => {
                let share = record.figure(of)?.value / record.figure(by)?.value;
                share.is_finite().then(|| (share, unit.to_owned()))
            }
        }
    }
}

/// Who can say when a message is written waits for that, unless the way is `queued`; the others answer when they do.
fn push_words(way: &str, make: Make, arg: &CompareArg) -> Vec<String> {
    let duration = humantime::format_duration(arg.duration);
    let (senders, pipeline) = match way {
        "pipelined" => PIPELINED,
        _ => (arg.senders, 1),
    };
    let mut words = vec![
        format!("--senders={senders}"),
        format!("--pipeline={pipeline}"),
        format!("--duration={duration}"),
    ];
    if make.takes_wait() {
        let level = if way == "queued" { "queued" } else { "written" };
        words.push(format!("--wait={level}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    #[test]
    fn every_yardstick_is_of_a_trial_that_runs() {
        for yardstick in YARDSTICKS {
            assert!(TRIALS.contains(&yardstick.trial), "{yardstick:?}");
        }
    }

    #[test]
    fn a_share_of_nothing_is_no_figure() {
        let mut record = Record::new("idle");
        record.add([
            Figure::new("server.rss", 1_000.0, "B"),
            Figure::new("lines.opened", 0.0, ""),
        ]);
        let all = YARDSTICKS
            .iter()
            .find(|y| y.name == "bytes_per_line_all")
            .unwrap();
        assert_eq!(all.read(&record), None);
        record.figures[1].value = 4.0;
        assert_eq!(all.read(&record), Some((250.0, "B".to_owned())));
        assert_eq!(YARDSTICKS[0].read(&record), None);
    }
}
