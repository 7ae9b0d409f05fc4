//! Who the lines are: their numbers, and the device and account names that follow from them.

use crate::swarm::strike::Selection;

/// A line, numbered from `--first-line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LineId(pub(crate) u32);

/// How the lines of one swarm are called. Runs with other numbers, or another tag, share no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    first: u32,
    lines: u32,
    account_lines: u32,
    /// Set for lines beside a run's own.
    tag: Option<u16>,
}

/// Lines that one sending connection has to itself: every `step`th from `first` on. That makes the order of a line's
/// messages a promise the server can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The first of them.
    pub(crate) first: LineId,
    /// How far the next one is.
    pub(crate) step: u32,
    /// How many they are.
    pub(crate) count: u32,
}

/// Neighbouring lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// The first of them.
    pub(crate) first: LineId,
    /// How many they are.
    pub(crate) count: u32,
}

/// Connections that send to some lines, where nobody asks for more.
const CONNECTIONS_MAX: u32 = 4;
/// Lines with one tag. Their numbers are above those of all lines without one.
pub(crate) const TAGGED_LINES_MAX: u32 = 1 << 15;
/// Lines of an account where nothing else is asked for.
pub(crate) const ACCOUNT_LINES: u32 = 4;

impl Names {
    /// The names of `lines` lines from `first` on, so many to each account. Further lines are senders: they take turns
    /// among the accounts of the others.
    pub(crate) fn new(first: u32, lines: u32, account_lines: u32) -> Self {
        Self {
            first,
            lines: lines.max(1),
            account_lines: account_lines.max(1),
            tag: None,
        }
    }

    /// The names of `lines` lines beside a run's own; another tag, other names and numbers.
    pub(crate) fn tagged(tag: u16, lines: u32) -> Self {
        let first = 1 << 31 | u32::from(tag) << TAGGED_LINES_MAX.ilog2();
        Self {
            tag: Some(tag),
            ..Self::new(first, lines.min(TAGGED_LINES_MAX), ACCOUNT_LINES)
        }
    }

    /// The first line.
    pub(crate) fn first(&self) -> LineId {
        LineId(self.first)
    }

    /// The lines, senders not included.
    pub(crate) fn lines(&self) -> u32 {
        self.lines
    }

    /// The `index`th sender.
    pub(crate) fn sender(&self, index: u32) -> LineId {
        LineId(self.first + self.lines + index)
    }

    /// The name of a line's device: 16 bytes, as the memory figures assume.
    pub(crate) fn device(&self, LineId(n): LineId) -> String {
        match self.tag {
            None => format!("dev-{n:012}"),
            Some(tag) => format!("extra-{tag:04x}-{}", n - self.first),
        }
    }

    /// The account of a line, 8 bytes.
    pub(crate) fn account(&self, line: LineId) -> String {
        let place = self.account_place(line);
        match self.tag {
            None => format!("u{:07}", (self.first + place) % 10_000_000),
            Some(tag) => format!("extra-{tag:04x}-u{place}"),
        }
    }

    /// All lines.
    pub(crate) fn all(&self) -> Lines {
        Lines {
            first: self.first(),
            count: self.lines,
        }
    }

    /// The lines that each of `senders` senders may send to when it may reach its own account: those of one account
    /// share its lines evenly.
    pub(crate) fn account_rows(&self, senders: u32) -> Vec<Row> {
        let accounts = self.accounts();
        let row = |index: u32| {
            let (account, rank) = (index % accounts, index / accounts);
            let rivals = (senders - account).div_ceil(accounts);
            let start = self.first + account * self.account_lines;
            let end = (start + self.account_lines).min(self.first + self.lines);
            Row::every(rivals, start + rank, end)
        };
        (0..senders).map(row).collect()
    }

    /// All lines in two parts, the last of which has this share of them.
    pub(crate) fn split(&self, share: f64) -> (Lines, Lines) {
        let all = self.all();
        let last = all.share(share).len();
        let first = Lines {
            first: all.first,
            count: all.count - last,
        };
        let last = Lines {
            first: first.end(),
            count: last,
        };
        (first, last)
    }

    fn accounts(&self) -> u32 {
        self.lines.div_ceil(self.account_lines)
    }

    fn account_place(&self, LineId(n): LineId) -> u32 {
        let place = n.saturating_sub(self.first);
        if place < self.lines {
            place / self.account_lines
        } else {
            (place - self.lines) % self.accounts()
        }
    }
}

impl Lines {
    /// Rows for a few connections.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows_of(self.count.min(CONNECTIONS_MAX))
    }

    /// A row for each of `connections`, which share the lines evenly.
    pub(crate) fn rows_of(&self, connections: u32) -> Vec<Row> {
        let (LineId(first), LineId(end)) = (self.first, self.end());
        let row = |index| Row::every(connections, first + index, end);
        (0..connections).map(row).collect()
    }

    /// The line after the last.
    pub(crate) fn end(&self) -> LineId {
        LineId(self.first.0 + self.count)
    }

    /// All of them.
    pub(crate) fn selection(&self) -> Selection {
        self.share(1.0)
    }

    /// A share of them.
    pub(crate) fn share(&self, share: f64) -> Selection {
        Selection {
            first: self.first,
            count: self.count,
            share,
        }
    }
}

impl Row {
    fn every(step: u32, first: u32, end: u32) -> Self {
        Self {
            first: LineId(first),
            step,
            count: end.saturating_sub(first).div_ceil(step),
        }
    }

    /// The `index`th line of the row.
    pub(crate) fn line(&self, index: u32) -> LineId {
        LineId(self.first.0 + self.step * index)
    }
}

/// Spreads a share over the numbers: every third for a third.
pub(crate) fn is_chosen(n: u32, share: f64) -> bool {
    (f64::from(n) * share).floor() < ((f64::from(n) + 1.0) * share).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rows: &[Row]) -> Vec<LineId> {
        let each = rows
            .iter()
            .flat_map(|row| (0..row.count).map(|i| row.line(i)));
        let mut all: Vec<_> = each.collect();
        all.sort_unstable();
        all
    }

    fn all(names: &Names) -> Vec<LineId> {
        (0..names.lines).map(|n| LineId(names.first + n)).collect()
    }

    #[test]
    fn names_have_the_lengths_the_memory_figures_assume() {
        let names = Names::new(0, 1_000, ACCOUNT_LINES);
        assert_eq!(names.device(LineId(42)), "dev-000000000042");
        assert_eq!(names.account(LineId(42)), "u0000010");
    }

    #[test]
    fn runs_side_by_side_share_no_name() {
        let (one, two) = (Names::new(0, 100, 10), Names::new(100, 100, 3));
        let of = |names: &Names, n: u32| {
            let line = LineId(names.first + n);
            [names.device(line), names.account(line)]
        };
        let first: Vec<_> = (0..100).flat_map(|n| of(&one, n)).collect();
        assert!(
            (0..100)
                .flat_map(|n| of(&two, n))
                .all(|name| !first.contains(&name))
        );
        let extra = [Names::tagged(1, 5), Names::tagged(2, 5)];
        assert!(
            of(&extra[0], 3)
                .iter()
                .all(|name| !of(&extra[1], 3).contains(name))
        );
        assert!(extra[0].sender(0) <= extra[1].first() && LineId(u32::MAX / 2) < extra[0].first());
    }

    #[test]
    fn every_line_belongs_to_one_connection() {
        for (lines_count, connections) in [(10, 3), (1, 1), (97, 16), (16, 16)] {
            let names = Names::new(7, lines_count, ACCOUNT_LINES);
            assert_eq!(lines(&names.all().rows_of(connections)), all(&names));
        }
    }

    #[test]
    fn a_sender_reaches_lines_of_its_own_account_and_no_other_sender_does() {
        for (count, account_lines, senders) in [(100, 25, 4), (100, 10, 4), (40, 4, 20), (9, 4, 3)]
        {
            let names = Names::new(1_000, count, account_lines);
            let rows = names.account_rows(senders);
            for (index, row) in (0..).zip(&rows) {
                let account = names.account(names.sender(index));
                assert!(row.count > 0, "{names:?}");
                assert!((0..row.count).all(|i| names.account(row.line(i)) == account));
            }
            let mut reached = lines(&rows);
            reached.dedup();
            assert_eq!(reached.len(), lines(&rows).len(), "{names:?}");
            assert!(reached.iter().all(|line| all(&names).contains(line)));
        }
    }

    #[test]
    fn as_many_accounts_as_senders_reach_every_line() {
        let names = Names::new(0, 1_000, 1_000_u32.div_ceil(7));
        assert_eq!(lines(&names.account_rows(7)), all(&names));
    }

    #[test]
    fn more_senders_than_lines_of_an_account_leave_some_without_a_line() {
        let rows = Names::new(0, 4, 2).account_rows(5);
        assert!(rows.iter().any(|row| row.count == 0));
    }

    #[test]
    fn two_parts_have_all_lines_and_no_row_crosses_them() {
        let names = Names::new(7, 100, 4);
        for (share, count) in [(0.0, 0), (0.05, 5), (0.305, 30), (1.0, 100)] {
            let (first, last) = names.split(share);
            assert_eq!(last.count, count);
            let all = [lines(&first.rows()), lines(&last.rows())].concat();
            assert_eq!(all, (7..107).map(LineId).collect::<Vec<_>>());
            assert!(
                lines(&last.rows())
                    .iter()
                    .all(|line| last.selection().has(*line))
            );
        }
    }

    #[test]
    fn a_share_of_the_lines_is_chosen_evenly() {
        let chosen = |share| (0..1_000).filter(|n| is_chosen(*n, share)).count();
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(chosen), [0, 250, 500, 1_000]);
        assert!((0..100).all(|n| (n..n + 4).filter(|n| is_chosen(*n, 0.25)).count() == 1));
    }
}
