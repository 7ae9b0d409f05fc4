//! Bugs on purpose: what the simulator must find to be worth its name.
//!
//! A test plants one, and lives are lived until the checker objects (`sim::plant`). Outside of tests none can be planted,
//! and the questions cost nothing: the answer is a constant.

/// A promise broken where it is easily broken by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A line that ends takes every line of its device out of presence, not only itself.
    UnconditionalRelease,
    /// A message is said to be written when it is put into the outbox.
    EarlyWritten,
    /// A message bound to a line goes to whatever line has its slot now.
    SkippedGeneration,
    /// A message takes the lane to where its device is now, whatever is on its way in another.
    FreeLanes,
}

/// Whether the code that asks is to misbehave.
#[cfg(not(test))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

/// Whether the code that asks is to misbehave.
#[cfg(test)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug in all that runs on this thread from now on.
#[cfg(test)]
pub(crate) fn plant(bug: Bug) {
    PLANTED.set(Some(bug));
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}
