//! What makes are compared by: figures of scenarios, under short names.

use crate::compare::CompareArg;
use crate::report::Record;
use crate::scenario::idle::heartbeat_settings;

/// A figure of a comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yardstick {
    /// Which scenario it is from.
    pub(super) scenario: &'static str,
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

/// Scenarios that every make can take part in, in the order they run.
pub(super) const SCENARIOS: [&str; 3] = ["idle", "push", "storm"];

/// All of them, in the order they are shown.
pub(super) const YARDSTICKS: [Yardstick; 12] = [
    figure("idle", "bytes_per_line", "server.bytes_per_line"),
    figure("idle", "new_lines", "ramp.rate"),
    figure("idle", "cpu_per_ping", "server.cpu_per_heartbeat"),
    figure("push", "cpu_per_push", "server.cpu_per_message"),
    figure("storm", "storm_time", "storm.back_100"),
    figure("storm", "storm_rate", "storm.return_rate"),
    figure("push", "pushes", "push.rate"),
    figure("push", "push_p50", "push.delivery.p50"),
    figure("push", "push_p99", "push.delivery.p99"),
    figure("idle", "cpu_per_new_line", "server.cpu_per_new_line"),
    figure("storm", "cpu_per_line_back", "server.cpu_per_line_back"),
    Yardstick {
        scenario: "idle",
        name: "bytes_per_line_all",
        source: Source::Share("server.rss", "lines.opened", "B"),
    },
];

const fn figure(scenario: &'static str, name: &'static str, key: &'static str) -> Yardstick {
    Yardstick {
        scenario,
        name,
        source: Source::Figure(key),
    }
}

impl Yardstick {
    /// What a scenario is to do beside what all are told.
    pub(super) fn words(scenario: &str, arg: &CompareArg) -> Vec<String> {
        let time = |time| humantime::format_duration(time).to_string();
        if scenario == "idle" {
            let (hold, ping_after) = (time(arg.hold), time(arg.ping_after));
            return vec![
                format!("--hold={hold}"),
                format!("--ping-after={ping_after}"),
            ];
        }
        let heartbeats = heartbeat_settings(arg.ping_after);
        let heartbeats = heartbeats.iter().map(|setting| format!("--set={setting}"));
        let own = if scenario == "push" {
            vec![
                format!("--senders={}", arg.senders),
                format!("--duration={}", time(arg.duration)),
            ]
        } else {
            // All at once, and nothing else going on: what others promise to lines that are away is theirs to know.
            vec!["--comeback=at-once".to_owned(), "--push-rate=0".to_owned()]
        };
        own.into_iter().chain(heartbeats).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    #[test]
    fn every_yardstick_is_of_a_scenario_that_runs() {
        for yardstick in YARDSTICKS {
            assert!(SCENARIOS.contains(&yardstick.scenario), "{yardstick:?}");
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
