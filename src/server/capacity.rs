//! How large the node's parts are made, by what this machine gives it.

use crate::config::Config;
use crate::net::fdtable::FdTable;
use crate::server::doctor::machine::Machine;

/// The node's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Event loops.
    pub(super) reactors: u16,
    /// Most connections one reactor may hold.
    pub(super) slots_max: u32,
}

impl Capacity {
    /// One reactor for each core it may use, unless told otherwise, and as many slots as descriptors.
    pub(super) fn of(config: &Config, machine: &Machine) -> Self {
        let reactors = match config.reactor.threads {
            0 => machine.cores(),
            threads => threads,
        };
        let slots = descriptor_lines(machine.descriptors(), FdTable::Shared, reactors).max(1);
        Self {
            reactors,
            slots_max: u32::try_from(slots).unwrap_or(u32::MAX).min(SLOTS_MAX),
        }
    }
}

/// Lines that fit when one table may hold so many descriptors.
pub(super) fn descriptor_lines(descriptors: u64, table: FdTable, reactors: u16) -> u64 {
    let lines = descriptors.saturating_sub(SPARE_DESCRIPTORS);
    let lines = lines.min(SLOTS_MAX.into());
    if table.is_own() {
        lines * u64::from(reactors)
    } else {
        lines
    }
}

/// Descriptors a table needs besides connections: polls and wakers of all reactors, listeners, logs.
pub(super) const SPARE_DESCRIPTORS: u64 = 256;
/// Slots a location can name (`base::place`).
const SLOTS_MAX: u32 = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_their_own_multiply_the_limit() {
        assert_eq!(descriptor_lines(20_000, FdTable::Unshared, 16), 315_904);
        assert_eq!(descriptor_lines(20_000, FdTable::CloseRange, 16), 315_904);
        assert_eq!(descriptor_lines(20_000, FdTable::Shared, 16), 19_744);
        assert_eq!(descriptor_lines(100, FdTable::Unshared, 16), 0);
        assert_eq!(
            descriptor_lines(u64::MAX, FdTable::Unshared, 2),
            u64::from(SLOTS_MAX) * 2
        );
    }
}
