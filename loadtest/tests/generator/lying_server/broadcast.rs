//! The server's side of broadcasts.

use serde_json::{Value, json};

use super::{Lie, State};

/// The call.
pub(super) const PATH: &str = "/v1/broadcasts";

impl State {
    /// Begins a broadcast, or says what became of one.
    pub(super) fn handle_broadcast(&mut self, path: &str, body: &str) -> (u16, Value) {
        match path.rsplit_once('/') {
            Some((PATH, id)) => match self.broadcasts.get(id) {
                Some(said) => (200, said.clone()),
                None => (404, json!({})),
            },
            _ if self.lie == Lie::Refuse => (503, json!({})),
            _ => (202, self.broadcast(body)),
        }
    }

    /// Sends to all lines, and lies to every tenth.
    fn broadcast(&mut self, body: &str) -> Value {
        let id = format!("b{}", self.broadcasts.len());
        let devices: Vec<String> = self.lines.keys().cloned().collect();
        let lines = devices.len();
        let statuses = devices
            .into_iter()
            .map(|device| self.handle_push(device, body));
        let written = statuses.filter(|(_, status)| *status == 200).count();
        let is_silent = self.lie == Lie::Silence;
        let said = |state: &str| json!({"broadcast_id": id, "state": state, "lines": lines, "written": written});
        let end = said(if is_silent { "running" } else { "done" });
        let begun = said("running");
        self.broadcasts.insert(id.clone(), end);
        begun
    }
}
