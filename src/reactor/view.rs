//! An account as the watchers of one shard see it: a picture put together from news in any order.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::mailbox::account::{Change, Surveyed};
use crate::wire::account::{Cause, Listed, Rest, encode_devices};
use crate::wire::api::DeviceState;

/// An account as the watchers of one shard see it.
#[derive(Debug)]
pub(super) struct View {
    /// The number of this watch: news for an earlier one are none.
    watch: u32,
    devices: BTreeMap<Box<str>, Seen>,
    /// Surveys whose lines are not in it yet.
    missing: usize,
    watchers: Vec<Watcher>,
}

/// A device of a watched account.
#[derive(Debug)]
struct Seen {
    /// Its newest line.
    generation: u64,
    /// What watchers know: online, or moving.
    told: DeviceState,
    /// That line has ended, and nothing was told of it yet.
    is_absent: bool,
}

#[derive(Debug)]
struct Watcher {
    conn: ConnId,
    /// The id of its request, as raw JSON.
    id: Box<str>,
    progress: Progress,
}

/// How much of the account a watcher has been shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// All devices up to this one, or none yet. Changes of devices that come later are in their page.
    Paging(Option<Box<str>>),
    /// All of them.
    Live,
}

/// What watchers are to be told of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) state: DeviceState,
    pub(super) cause: Cause,
    pub(super) at_ms: u64,
}

impl View {
    /// A picture that so many surveys will make whole.
    pub(super) fn new(watch: u32, surveys: usize) -> Self {
        Self {
            watch,
            devices: BTreeMap::new(),
            missing: surveys,
            watchers: Vec::new(),
        }
    }

    /// Whether news with this number are for this view.
    pub(super) fn is_of(&self, watch: u32) -> bool {
        self.watch == watch
    }

    /// Whether every shard has said what it has.
    pub(super) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Adds a watcher, which has been shown nothing yet. `id` is its request's, as raw JSON.
    pub(super) fn add(&mut self, conn: ConnId, id: &str) {
        self.watchers.push(Watcher {
            conn,
            id: id.into(),
            progress: Progress::Paging(None),
        });
    }

    /// Takes a watcher out; false when it was none.
    pub(super) fn remove(&mut self, conn: ConnId) -> bool {
        let at = self.watchers.iter().position(|other| other.conn == conn);
        at.map(|at| self.watchers.swap_remove(at)).is_some()
    }

    /// Whether nobody watches.
    pub(super) fn is_unwatched(&self) -> bool {
        self.watchers.is_empty()
    }

    /// The watchers that are to hear of a change of a device: those that have been shown it, or would have been.
    pub(super) fn hearers(&self, device_id: &str) -> Vec<ConnId> {
        let watchers = self.watchers.iter();
        watchers
            .filter(|watcher| watcher.progress.has_shown(device_id))
            .map(|watcher| watcher.conn)
            .collect()
    }

    /// Takes what one survey has found. Nobody has been shown anything yet, so nothing is to be told.
    pub(super) fn merge(&mut self, surveyed: &Surveyed) {
        for member in &surveyed.members {
            self.see(&member.device_id, member.generation, DeviceState::Online);
            if let Some(seen) = self.devices.get_mut(&member.device_id)
                && seen.generation == member.generation
                && member.leaving.is_some()
            {
                seen.told = DeviceState::Moving;
            }
        }
        self.missing = self.missing.saturating_sub(1);
    }

    /// Notes a line that is there, unless a newer one is known; true when the device was not.
    fn see(&mut self, device_id: &str, generation: u64, told: DeviceState) -> bool {
        let Some(seen) = self.devices.get_mut(device_id) else {
            let seen = Seen {
                generation,
                told,
                is_absent: false,
            };
            self.devices.insert(device_id.into(), seen);
            return true;
        };
        if seen.generation < generation {
            seen.generation = generation;
            seen.is_absent = false;
        }
        false
    }

    /// Takes a line that has been opened.
    pub(super) fn open(&mut self, change: &Change) -> Option<Telling> {
        let is_new = self.see(&change.device_id, change.generation, DeviceState::Online);
        let seen = self.devices.get_mut(&change.device_id)?;
        if seen.generation != change.generation {
            return None;
        }
        let was_told = std::mem::replace(&mut seen.told, DeviceState::Online);
        let is_news = is_new || was_told != DeviceState::Online;
        is_news.then_some(Telling {
            state: DeviceState::Online,
            cause: Cause::Connected,
            at_ms: change.at_ms,
        })
    }

    /// Takes a line that was asked to go away.
    pub(super) fn leave(&mut self, change: &Change, reason: CloseReason) -> Option<Telling> {
        let seen = self.devices.get_mut(&change.device_id)?;
        if seen.generation != change.generation || seen.told == DeviceState::Moving {
            return None;
        }
        seen.told = DeviceState::Moving;
        Some(Telling {
            state: DeviceState::Moving,
            cause: Cause::Line(reason),
            at_ms: change.at_ms,
        })
    }

    /// Notes the end of a line; true when it was the device's newest.
    pub(super) fn end(&mut self, change: &Change) -> bool {
        let seen = self.devices.get_mut(&change.device_id);
        let Some(seen) = seen.filter(|seen| seen.generation == change.generation) else {
            return false;
        };
        !std::mem::replace(&mut seen.is_absent, true)
    }

    /// Forgets a device if it is still away since that line; true when it was.
    pub(super) fn forget(&mut self, device_id: &str, generation: u64) -> bool {
        let seen = self.devices.get(device_id);
        let is_away = seen.is_some_and(|seen| seen.is_absent && seen.generation == generation);
        if is_away {
            self.devices.remove(device_id);
        }
        is_away
    }

    /// Writes the next page for a watcher; whether there is another, or `None` for who does not watch or has seen all.
    pub(super) fn show_page(&mut self, conn: ConnId, out: &mut Vec<u8>) -> Option<bool> {
        let watcher = self
            .watchers
            .iter_mut()
            .find(|watcher| watcher.conn == conn)?;
        let Progress::Paging(after) = &watcher.progress else {
            return None;
        };
        let after = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = || self.devices.range::<str, _>((after, Bound::Unbounded));
        let page: Vec<_> = rest().take(PAGE_DEVICES).collect();
        let more = rest().nth(PAGE_DEVICES).is_some();
        let listed = page.iter().map(|(device_id, seen)| Listed {
            device_id,
            state: seen.told,
        });
        encode_devices(&watcher.id, listed, Rest::More(more), out);
        watcher.progress = match page.last() {
            Some((last, _)) if more => Progress::Paging(Some((*last).clone())),
            _ => Progress::Live,
        };
        Some(more)
    }
}

impl Progress {
    fn has_shown(&self, device_id: &str) -> bool {
        match self {
            Self::Live => true,
            Self::Paging(after) => after.as_deref().is_some_and(|after| device_id <= after),
        }
    }
}

/// Devices in one page of a watch: some 16 KiB.
/// In tests few, so that a small account has several too.
const PAGE_DEVICES: usize = if cfg!(test) { 2 } else { 200 };

#[cfg(test)]
mod tests {
    use rand::Rng as _;
    use serde_json::Value;

    use super::*;
    use crate::base::id::{Location, ShardId};
    use crate::base::seed;
    use crate::mailbox::account::{Member, Turn};

    const WATCHER: ConnId = ConnId {
        slot: 1,
        generation: 2,
    };

    fn change(device: u32, generation: u64) -> Change {
        Change {
            watch: 1,
            account: "ann".into(),
            device_id: name(device),
            generation,
            turn: Turn::Opened,
            at_ms: 0,
        }
    }

    fn name(device: u32) -> Box<str> {
        format!("d-{device:05}").into()
    }

    fn surveyed(lines: &BTreeMap<u32, u64>) -> Surveyed {
        let member = |(device, generation): (&u32, &u64)| Member {
            device_id: name(*device),
            location: Location {
                shard: ShardId(0),
                conn: WATCHER,
            },
            generation: *generation,
            since_ms: 0,
            leaving: None,
        };
        Surveyed {
            watch: 1,
            account: "ann".into(),
            members: lines.iter().map(member).collect(),
        }
    }

    fn shown(view: &mut View) -> Option<(Vec<(String, String)>, bool)> {
        let mut out = Vec::new();
        let more = view.show_page(WATCHER, &mut out)?;
        let page: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(page["more"], more);
        let devices = page["devices"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let devices = devices.map(|device| (text(&device["device_id"]), text(&device["state"])));
        Some((devices.collect(), more))
    }

    #[test]
    fn a_device_that_is_back_with_a_newer_line_was_never_away() {
        let mut view = View::new(1, 0);
        assert!(view.open(&change(1, 10)).is_some());
        assert!(view.end(&change(1, 10)));
        assert_eq!(view.open(&change(1, 11)), None);
        assert!(!view.forget("d-00001", 10));

        // The end of the older line may come after the newer one has opened, and the other way round.
        assert_eq!(view.open(&change(1, 12)), None);
        assert!(!view.end(&change(1, 11)));
        assert!(view.end(&change(1, 12)));
        assert!(view.forget("d-00001", 12));
        assert!(view.open(&change(1, 13)).is_some());
    }

    #[test]
    fn an_older_line_changes_nothing() {
        let mut view = View::new(1, 1);
        view.open(&change(1, 10));
        view.merge(&surveyed(&[(1, 9)].into()));
        assert!(view.is_whole());
        assert_eq!(view.leave(&change(1, 9), CloseReason::Drain), None);
        assert!(!view.end(&change(1, 9)));
        let moving = view.leave(&change(1, 10), CloseReason::Drain).unwrap();
        assert_eq!(moving.state, DeviceState::Moving);
        assert_eq!(view.leave(&change(1, 10), CloseReason::Drain), None);
        let back = view.open(&change(1, 11)).unwrap();
        assert_eq!(back.state, DeviceState::Online);
    }

    #[test]
    fn pages_and_changes_between_them_add_up_to_the_account() {
        let mut rng = seed::rng();
        for _ in 0..200 {
            let mut lines: BTreeMap<u32, u64> = (0..rng.random_range(0..20))
                .map(|_| (rng.random_range(0..30), 1))
                .collect();
            let mut view = View::new(1, 1);
            view.merge(&surveyed(&lines));
            view.add(WATCHER, "7");
            let mut known: BTreeMap<String, String> = BTreeMap::new();
            let (mut generation, mut is_paging) = (1, true);
            for _ in 0..60 {
                if is_paging && rng.random_ratio(1, 3) {
                    let (page, more) = shown(&mut view).unwrap();
                    is_paging = more;
                    for (id, state) in page {
                        assert!(known.insert(id.clone(), state).is_none(), "{id} twice");
                    }
                    continue;
                }
                let device = rng.random_range(0..30);
                generation += 1;
                let telling = match lines.remove(&device) {
                    None => {
                        lines.insert(device, generation);
                        view.open(&change(device, generation))
                    }
                    Some(line) => {
                        assert!(view.end(&change(device, line)));
                        assert!(view.forget(&name(device), line));
                        Some(Telling {
                            state: DeviceState::Offline,
                            cause: Cause::Connected,
                            at_ms: 0,
                        })
                    }
                };
                if let Some(telling) = telling
                    && view.hearers(&name(device)) == [WATCHER]
                {
                    let id = name(device).into_string();
                    match telling.state {
                        DeviceState::Offline => assert!(known.remove(&id).is_some(), "{id}"),
                        state @ (DeviceState::Online | DeviceState::Moving) => {
                            known.insert(id, state.word().into());
                        }
                    }
                }
            }
            while let Some((page, _)) = shown(&mut view) {
                known.extend(page);
            }
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            let expected: Vec<_> = lines.keys().map(|device| name(*device)).collect();
            assert_eq!(known, expected.iter().map(|id| &**id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn ten_thousand_devices_are_shown_each_once() {
        let lines: BTreeMap<u32, u64> = (0..10_000).map(|device| (device, 1)).collect();
        let mut view = View::new(1, 1);
        view.merge(&surveyed(&lines));
        view.add(WATCHER, "7");
        let mut count = 0;
        while let Some((page, _)) = shown(&mut view) {
            count += page.len();
        }
        assert_eq!(count, 10_000);
        assert!(view.remove(WATCHER) && view.is_unwatched());
        assert!(!view.remove(WATCHER));
    }
}
