//! What this machine can hold, and which of its limits bites first.
//!
//! `tautline doctor` prints the whole report, the start warns with its first line: one truth. `machine` reads what the
//! kernel says, `bound` knows the limits that cap the number of lines, `advice` those that make a full node suffer.
//! Nothing here changes anything.

mod advice;
mod bound;
pub(crate) mod machine;

use serde::Serialize;

use crate::config::Config;
use crate::config::section::Memory;
use crate::server::capacity::Capacity;
use machine::Machine;

/// What the machine means for the configuration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Lines the configuration wants: `limits.connections_max`.
    pub(crate) lines_wanted: u64,
    /// Lines that fit under every limit.
    pub(crate) lines_max: u64,
    /// Event loops.
    pub(crate) reactors: u16,
    /// The limit that bites first; `None` when all that is wanted fits.
    pub(crate) bites_first: Option<&'static str>,
    /// Every limit that was looked at.
    pub(crate) checks: Vec<Check>,
}

/// One limit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) verdict: Verdict,
    /// What it is.
    pub(crate) found: String,
    /// What the configuration needs.
    pub(crate) needed: String,
    /// Lines that fit under it, if it caps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<u64>,
    /// Why it matters, or what else could be done; unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remark: Option<String>,
    /// What lifts it; unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

/// What a limit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Fewer lines fit than the configuration wants.
    Bites,
    /// They fit, but a full node would suffer.
    Advice,
    /// Nothing to do.
    Ok,
}

/// What the configuration wants of the machine.
#[derive(Clone, Debug)]
struct Wanted {
    lines: u64,
    reactors: u16,
    backlog: u64,
    /// Another process may listen beside this one.
    shares_ports: bool,
    memory: Memory,
    /// Lines are encrypted here.
    has_tls: bool,
}

impl Report {
    /// Compares the machine with what the configuration wants.
    pub(crate) fn new(config: &Config, machine: &Machine) -> Self {
        let reactors = Capacity::of(config, machine).reactors;
        let wanted = Wanted {
            lines: config.limits.connections_max.into(),
            reactors,
            backlog: config.listen.backlog.into(),
            shares_ports: config.listen.share,
            memory: config.memory.clone(),
            has_tls: config.devices_tls.is_on(),
        };
        let checks = bound::CHECKS.iter().chain(advice::CHECKS);
        let mut checks: Vec<_> = checks.filter_map(|check| check(&wanted, machine)).collect();
        // Stable: within a verdict they stay in the order of their lists.
        checks.sort_by_key(|check| (check.verdict, check.lines.unwrap_or(u64::MAX)));
        let first = checks
            .first()
            .filter(|check| check.verdict == Verdict::Bites);
        Self {
            lines_wanted: wanted.lines,
            lines_max: first.and_then(|check| check.lines).unwrap_or(wanted.lines),
            reactors,
            bites_first: first.map(|check| check.name),
            checks,
        }
    }

    /// Whether all lines fit that the configuration wants.
    pub(crate) fn fits(&self) -> bool {
        self.bites_first.is_none()
    }

    /// Which limit bites first and what lifts it, in one line; `None` when none does.
    pub(crate) fn warning(&self) -> Option<String> {
        let check = self.checks.first().filter(|_| !self.fits())?;
        let advice = [&check.command, &check.remark];
        let advice: Vec<_> = advice.into_iter().flatten().map(String::as_str).collect();
        Some(format!(
            "the first limit to bite is {}: found {}, enough for {} of the {} lines configured; {} (`tautline doctor` has all of it)",
            check.name,
            check.found,
            grouped(self.lines_max),
            grouped(self.lines_wanted),
            advice.join("; "),
        ))
    }
}

impl Check {
    /// A limit that caps the number of lines.
    fn cap(name: &'static str, wanted: &Wanted, lines: u64) -> Self {
        let verdict = if lines < wanted.lines {
            Verdict::Bites
        } else {
            Verdict::Ok
        };
        Self {
            lines: Some(lines),
            ..Self::new(name, verdict)
        }
    }

    /// A limit that a full node should have more of.
    fn advice(name: &'static str, is_good: bool) -> Self {
        Self::new(
            name,
            if is_good {
                Verdict::Ok
            } else {
                Verdict::Advice
            },
        )
    }

    fn new(name: &'static str, verdict: Verdict) -> Self {
        Self {
            name,
            verdict,
            found: String::new(),
            needed: String::new(),
            lines: None,
            remark: None,
            command: None,
        }
    }

    fn found(self, found: impl Into<String>, needed: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            needed: needed.into(),
            ..self
        }
    }

    /// What to do; kept only when something is.
    fn remedy(mut self, command: impl Into<String>, remark: impl Into<String>) -> Self {
        if self.verdict != Verdict::Ok {
            let text = |text: String| (!text.is_empty()).then_some(text);
            (self.command, self.remark) = (text(command.into()), text(remark.into()));
        }
        self
    }
}

/// A check; `None` where this machine has no such limit, or does not tell.
type CheckFn = fn(&Wanted, &Machine) -> Option<Check>;

/// `1,000,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
