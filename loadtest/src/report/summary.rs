//! A run in Markdown.

use std::fmt::Write as _;

use bytesize::ByteSize;

use crate::machine::Machine;
use crate::report::pivot::Pivot;
use crate::report::{Record, plain};

/// The page of a record.
pub(super) fn text(record: &Record) -> String {
    let Machine {
        host,
        cpu,
        cores,
        memory_bytes,
        kernel,
    } = &record.machine;
    let memory = ByteSize(*memory_bytes).display().iec();
    let dirty = if record.source.dirty {
        " (with changes)"
    } else {
        ""
    };
    let outcome = if record.faults.is_empty() {
        "passed"
    } else {
        "**failed**"
    };
    let mut text = format!(
        "# {}: {outcome}\n\n- command: `{}`\n- date: {}\n- commit: {}{dirty}\n\
         - machine: {host}, {cpu}, {cores} cores, {memory}, Linux {kernel}\n- plots: [report.html](report.html)\n\n\
         ![what the run looked like](chart.svg)\n\n",
        record.scenario,
        plain(&record.command.join(" ")).replace('`', "'"),
        record.date,
        record.source.commit,
    );
    let notes = record.faults.iter().chain(&record.warnings);
    text.extend(notes.map(|note| format!("- {}\n", escaped(note))));
    let fence = "~~~~~";
    let described = record
        .notes
        .iter()
        .map(|note| plain(note).replace(fence, "~"));
    text.extend(described.map(|note| format!("\n{fence}\n{}\n{fence}\n", note.trim_end())));
    let (pivot, rest) = Pivot::split(&record.figures);
    text.extend(pivot.as_ref().map(table));
    text.push_str("\n| figure | value | of all rounds |\n|---|---|---|\n");
    for figure in rest {
        let range = figure.range_text().unwrap_or_default();
        let key = escaped(&figure.key);
        let written = writeln!(text, "| {key} | {} | {range} |", figure.text());
        debug_assert!(written.is_ok(), "a string takes every byte");
    }
    text
}

/// Figures side by side.
fn table(pivot: &Pivot<'_>) -> String {
    let mut text = format!("\n| | {} |\n|---|", pivot.columns.join(" | "));
    text.push_str(&"---|".repeat(pivot.columns.len()));
    for (name, cells) in &pivot.rows {
        let cells = cells.join(" | ");
        text.push_str(&format!("\n| {} | {cells} |", escaped(name)));
    }
    text.push('\n');
    text
}

/// Text that stays in its line and its cell, and is nothing but text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '\n' => escaped.push_str("\n  "),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '`' | '*' | '[' | ']' | '\\' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    #[test]
    fn a_summary_names_command_commit_faults_and_figures() {
        let text = text(&record());
        for part in [
            "failed",
            "abc1234 (with changes)",
            "3 lines failed",
            "| lines.opened | 240000 |  |",
            "| server.bytes_per_line | 187 B |  |",
            "| ramp.rate | 200 /s | 100 /s … 400 /s |",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_a_server_says_is_only_text() {
        let mut record = record();
        record.faults = vec!["closed with 4000 <img src=x> | `x`\u{1b}[2J".to_owned()];
        let text = text(&record);
        assert!(
            text.contains("&lt;img src=x> \\| \\`x\\`\\\\u{1b}\\[2J"),
            "{text}"
        );
    }
}
