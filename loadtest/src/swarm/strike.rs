//! What is done to lines on purpose, and to which of them.

use std::time::Duration;

use crate::name::{LineId, is_chosen};

/// Something that befalls many lines at the same moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Strike {
    /// When, on the clock of the run. Their shadows fall [`SHADOW_LEAD`] earlier.
    pub(crate) at: Duration,
    /// Which lines.
    pub(crate) lines: Selection,
    /// What.
    pub(crate) blow: Blow,
}

/// Lines, or an even share of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Selection {
    /// The first.
    pub(crate) first: LineId,
    /// How many there are to choose from.
    pub(crate) count: u32,
    /// How many of these: 0 to 1.
    pub(crate) share: f64,
}

/// What befalls a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It is reset: a process that dies with unread data, a load balancer that forgets.
    Reset,
    /// It ends with a FIN and without a close frame: a process that dies.
    Fin,
    /// Nothing passes any more, in either direction, and nobody is told: a cable, a radio, a NAT that forgets. The
    /// device notices within this time, some at once.
    Silence {
        /// The longest that one takes.
        notice: Duration,
    },
    /// The same for good: the device does not come back before it is [woken](Self::Wake).
    Vanish,
    /// It stops reading.
    Deafness,
    /// Who does not read reads again; who has vanished comes back.
    Wake,
    /// Its node is about to die: what is sent to it from now on may be lost.
    Doom,
}

/// Messages that were answered so long before their line is cut have arrived by then.
pub(crate) const SHADOW_LEAD: Duration = Duration::from_millis(500);

impl Selection {
    /// Whether a line is one of them.
    pub(crate) fn has(&self, line: LineId) -> bool {
        let place = line.0.checked_sub(self.first.0);
        place.is_some_and(|place| place < self.count && is_chosen(place, self.share))
    }

    /// How many they are.
    pub(crate) fn len(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a count is no larger, and not negative"
        )]
        let chosen = (f64::from(self.count) * self.share).floor() as u32;
        chosen
    }
}

impl Blow {
    /// Whether what is under way to a line may be lost with it.
    pub(super) fn casts_shadow(self) -> bool {
        match self {
            Self::Reset
            | Self::Fin
            | Self::Silence { .. }
            | Self::Vanish
            | Self::Deafness
            | Self::Doom => true,
            Self::Wake => false,
        }
    }

    /// Whether it cuts a line.
    pub(super) fn ends_lines(self) -> bool {
        match self {
            Self::Reset | Self::Fin | Self::Silence { .. } | Self::Vanish => true,
            Self::Deafness | Self::Wake | Self::Doom => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_has_as_many_lines_as_it_says() {
        for (count, share) in [(0, 1.0), (10, 0.0), (100, 0.3), (7, 0.5), (1_000, 1.0)] {
            let selection = Selection {
                first: LineId(50),
                count,
                share,
            };
            let has = (0..2_000).filter(|n| selection.has(LineId(*n))).count();
            assert_eq!(has, selection.len() as usize, "{selection:?}");
        }
    }
}
