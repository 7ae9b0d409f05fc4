//! Figures of one kind at several numbers of lines, side by side: `ladder.10000.cpu`, `ladder.1000000.cpu`, and how they
//! have grown.

use std::collections::BTreeSet;

use crate::report::Figure;

/// Figures whose second word is a number, in a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Pivot<'a> {
    /// The numbers, rising, and behind them [`GROWTH`] if there is any.
    pub(crate) columns: Vec<String>,
    /// What it is, and its text in each column, empty where there is none.
    pub(crate) rows: Vec<(&'a str, Vec<String>)>,
}

/// The second word of what the last number is in times of the first.
const GROWTH: &str = "growth";

impl<'a> Pivot<'a> {
    /// The table of these figures, if there are several numbers, and the figures that are not in it.
    pub(crate) fn split(figures: &'a [Figure]) -> (Option<Self>, Vec<&'a Figure>) {
        let pivot = Self::of(figures);
        let is_alone = |figure: &&Figure| pivot.is_none() || cell(figure).is_none();
        let rest = figures.iter().filter(is_alone).collect();
        (pivot, rest)
    }

    fn of(figures: &'a [Figure]) -> Option<Self> {
        let cells = figures.iter().filter_map(|figure| {
            let (column, name) = cell(figure)?;
            Some((column, name, figure))
        });
        let cells: Vec<_> = cells.collect();
        let numbers = cells.iter().filter_map(|(column, ..)| column.parse().ok());
        let numbers: BTreeSet<u64> = numbers.collect();
        if numbers.len() < 2 {
            return None;
        }
        let mut columns: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        if cells.iter().any(|(column, ..)| *column == GROWTH) {
            columns.push(GROWTH.to_owned());
        }
        let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
        for (column, name, figure) in cells {
            let place = columns.iter().position(|other| other == column);
            let row = match rows.iter().position(|(other, _)| *other == name) {
                Some(row) => row,
                None => {
                    rows.push((name, vec![String::new(); columns.len()]));
                    rows.len() - 1
                }
            };
            if let Some(place) = place {
                rows[row].1[place] = figure.text();
            }
        }
        Some(Self { columns, rows })
    }
}

/// The column of a figure, and its row.
fn cell(figure: &Figure) -> Option<(&str, &str)> {
    let (_, rest) = figure.key.split_once('.')?;
    let (column, name) = rest.split_once('.')?;
    let is_column = column == GROWTH || column.parse::<u64>().is_ok();
    is_column.then_some((column, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_several_numbers_stand_side_by_side() {
        let figures = [
            Figure::new("ladder.20.cpu", 3.0, "µs"),
            Figure::new("ladder.100.cpu", 6.0, "µs"),
            Figure::new("ladder.100.bytes", 9.0, "B"),
            Figure::new("lines.opened", 9.0, ""),
            Figure::new("ladder.growth.cpu", 2.0, "×"),
        ];
        let (pivot, rest) = Pivot::split(&figures);
        let pivot = pivot.unwrap();
        assert_eq!(pivot.columns, ["20", "100", "growth"]);
        let text = |n: usize| figures[n].text();
        let cpu = vec![text(0), text(1), text(4)];
        let bytes = vec![String::new(), text(2), String::new()];
        assert_eq!(pivot.rows, [("cpu", cpu), ("bytes", bytes)]);
        assert_eq!(rest, [&figures[3]]);
        let (pivot, rest) = Pivot::split(&figures[1..4]);
        assert_eq!((pivot, rest.len()), (None, 3));
    }
}
