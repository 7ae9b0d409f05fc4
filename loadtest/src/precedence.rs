//! Who comes first on a machine that the server and its load share: threads that measure, then the server, then threads that
//! load.
//!
//! A canary that waits for a core behind sixteen threads which reset sockets says how long that queue is, which is about the
//! generator, instead of what a device elsewhere would notice of the server. And a server that waits there has nobody to answer
//! with: devices that all come back at once bring processors of their own in the field.

use rustix::process::{getpriority_process, setpriority_process};

/// What the calling thread starts while this lives comes first, if the kernel allows it; the thread itself, which only
/// starts it, as well.
#[derive(Debug)]
pub(crate) struct Precedence {
    before: Option<i32>,
}

impl Precedence {
    /// Takes precedence.
    pub(crate) fn take() -> Self {
        let raise = || {
            let before = getpriority_process(None)?;
            setpriority_process(None, MEASURING)?;
            Ok::<_, rustix::io::Errno>(before)
        };
        Self {
            before: raise().ok(),
        }
    }

    /// Whether the kernel gave it.
    pub(crate) fn is_given(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Going back to where it was is always allowed.
            _ = setpriority_process(None, before);
        }
    }
}

/// Lets the server and whoever measures go before the calling thread, for good. Every kernel allows that.
pub(crate) fn step_back() {
    if let Ok(before) = getpriority_process(None) {
        _ = setpriority_process(None, before + LOADING);
    }
}

/// The nice value of threads that measure: some ten times the share of others.
const MEASURING: i32 = -10;
/// By how much threads that load are nicer than the server, which then gets three times their share of a core that both want.
/// What it does to storms is in `docs/decisions.md`.
const LOADING: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_steps_back_does_so_alone() {
        let nice = || getpriority_process(None).unwrap();
        let before = nice();
        let stepped_back = std::thread::spawn(move || {
            step_back();
            nice()
        });
        assert_eq!(stepped_back.join().unwrap(), (before + LOADING).min(19));
        assert_eq!(nice(), before);
    }
}
