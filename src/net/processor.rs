//! What the calling thread has used of the processor.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Processor time of the calling thread since it began; `None` where the kernel does not say. Other than the time of day this is
/// a system call, some 0.2 µs.
pub fn thread_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(time.into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn waiting_takes_no_processor_time() {
        let before = thread_time().unwrap();
        let (_sender, receiver) = mpsc::channel::<()>();
        let patience = Duration::from_millis(200);
        receiver.recv_timeout(patience).unwrap_err();
        let worked = thread_time().unwrap() - before;
        assert!(worked < patience, "{worked:?}");
        assert!(worked > Duration::ZERO);
    }
}
