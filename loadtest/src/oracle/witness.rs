//! The receiving end's eyes.

use std::collections::BTreeSet;

use crate::name::LineId;
use crate::oracle::ledger::Ledger;
use crate::oracle::mark::Mark;

/// What arrived on one contiguous run of lines.
#[derive(Debug)]
pub(crate) struct Witness {
    first: LineId,
    expected: Vec<u32>,
    missing: BTreeSet<(LineId, u32)>,
    pub(super) received: u64,
    pub(super) duplicate: u64,
    pub(super) misordered: u64,
    pub(super) misdelivered: u64,
    pub(super) foreign: u64,
}

/// A jump over more messages than this is no message of this run.
const SEQUENCE_JUMP_MAX: u32 = 1 << 20;

impl Witness {
    /// Watches lines `first..first + count`.
    pub(crate) fn new(first: LineId, count: u32) -> Self {
        Self {
            first,
            expected: vec![0; count as usize],
            missing: BTreeSet::new(),
            received: 0,
            duplicate: 0,
            misordered: 0,
            misdelivered: 0,
            foreign: 0,
        }
    }

    /// Sees a message arrive on a line.
    pub(crate) fn see(&mut self, line: LineId, mark: Mark) {
        self.received += 1;
        if mark.line != line {
            self.misdelivered += 1;
            return;
        }
        let expected = &mut self.expected[(line.0 - self.first.0) as usize];
        if mark.sequence < *expected {
            let was_missing = self.missing.remove(&(line, mark.sequence));
            *(if was_missing {
                &mut self.misordered
            } else {
                &mut self.duplicate
            }) += 1;
        } else if mark.sequence - *expected > SEQUENCE_JUMP_MAX {
            self.foreign += 1;
        } else {
            self.missing
                .extend((*expected..mark.sequence).map(|skipped| (line, skipped)));
            *expected = mark.sequence + 1;
        }
    }

    /// Sees something arrive that bears a mark's fence but is not a mark.
    pub(crate) fn see_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Everything of these lines that was issued and never seen.
    pub(super) fn unseen<'a>(
        &'a self,
        ledger: &'a Ledger,
    ) -> impl Iterator<Item = (LineId, u32)> + 'a {
        let tails = self
            .expected
            .iter()
            .zip(self.first.0..)
            .flat_map(|(seen, n)| {
                (*seen..ledger.issued(LineId(n))).map(move |sequence| (LineId(n), sequence))
            });
        self.missing.iter().copied().chain(tails)
    }
}
