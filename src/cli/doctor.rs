//! `tautline doctor`: what this machine can hold.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use super::error::CliError;
use super::terminal;
use super::{Options, exit_code};
use crate::server::doctor::{Check, Report, Verdict, grouped};

/// Prints the report: for people on a terminal, as JSON otherwise. Exits with 1 when a limit bites.
pub(super) fn run(options: &Options) -> Result<ExitCode, CliError> {
    let config = options.sources().load()?.config;
    let report = crate::server::examine(&config);
    if options.json || !stdout().is_terminal() {
        terminal::print_json(&report)?;
    } else {
        terminal::print(text(&report).trim_end())?;
    }
    Ok(exit_code(report.fits()))
}

/// The report as a table, and below it what to do.
fn text(report: &Report) -> String {
    let mut text = headline(report);
    text.push_str("\n\n");
    let head = ["verdict", "limit", "found", "needed", "lines"].map(String::from);
    let rows: Vec<_> = std::iter::once(head)
        .chain(report.checks.iter().map(row))
        .collect();
    let widths = [0, 1, 2, 3, 4].map(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    for check in &report.checks {
        text.push_str(&remedy(check));
    }
    text
}

fn headline(report: &Report) -> String {
    let (max, wanted) = (grouped(report.lines_max), grouped(report.lines_wanted));
    match report.bites_first {
        None => format!("room for all {wanted} lines configured (limits.connections_max)"),
        Some(name) => format!(
            "room for {max} of the {wanted} lines configured (limits.connections_max); the first limit to bite is {name}"
        ),
    }
}

fn row(check: &Check) -> [String; 5] {
    let verdict = match check.verdict {
        Verdict::Bites => "BITES",
        Verdict::Advice => "advice",
        Verdict::Ok => "ok",
    };
    [
        verdict.into(),
        check.name.into(),
        terminal::printable(&check.found),
        check.needed.clone(),
        check.lines.map(grouped).unwrap_or_default(),
    ]
}

fn remedy(check: &Check) -> String {
    let lines = [&check.command, &check.remark];
    let lines: Vec<_> = lines.into_iter().flatten().collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", check.name);
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, verdict: Verdict) -> Check {
        Check {
            name,
            verdict,
            found: "20,000\u{1b}".into(),
            needed: "500,256".into(),
            lines: Some(39_488),
            remark: None,
            command: (verdict != Verdict::Ok).then(|| "ulimit -n 500256".into()),
        }
    }

    #[test]
    fn the_table_is_aligned_and_says_what_to_do_below() {
        let report = Report {
            lines_wanted: 1_000_000,
            lines_max: 39_488,
            reactors: 2,
            bites_first: Some("descriptors"),
            checks: vec![
                check("descriptors", Verdict::Bites),
                check("swap", Verdict::Ok),
            ],
        };
        assert_eq!(
            text(&report),
            "room for 39,488 of the 1,000,000 lines configured (limits.connections_max); the first limit to bite is descriptors\n\n\
             verdict  limit        found         needed   lines\n\
             BITES    descriptors  20,000\\u{1b}  500,256  39,488\n\
             ok       swap         20,000\\u{1b}  500,256  39,488\n\
             \ndescriptors\n  ulimit -n 500256\n"
        );
    }
}
