//! One plot, drawn as SVG.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::latency::Distribution;
use crate::report::{Phase, number_text};
use crate::series::Series;

/// Somewhere to draw.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Curves that share a plot, by name.
#[derive(Debug)]
pub(super) struct Curves<'a> {
    /// What stands above them.
    pub(super) title: String,
    /// The curves, of one unit.
    pub(super) curves: Vec<(&'a str, &'a Series)>,
    /// Marks along the time.
    pub(super) phases: &'a [Phase],
}

/// Latencies that share a plot, by name.
#[derive(Debug)]
pub(super) struct Percentiles<'a>(pub(super) Vec<(&'a str, &'a Distribution)>);

/// Bars side by side, each with its range.
#[derive(Debug)]
pub(super) struct Bars {
    /// What stands above them.
    pub(super) title: String,
    /// Their unit.
    pub(super) unit: String,
    /// Name, value, least and most.
    pub(super) bars: Vec<(String, f64, (f64, f64))>,
}

const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 98, 168),
    RGBColor(200, 80, 30),
    RGBColor(40, 140, 70),
    RGBColor(130, 70, 160),
    RGBColor(160, 130, 20),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";
const SMALL: i32 = 12;
const TITLE: i32 = 16;
/// Percentiles are shown up to so many nines.
const NINES_MAX: f64 = 5.0;
/// Phases that would be written over each other are left without a name.
const PHASE_GAP_SHARE: f64 = 0.09;

/// Draws into an SVG of this size.
pub(super) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> io::Result<()>,
) -> io::Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(io::Error::other)?;
        draw(&area)?;
        area.present().map_err(io::Error::other)?;
    }
    Ok(text)
}

impl Curves<'_> {
    /// Draws them.
    pub(super) fn draw(&self, area: &Area<'_>) -> io::Result<()> {
        let points = || self.curves.iter().flat_map(|(_, s)| s.points.iter());
        let time = span(points().map(|(at, _)| *at));
        let top = room_above(points().map(|(_, value)| *value));
        let unit = self.curves.first().map_or("", |(_, s)| s.unit.as_str());
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, TITLE))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(80)
            .build_cartesian_2d(time.clone(), 0.0..top)
            .map_err(io::Error::other)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("seconds")
            .x_label_formatter(&|at| format!("{at:.0}"))
            .y_label_formatter(&|value| number_text(*value, unit))
            .label_style((FONT, SMALL))
            .draw()
            .map_err(io::Error::other)?;
        let mut named_at = f64::NEG_INFINITY;
        for phase in self.phases.iter().filter(|p| time.contains(&p.at_s)) {
            let mark = [(phase.at_s, 0.0), (phase.at_s, top)];
            let grey = BLACK.mix(0.25);
            chart
                .draw_series(std::iter::once(PathElement::new(mark, grey)))
                .map_err(io::Error::other)?;
            if phase.at_s - named_at > (time.end - time.start) * PHASE_GAP_SHARE {
                let style = (FONT, SMALL).into_font().color(&BLACK.mix(0.6));
                let place = (phase.at_s, top);
                chart
                    .draw_series(std::iter::once(Text::new(phase.name.clone(), place, style)))
                    .map_err(io::Error::other)?;
                named_at = phase.at_s;
            }
        }
        let curves = self.curves.iter();
        draw_curves(&mut chart, curves.map(|(name, s)| (*name, &s.points[..])))
    }
}

impl Percentiles<'_> {
    /// Draws them: each step to the right has a tenth of the latencies of the one before beyond it.
    pub(super) fn draw(&self, area: &Area<'_>) -> io::Result<()> {
        let curves: Vec<(&str, Vec<(f64, f64)>)> = self
            .0
            .iter()
            .map(|(name, d)| (*name, d.percentiles.iter().map(nines_of).collect()))
            .collect();
        let points = || curves.iter().flat_map(|(_, points)| points.iter());
        let right = span(points().map(|(nines, _)| *nines)).end.max(1.0).ceil();
        let values = points().map(|(_, value)| *value).filter(|v| *v > 0.0);
        let (low, high) = values.fold((f64::MAX, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        let unit = self.0.first().map_or("", |(_, d)| d.unit.as_str());
        let range = (low.min(high) / 1.5..high * 1.5).log_scale();
        let mut chart = ChartBuilder::on(area)
            .caption("latency by percentile", (FONT, TITLE))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..right, range)
            .map_err(io::Error::other)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("percentile")
            .x_labels(usize_of(right) + 1)
            .x_label_formatter(&|nines| percentile_text(*nines))
            .y_label_formatter(&|value| number_text(*value, unit))
            .label_style((FONT, SMALL))
            .draw()
            .map_err(io::Error::other)?;
        let curves = curves.iter();
        draw_curves(
            &mut chart,
            curves.map(|(name, points)| (*name, &points[..])),
        )
    }
}

/// Draws curves in a colour each, and their names in a corner.
fn draw_curves<'a, 'c, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    curves: impl Iterator<Item = (&'c str, &'c [(f64, f64)])>,
) -> io::Result<()>
where
    Y: Ranged<ValueType = f64>,
{
    for (index, (name, points)) in curves.enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(io::Error::other)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, SMALL))
        .draw()
        .map_err(io::Error::other)
}

impl Bars {
    /// Draws them, from left to right, with their values above.
    pub(super) fn draw(&self, area: &Area<'_>) -> io::Result<()> {
        let top = room_above(self.bars.iter().map(|(_, _, (_, most))| *most));
        let count = self.bars.len();
        let right = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, TITLE))
            .margin(10)
            .x_label_area_size(24)
            .y_label_area_size(10)
            .build_cartesian_2d(0.0..right, 0.0..top)
            .map_err(io::Error::other)?;
        let place = Pos::new(HPos::Center, VPos::Bottom);
        let below = Pos::new(HPos::Center, VPos::Top);
        let style = (FONT, SMALL).into_font().color(&BLACK);
        let mut left = 0.0;
        for (index, (name, value, (least, most))) in self.bars.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let (from, middle, to) = (left + 0.15, left + 0.5, left + 0.85);
            let bar = Rectangle::new([(from, 0.0), (to, *value)], colour.filled());
            let range = PathElement::new([(middle, *least), (middle, *most)], BLACK);
            let label = number_text(*value, &self.unit);
            let label = Text::new(label, (middle, *most), style.clone().pos(place));
            let name = Text::new(name.clone(), (middle, 0.0), style.clone().pos(below));
            chart
                .draw_series(std::iter::once(bar))
                .map_err(io::Error::other)?;
            chart
                .draw_series(std::iter::once(range))
                .map_err(io::Error::other)?;
            chart.draw_series([label, name]).map_err(io::Error::other)?;
            left += 1.0;
        }
        Ok(())
    }
}

/// A percentile as its number of nines: 90 is 1, 99 is 2.
fn nines_of((percentile, value): &(f64, f64)) -> (f64, f64) {
    let beyond = (1.0 - percentile / 100.0).max(10_f64.powf(-NINES_MAX));
    (-beyond.log10(), *value)
}

fn percentile_text(nines: f64) -> String {
    let percentile = 100.0 * (1.0 - 10_f64.powf(-nines));
    let text = format!("{percentile:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// From the least to the most, never empty.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if low < high { low..high } else { 0.0..1.0 }
}

/// An upper end with room for what is written above.
fn room_above(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    if most > 0.0 { most * 1.15 } else { 1.0 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few nines"
)]
fn usize_of(nines: f64) -> usize {
    nines as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_counted_in_nines_up_to_a_bound() {
        assert!((nines_of(&(99.0, 7.0)).0 - 2.0).abs() < 1e-9);
        assert_eq!(nines_of(&(100.0, 7.0)), (NINES_MAX, 7.0));
        let texts = [0.0, 1.0, 2.0, 3.0].map(percentile_text);
        assert_eq!(texts, ["0", "90", "99", "99.9"]);
    }

    #[test]
    fn a_plot_of_nothing_and_of_one_value_can_be_drawn() {
        let still = Series::of("B", [(1.0, 5.0), (1.0, 5.0)]);
        for curves in [Vec::new(), vec![("a<b", &still)]] {
            let curves = Curves {
                title: "x".to_owned(),
                curves,
                phases: &[],
            };
            let text = svg((300, 200), |area| curves.draw(area)).unwrap();
            assert!(text.starts_with("<svg") && !text.contains("a<b"), "{text}");
        }
        let none = svg((300, 200), |area| Percentiles(Vec::new()).draw(area));
        assert!(none.unwrap().contains("percentile"));
    }
}
