//! Figures of one kind at several numbers of lines, side by side: `ladder.10000.cpu`, `ladder.1000000.cpu`, and how they
//! have grown.

use std::collections::BTreeSet;

use crate::report::Figure;

/// Figures whose second word is a number, in a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Pivot<'a> {
    /// The numbers, rising, and behind them [`GROWTH`] if there is any.
    pub(crate) columns: Vec<String>,
    /// What it is, and what there is of it in each column.
    pub(crate) rows: Vec<(&'a str, Vec<Option<&'a Figure>>)>,
}

/// The second word of what the last number is in times of the first.
const GROWTH: &str = "growth";

impl<'a> Pivot<'a> {
    /// A table of those figures that have more than one column; `None` if there are none.
    pub(crate) fn of(figures: &'a [Figure]) -> Option<Self> {
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
        let mut rows: Vec<(&str, Vec<Option<&Figure>>)> = Vec::new();
        for (column, name, figure) in cells {
            let place = columns.iter().position(|other| other == column);
            let row = match rows.iter().position(|(other, _)| *other == name) {
                Some(row) => row,
                None => {
                    rows.push((name, vec![None; columns.len()]));
                    rows.len() - 1
                }
            };
            if let Some(place) = place {
                rows[row].1[place] = Some(figure);
            }
        }
        Some(Self { columns, rows })
    }

    /// Whether a figure is in such a table rather than on its own.
    pub(crate) fn has(figure: &Figure) -> bool {
        cell(figure).is_some()
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
        let pivot = Pivot::of(&figures).unwrap();
        assert_eq!(pivot.columns, ["20", "100", "growth"]);
        let cpu = vec![Some(&figures[0]), Some(&figures[1]), Some(&figures[4])];
        let bytes = vec![None, Some(&figures[2]), None];
        assert_eq!(pivot.rows, [("cpu", cpu), ("bytes", bytes)]);
        assert!(!Pivot::has(&figures[3]));
        assert_eq!(Pivot::of(&figures[1..4]), None);
    }
}
