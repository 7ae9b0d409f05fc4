//! A run as one page of HTML: no script, no font, no address outside of it.

use std::io;

use bytesize::ByteSize;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::report::chart::charts;
use crate::report::{Record, plain};

/// Nothing may be loaded, whatever text of a server should get in here.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em;color:#222}\
    code{background:#f2f2f2;padding:.1em .3em;overflow-wrap:anywhere}\
    table{border-collapse:collapse}td,th{text-align:left;padding:.15em 1em .15em 0;border-bottom:1px solid #ddd}\
    td.number{text-align:right;font-variant-numeric:tabular-nums}\
    .passed{color:#1a7a3a}.failed{color:#b3261e}pre{white-space:pre-wrap;margin:0;font:inherit}\
    .plots{display:flex;flex-wrap:wrap;gap:1em}svg{max-width:100%;height:auto}";

/// The page of a record.
pub(super) fn html(record: &Record) -> io::Result<String> {
    let plots: Vec<String> = charts(record)
        .iter()
        .map(|chart| chart.svg())
        .collect::<io::Result<_>>()?;
    let outcome = if record.faults.is_empty() {
        "passed"
    } else {
        "failed"
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (record.scenario) " " (record.date) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (plain(&record.scenario)) ": " span class=(outcome) { (outcome) } }
                (notes("failed", &record.faults))
                (notes("warning", &record.warnings))
                (origin(record))
                (notes("note", &record.notes))
                h2 { "Plots" }
                @if plots.is_empty() { p { "The run was too short for a curve." } }
                div class="plots" { @for plot in &plots { (PreEscaped(plot)) } }
                h2 { "Figures" }
                (figures(record))
            }
        }
    };
    Ok(page.into_string())
}

fn notes(class: &str, notes: &[String]) -> Markup {
    html! {
        @if !notes.is_empty() {
            ul class=(class) { @for note in notes { li { pre { (plain(note)) } } } }
        }
    }
}

fn origin(record: &Record) -> Markup {
    let machine = &record.machine;
    let memory = ByteSize(machine.memory_bytes).display().iec().to_string();
    let changes = if record.source.dirty {
        ", with changes"
    } else {
        ""
    };
    html! {
        table {
            tr { th { "command" } td { code { (plain(&record.command.join(" "))) } } }
            tr { th { "date" } td { (plain(&record.date)) } }
            tr { th { "commit" } td { (plain(&record.source.commit)) (changes) } }
            tr { th { "machine" } td {
                (plain(&machine.host)) ", " (plain(&machine.cpu)) ", " (machine.cores) " cores, " (memory)
                ", Linux " (plain(&machine.kernel))
            } }
        }
    }
}

fn figures(record: &Record) -> Markup {
    html! {
        table {
            tr { th { "figure" } th { "value" } th { "of all rounds" } }
            @for figure in &record.figures {
                tr {
                    td { (plain(&figure.key)) }
                    td class="number" { (plain(&figure.text())) }
                    td class="number" { (figure.range_text().unwrap_or_default()) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Distribution;
    use crate::report::Phase;
    use crate::report::tests::record;
    use crate::series::Series;

    #[test]
    fn a_page_has_every_figure_and_plot_and_loads_nothing() {
        let mut record = record();
        let rising = Series::of("", [(0.0, 0.0), (2.0, 300.0)]);
        record.series.insert("lines.open".to_owned(), rising);
        record.phases.push(Phase {
            name: "hold".to_owned(),
            at_s: 1.0,
        });
        let percentiles = vec![(0.0, 90.0), (50.0, 110.0), (99.0, 400.0), (100.0, 900.0)];
        let delivery = Distribution {
            count: 9,
            unit: "µs".to_owned(),
            percentiles,
            histogram: None,
        };
        record
            .latencies
            .insert("push.delivery".to_owned(), delivery);
        let page = html(&record).unwrap();
        for part in [
            "lines.opened",
            "240000",
            "100 /s … 400 /s",
            "hold",
            "push.delivery",
            "99.9",
            "3 lines failed",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        for foreign in ["<script", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_a_server_calls_itself_is_text_wherever_it_stands() {
        const EVIL: &str = "</svg><script>alert(1)</script>";
        let mut record = record();
        record.faults = vec![EVIL.to_owned()];
        record.command = vec![EVIL.to_owned()];
        record.figures[0].key = EVIL.to_owned();
        let rising = Series::of(EVIL, [(0.0, 0.0), (2.0, 300.0)]);
        record.series.insert(EVIL.to_owned(), rising);
        let page = html(&record).unwrap();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script"));
    }
}
