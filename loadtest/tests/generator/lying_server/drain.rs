//! The server's side of a drain: all lines are asked to leave, and those that stay are closed.

use serde_json::json;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use super::{Lie, State};

/// The call.
pub(super) const PATH: &str = "/v1/nodes/loadtest/drain";
/// Messages that are posted until the lines that have not left are closed.
const GRACE: u32 = 200;

impl State {
    /// Begins a drain at the API's word; it is taken back without one.
    pub(super) fn handle_drain(&mut self, method: &str) {
        if method == "POST" {
            self.start_drain();
        }
    }

    /// Does what is due with this message.
    pub(super) fn drain_if_due(&mut self) {
        if self.drain_at == Some(self.posted) {
            self.start_drain();
        }
        if self.close_at == Some(self.posted) {
            self.close_asked();
        }
    }

    fn start_drain(&mut self) {
        let goaway = json!({"type": "goaway", "reconnect_after_ms": 0}).to_string();
        for (device, line) in &mut self.lines {
            if self.lie == Lie::KeepLine && device.ends_with('0') {
                continue;
            }
            line.is_asked_to_leave = true;
            drop(line.socket.send(Message::text(goaway.clone())));
        }
        self.close_at = Some(self.posted + GRACE);
    }

    fn close_asked(&mut self) {
        let asked = self.lines.extract_if(.., |_, line| line.is_asked_to_leave);
        for (_, mut line) in asked {
            let frame = CloseFrame {
                code: 4000.into(),
                reason: "drain".into(),
            };
            drop(line.socket.close(Some(frame)));
        }
    }
}
