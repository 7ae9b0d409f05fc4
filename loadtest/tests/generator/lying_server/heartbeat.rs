//! Heartbeats, by which a server notices who has vanished.

use std::mem;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tungstenite::Message;

use super::State;

/// What heartbeats say.
pub(super) const PING: &str = "beat";
/// A line that answers nothing from one to the next is gone.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pings all lines at intervals.
pub(super) fn beat_forever(state: &Mutex<State>) {
    loop {
        thread::park_timeout(INTERVAL);
        state.lock().beat();
    }
}

impl State {
    /// A line has answered.
    pub(super) fn hear(&mut self, device: &str, number: u32) {
        let line = self.lines.get_mut(device);
        if let Some(line) = line.filter(|line| line.number == number) {
            line.has_answered = true;
        }
    }

    fn beat(&mut self) {
        self.lines.retain(|_, line| {
            drop(line.socket.send(Message::Ping(PING.into())));
            mem::replace(&mut line.has_answered, false)
        });
    }
}
