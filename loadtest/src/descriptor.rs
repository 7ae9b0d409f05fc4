//! Descriptors: a table for each thread, so that the limit of a process bounds a thread instead.

use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a thread needs besides its lines: its poll, copies of what the process had open, room for `/proc` reads.
const RESERVE: u32 = 1_500;

/// Raises the limit as far as it goes and tells how many lines one thread may hold, each with so many sockets on average.
pub(crate) fn lines_per_thread(sockets: f64) -> io::Result<u32> {
    let hard = limit()?;
    let reserve = RESERVE.min(hard / 2);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a count is no larger, and not negative"
    )]
    let lines = (f64::from(hard - reserve) / sockets) as u32;
    Ok(lines.max(1))
}

/// Raises the limit as far as it goes and tells what it is now; what is started from here on has it too.
pub(crate) fn limit() -> io::Result<u32> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(u32::try_from(hard).unwrap_or(u32::MAX))
}

/// Gives the calling thread its own descriptor table. Call it before the thread opens anything; nothing it opens
/// afterwards may be used, dropped or woken by another thread.
///
/// Where the kernel forbids it, as some containers do, the shared table serves as long as it has room for everybody:
/// `is_needed` tells that it has not.
pub(crate) fn separate(is_needed: bool) -> io::Result<()> {
    match unshare(CloneFlags::CLONE_FILES) {
        Err(error) if is_needed => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
