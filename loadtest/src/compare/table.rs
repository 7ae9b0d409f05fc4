//! What all rounds gave, make by make.

use std::collections::BTreeMap;

use crate::compare::yardstick::{YARDSTICKS, Yardstick};
use crate::make::Make;
use crate::part::PartError;
use crate::report::{Figure, Record};

/// The measurements of a comparison.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    make: Make,
    /// What each round gave, by the yardstick's name.
    values: BTreeMap<&'static str, (Vec<f64>, String)>,
    /// What its servers ran with; the same in each round.
    notes: Vec<String>,
    /// What went wrong, and how often.
    faults: BTreeMap<String, u32>,
    warnings: BTreeMap<String, u32>,
    /// Runs without a record.
    failures: BTreeMap<String, u32>,
}

/// A row as it is shown: the yardstick, then a figure for each make, with its share of ours.
pub(crate) type Row = (&'static str, Vec<Option<(Figure, Option<f64>)>>);

impl Table {
    /// An empty one; the first make is what others are put in relation to.
    pub(super) fn new(makes: &[Make]) -> Self {
        let column = |make: &Make| Column {
            make: *make,
            values: BTreeMap::new(),
            notes: Vec::new(),
            faults: BTreeMap::new(),
            warnings: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        Self {
            columns: makes.iter().map(column).collect(),
        }
    }

    /// Takes in what a run gave.
    pub(super) fn take(&mut self, make: Make, trial: &str, outcome: Result<Record, PartError>) {
        let Some(column) = self.columns.iter_mut().find(|column| column.make == make) else {
            return;
        };
        match outcome {
            Ok(record) => column.take(trial, &record),
            Err(error) => count(&mut column.failures, format!("{trial}: {error}")),
        }
    }

    /// Puts all of it into the record of the comparison.
    pub(super) fn judge(&self, record: &mut Record, trials: &[&str]) {
        for column in &self.columns {
            let make = column.make;
            record
                .notes
                .extend(column.notes.iter().map(|note| format!("{make}: {note}")));
            for (name, times) in &column.failures {
                record
                    .faults
                    .push(format!("{make} could not be measured, {times} × {name}"));
            }
            let told = |(name, times): (&String, &u32)| format!("{make}, {times} × {name}");
            let faults = column.faults.iter().map(told);
            if make == Make::Tautline {
                record.faults.extend(faults);
            } else {
                record.warnings.extend(faults);
            }
            record.warnings.extend(column.warnings.iter().map(told));
            let expected = YARDSTICKS.iter().filter(|y| trials.contains(&y.trial));
            let is_missing = |y: &&Yardstick| !column.values.contains_key(y.name);
            let missing: Vec<&str> = expected.filter(is_missing).map(|y| y.name).collect();
            if !missing.is_empty() {
                record
                    .faults
                    .push(format!("{make} has no {}", missing.join(", ")));
            }
        }
        record.add(self.figures());
    }

    /// The makes, as they are shown.
    pub(crate) fn makes(&self) -> impl Iterator<Item = Make> {
        self.columns.iter().map(|column| column.make)
    }

    /// The rows, as they are shown.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let measured = YARDSTICKS
            .iter()
            .filter(|y| self.columns.iter().any(|c| c.values.contains_key(y.name)));
        let row = |yardstick: &Yardstick| {
            let figures: Vec<_> = self.columns.iter().map(|c| c.figure(yardstick)).collect();
            let ours = figures.first().cloned().flatten();
            let share = |figure: &Figure| {
                Some(figure.value / ours.as_ref()?.value).filter(|share| share.is_finite())
            };
            let cells = figures
                .into_iter()
                .map(|figure| figure.map(|f| (f.clone(), share(&f))));
            (yardstick.name, cells.collect())
        };
        measured.map(row).collect()
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut ratios = Vec::new();
        for (name, cells) in self.rows() {
            for (column, cell) in self.columns.iter().zip(cells) {
                let Some((figure, share)) = cell else {
                    continue;
                };
                figures.push(figure);
                if column.make != Make::Tautline {
                    ratios.extend(
                        share.map(|x| Figure::new(format!("ratio.{}.{name}", column.make), x, "×")),
                    );
                }
            }
        }
        figures.extend(ratios);
        figures
    }
}

impl Column {
    fn take(&mut self, trial: &str, record: &Record) {
        for yardstick in YARDSTICKS.iter().filter(|y| y.trial == trial) {
            if let Some((value, unit)) = yardstick.read(record) {
                let (values, _) = self
                    .values
                    .entry(yardstick.name)
                    .or_insert((Vec::new(), unit));
                values.push(value);
            }
        }
        // Ports and directories differ from round to round, and nothing else does: the first round's notes serve.
        if self.notes.is_empty() {
            self.notes.clone_from(&record.notes);
        }
        for fault in &record.faults {
            count(&mut self.faults, format!("{trial}: {fault}"));
        }
        for warning in &record.warnings {
            count(&mut self.warnings, format!("{trial}: {warning}"));
        }
    }

    fn figure(&self, yardstick: &Yardstick) -> Option<Figure> {
        let (values, unit) = self.values.get(yardstick.name)?;
        let key = format!("compare.{}.{}", self.make, yardstick.name);
        Some(Figure::of_rounds(key, values.clone(), unit))
    }
}

fn count(counts: &mut BTreeMap<String, u32>, what: String) {
    *counts.entry(what).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(bytes: f64) -> Record {
        let mut record = Record::new("idle");
        record.add([
            Figure::new("server.bytes_per_line", bytes, "B"),
            Figure::new("server.rss", bytes * 10.0, "B"),
            Figure::new("lines.opened", 10.0, ""),
            Figure::new("ramp.rate", 100.0, "/s"),
            Figure::new("server.cpu_per_new_line", 10.0, "µs"),
            Figure::new("server.cpu_per_heartbeat", 10.0, "µs"),
        ]);
        record
    }

    fn judged(table: &Table) -> Record {
        let mut record = Record::new("compare");
        table.judge(&mut record, &["idle"]);
        record
    }

    #[test]
    fn rounds_become_a_median_a_range_and_a_share_of_ours() {
        let mut table = Table::new(&[Make::Tautline, Make::Axum]);
        for bytes in [190.0, 200.0, 260.0] {
            table.take(Make::Tautline, "idle", Ok(idle(bytes)));
            table.take(Make::Axum, "idle", Ok(idle(bytes * 4.0)));
        }
        let record = judged(&table);
        assert_eq!(record.faults, Vec::<String>::new());
        let ours = record.figure("compare.tautline.bytes_per_line").unwrap();
        assert_eq!((ours.value, ours.range()), (200.0, (190.0, 260.0)));
        assert_eq!(
            record.figure("ratio.axum.bytes_per_line").unwrap().value,
            4.0
        );
        assert!(record.figure("ratio.tautline.bytes_per_line").is_none());
    }

    #[test]
    fn who_cannot_be_measured_is_a_fault_with_its_reason() {
        let mut table = Table::new(&[Make::Tautline, Make::Bun]);
        table.take(Make::Tautline, "idle", Ok(idle(200.0)));
        for _ in 0..2 {
            let missing = PartError::Failed("bun is not on this machine".to_owned());
            table.take(Make::Bun, "idle", Err(missing));
        }
        let faults = judged(&table).faults;
        assert_eq!(
            faults[0],
            "bun could not be measured, 2 × idle: bun is not on this machine"
        );
        assert!(
            faults[1].starts_with("bun has no bytes_per_line, "),
            "{faults:?}"
        );
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn ours_may_make_no_mistake_and_those_of_others_are_told() {
        let mut table = Table::new(&[Make::Tautline, Make::Axum]);
        for make in [Make::Tautline, Make::Axum] {
            let mut run = idle(200.0);
            run.faults.push("3 messages lost".to_owned());
            table.take(make, "idle", Ok(run));
        }
        let record = judged(&table);
        assert_eq!(record.faults, ["tautline, 1 × idle: 3 messages lost"]);
        assert_eq!(record.warnings, ["axum, 1 × idle: 3 messages lost"]);
    }
}
