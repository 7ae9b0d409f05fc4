//! What a node short of memory gives up, and in which order: newcomers first, messages last.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::close::CloseReason;
use crate::net::stream::Transport;
use crate::reactor::shard::Shard;

/// How short of memory the node is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// New lines are refused.
    RefuseLines,
    /// The newest idle lines are closed, some at a time.
    ShedLines,
    /// New messages are refused.
    RefuseMessages,
}

impl Pressure {
    const ALL: [Self; 4] = [
        Self::None,
        Self::RefuseLines,
        Self::ShedLines,
        Self::RefuseMessages,
    ];

    /// The highest level whose watermark, in percent, has been reached.
    pub fn at(used_percent: u8, watermarks_percent: [u8; 3]) -> Self {
        let reached = watermarks_percent
            .iter()
            .take_while(|&&mark| used_percent >= mark);
        Self::ALL[reached.count()]
    }
}

/// Where the control plane says how short memory is, and the reactors read it.
#[derive(Debug, Default)]
pub struct PressureGauge(AtomicU8);

impl PressureGauge {
    /// The level now.
    pub fn level(&self) -> Pressure {
        // Relaxed: it publishes nothing but itself, and one iteration later is soon enough.
        Pressure::ALL[usize::from(self.0.load(Ordering::Relaxed)) % Pressure::ALL.len()]
    }

    /// Says the level; returns whether it is another one.
    pub fn set(&self, level: Pressure) -> bool {
        self.0.swap(level as u8, Ordering::Relaxed) != level as u8
    }
}

impl<T: Transport> Shard<T> {
    /// Closes the newest idle lines of the slots just swept, if memory is that short. New lines are the ones that come back most
    /// easily elsewhere, and a fleet that reconnects is what fills a node up.
    pub(crate) fn shed(&mut self, slots: std::ops::Range<u32>) {
        if self.node.pressure.level() < Pressure::ShedLines {
            return;
        }
        let mut idle: Vec<_> = self
            .arena
            .iter_from(slots.start)
            .take_while(|(id, _)| id.slot < slots.end)
            .filter(|(_, conn)| conn.outbox.is_none())
            .filter_map(|(id, conn)| Some((conn.device()?.generation, id)))
            .collect();
        let share = idle.len().div_ceil(SHED_SHARE);
        if share < idle.len() {
            idle.select_nth_unstable_by_key(share, |&(generation, _)| {
                std::cmp::Reverse(generation)
            });
        }
        for (_, id) in idle.into_iter().take(share) {
            self.cells().shed.add(1);
            self.close(id, CloseReason::Overload);
        }
    }
}

/// One line in so many is closed by a pass over the table, which takes a second.
const SHED_SHARE: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_in_the_order_of_their_watermarks() {
        let at = |percent| Pressure::at(percent, [80, 90, 95]);
        assert_eq!(at(79), Pressure::None);
        assert_eq!(at(80), Pressure::RefuseLines);
        assert_eq!(at(94), Pressure::ShedLines);
        assert_eq!(at(u8::MAX), Pressure::RefuseMessages);
    }

    #[test]
    fn the_gauge_tells_a_change() {
        let gauge = PressureGauge::default();
        assert!(!gauge.set(Pressure::None));
        assert!(gauge.set(Pressure::ShedLines));
        assert_eq!(gauge.level(), Pressure::ShedLines);
    }
}
