//! Precedence of the threads that measure over those that load.
//!
//! Both share the machine with the server. A canary that waits for a core behind sixteen threads which reset sockets says how
//! long that queue is, which is about the generator, instead of what a device elsewhere would notice of the server.

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

/// The nice value of threads that measure: some ten times the share of others.
const MEASURING: i32 = -10;
