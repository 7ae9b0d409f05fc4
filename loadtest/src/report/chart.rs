//! Which plots a run has: what belongs together shares one.

use std::collections::BTreeMap;
use std::io;

use crate::report::plot::{Area, Bars, Curves, Percentiles, svg};
use crate::report::{Figure, Record};
use crate::series::Series;

/// A plot of a run.
#[derive(Debug)]
pub(super) enum Chart<'a> {
    Curves(Curves<'a>),
    Percentiles(Percentiles<'a>),
    Bars(Bars),
}

/// Curves that every run has, by plot.
const PLOTS: [(&str, &[&str]); 6] = [
    ("lines", &["lines.open"]),
    ("memory", &["server.rss", "generator.rss"]),
    ("CPU", &["server.cpu", "generator.cpu"]),
    (
        "lines per second",
        &[
            "lines.opened",
            "lines.ended",
            "lines.attempts",
            "lines.refused",
            "lines.unreached",
        ],
    ),
    (
        "messages and pings per second",
        &["lines.messages", "lines.pings"],
    ),
    ("kernel memory", &["kernel.slab", "kernel.tcp_queues"]),
];
/// Plots of the overview; a page has all.
const OVERVIEW_MAX: usize = 6;
const CHART_SIZE: (u32, u32) = (760, 320);
const OVERVIEW_COLUMNS: usize = 2;

/// All plots of a run, the telling ones first.
pub(super) fn charts(record: &Record) -> Vec<Chart<'_>> {
    let mut charts = bars(&record.figures);
    let plotted = record.latencies.iter();
    let plotted = plotted.filter(|(_, latency)| !latency.percentiles.is_empty());
    let latencies: Vec<_> = plotted.map(|(n, d)| (&**n, d)).collect();
    let of_curves = curves(record).map(Chart::Curves);
    let (own, usual): (Vec<_>, Vec<_>) = of_curves.partition(|chart| !chart.is_usual());
    charts.extend(own);
    if !latencies.is_empty() {
        charts.push(Chart::Percentiles(Percentiles(latencies)));
    }
    charts.extend(usual);
    charts
}

/// The first plots in one picture.
pub(super) fn overview(record: &Record) -> io::Result<String> {
    let mut charts = charts(record);
    charts.truncate(OVERVIEW_MAX);
    let columns = charts.len().clamp(1, OVERVIEW_COLUMNS);
    let rows = charts.len().div_ceil(columns).max(1);
    let size = |n: usize, each: u32| u32::try_from(n).unwrap_or(1) * each;
    let size = (size(columns, CHART_SIZE.0), size(rows, CHART_SIZE.1));
    svg(size, |area| {
        let places = area.split_evenly((rows, columns));
        let mut each = charts.iter().zip(&places);
        each.try_for_each(|(chart, place)| chart.draw(place))
    })
}

impl Chart<'_> {
    /// This plot alone.
    pub(super) fn svg(&self) -> io::Result<String> {
        svg(CHART_SIZE, |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> io::Result<()> {
        match self {
            Self::Curves(curves) => curves.draw(area),
            Self::Percentiles(percentiles) => percentiles.draw(area),
            Self::Bars(bars) => bars.draw(area),
        }
    }

    fn is_usual(&self) -> bool {
        match self {
            Self::Curves(curves) => PLOTS.iter().any(|(title, _)| *title == curves.title),
            Self::Percentiles(_) | Self::Bars(_) => false,
        }
    }
}

/// A part of a plan has its label before the name.
fn is_called(name: &str, usual: &str) -> bool {
    name.strip_suffix(usual)
        .is_some_and(|label| label.is_empty() || label.ends_with('.'))
}

/// The usual plots, then one for each word and unit of what a scenario leaves besides.
fn curves(record: &Record) -> impl Iterator<Item = Curves<'_>> {
    let mut plots: BTreeMap<(usize, String), Vec<(&str, &Series)>> = BTreeMap::new();
    let telling = record.series.iter().filter(|(_, s)| !s.is_flat_zero());
    for (name, series) in telling {
        let usual = PLOTS
            .iter()
            .position(|(_, names)| names.iter().any(|n| is_called(name, n)));
        let word = name.rsplit('.').nth(1).unwrap_or(name);
        let title = match usual {
            Some(place) => PLOTS[place].0.to_owned(),
            None if series.unit.is_empty() => word.to_owned(),
            None => format!("{word} ({})", series.unit),
        };
        let place = usual.unwrap_or(PLOTS.len());
        plots
            .entry((place, title))
            .or_default()
            .push((name, series));
    }
    plots.into_iter().map(|((_, title), curves)| Curves {
        title,
        curves,
        phases: &record.phases,
    })
}

/// Figures of a comparison, `compare.NAME.FIGURE`, by figure.
fn bars(figures: &[Figure]) -> Vec<Chart<'_>> {
    let mut plots: Vec<Bars> = Vec::new();
    for figure in figures {
        let key = figure.key.strip_prefix("compare.");
        let Some((name, title)) = key.and_then(|key| key.split_once('.')) else {
            continue;
        };
        let bar = (name.to_owned(), figure.value, figure.range());
        match plots.iter_mut().find(|plot| plot.title == title) {
            Some(plot) => plot.bars.push(bar),
            None => plots.push(Bars {
                title: title.to_owned(),
                unit: figure.unit.clone(),
                bars: vec![bar],
            }),
        }
    }
    plots.into_iter().map(Chart::Bars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    fn titles(record: &Record) -> Vec<String> {
        let title = |chart: &Chart<'_>| match chart {
            Chart::Curves(curves) => curves.title.clone(),
            Chart::Percentiles(_) => "percentiles".to_owned(),
            Chart::Bars(bars) => format!("{} of {}", bars.title, bars.bars.len()),
        };
        charts(record).iter().map(title).collect()
    }

    #[test]
    fn a_scenarios_own_curves_come_first_and_flat_ones_not_at_all() {
        let mut record = record();
        let rising = |unit| Series::of(unit, [(0.0, 0.0), (1.0, 3.0)]);
        for (name, unit) in [
            ("lines.open", ""),
            ("server.rss", "B"),
            ("storm.back", ""),
            ("storm.rate", "/s"),
        ] {
            record.series.insert(name.to_owned(), rising(unit));
        }
        record
            .series
            .insert("calm.idle.lines.open".to_owned(), rising(""));
        let zero = Series::of("/s", [(0.0, 0.0), (1.0, 0.0)]);
        record.series.insert("lines.pings".to_owned(), zero);
        assert_eq!(titles(&record), ["storm", "storm (/s)", "lines", "memory"]);
        assert!(overview(&record).unwrap().contains("storm.back"));
    }

    #[test]
    fn a_comparison_has_a_plot_of_bars_for_each_figure() {
        let mut record = record();
        for (name, value) in [("tautline", 1.0), ("nchan", 2.0)] {
            record.add([Figure::new(
                format!("compare.{name}.ramp.rate"),
                value,
                "/s",
            )]);
        }
        assert_eq!(titles(&record), ["ramp.rate of 2"]);
        assert!(overview(&record).unwrap().contains("nchan"));
    }

    #[test]
    fn a_run_without_a_curve_has_an_empty_picture() {
        assert!(overview(&record()).unwrap().starts_with("<svg"));
    }
}
