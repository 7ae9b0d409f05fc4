//! The server's side of records: `send` frames on lines, and streams.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::{Error, Message, WebSocket};

use super::{Lie, PING, State, heartbeat};

/// Records that a stream may leave without a reply.
const WINDOW: usize = 8;
/// A stream that says nothing for so long waits for replies.
const SILENCE: Duration = Duration::from_millis(3);

/// Answers what a device sends on its line, until it hangs up.
pub(super) fn serve_line(
    state: &Mutex<State>,
    mut line: WebSocket<TcpStream>,
    device: &str,
    number: u32,
) {
    while let Ok(message) = line.read() {
        if let Message::Text(text) = message {
            answer_device(&mut state.lock(), device, &text);
        } else if message.is_close() {
            // Before the answer is out, with the next read: nothing may be delivered behind it.
            state.lock().leave(device, number);
        } else if message == Message::Pong(PING.into()) {
            state.lock().pongs += 1;
        } else if message == Message::Pong(heartbeat::PING.into()) {
            state.lock().hear(device, number);
        }
    }
}

fn answer_device(state: &mut State, device: &str, text: &str) {
    let record: Value = serde_json::from_str(text).unwrap();
    assert_eq!(record["type"], "send", "{record}");
    for mut reply in state.handle_record(&record, Some(device)) {
        reply["type"] = json!("reply");
        state.send_to(device, Message::text(reply.to_string()));
    }
}

/// Serves a stream: it answers once nothing more comes, the newest first, and hangs up on who exceeds the window.
pub(super) fn serve_stream(state: &Mutex<State>, stream: TcpStream) {
    let patience = stream.try_clone().unwrap();
    let Ok(mut stream) = tungstenite::accept_hdr(stream, check_stream) else {
        return;
    };
    let welcome = json!({"type": "welcome", "window": WINDOW});
    stream.send(Message::text(welcome.to_string())).unwrap();
    patience.set_read_timeout(Some(SILENCE)).unwrap();
    let mut waiting = Vec::new();
    loop {
        match stream.read() {
            Ok(Message::Text(text)) => waiting.push(serde_json::from_str(&text).unwrap()),
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                for reply in answer(state, std::mem::take(&mut waiting)) {
                    if stream.send(Message::text(reply.to_string())).is_err() {
                        return;
                    }
                }
            }
            Err(_) => return,
        }
        if waiting.len() > WINDOW {
            return;
        }
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn check_stream(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let protocol = request.headers().get("Sec-WebSocket-Protocol").cloned();
    match protocol {
        Some(name) if name == "tautline.v1.stream.json" && request.uri().path() == "/v1/stream" => {
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", name);
            Ok(response)
        }
        _ => Err(Response::builder().status(404).body(None).unwrap()),
    }
}

fn answer(state: &Mutex<State>, records: Vec<Value>) -> Vec<Value> {
    let mut state = state.lock();
    let replies = records
        .iter()
        .map(|record| state.handle_record(record, None));
    let mut replies: Vec<Value> = replies.collect::<Vec<_>>().into_iter().flatten().collect();
    replies.reverse();
    replies
}

impl State {
    /// Delivers a record and says what to reply. A device reaches its own account only.
    fn handle_record(&mut self, record: &Value, from: Option<&str>) -> Vec<Value> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, target) = (text(&record["id"]), text(&record["to"]["device"]));
        assert_eq!(record["wait"], "written", "{record}");
        if from.is_some_and(|from| self.account(from) != self.account(&target)) {
            return vec![refusal(&id)];
        }
        let data = record["data"].to_string();
        let lie = self.next_push_lie(&data);
        let status = self.obey(lie, target, &data);
        let reply = match status {
            200 => json!({"id": id, "result": "written", "level": "written", "latency_ms": 0}),
            _ => refusal(&id),
        };
        if lie == Lie::Silence {
            Vec::new()
        } else if lie == Lie::AnswerTwice {
            vec![reply.clone(), reply]
        } else {
            vec![reply]
        }
    }

    fn account(&self, device: &str) -> Option<&str> {
        Some(&self.lines.get(device)?.account)
    }
}

fn refusal(id: &str) -> Value {
    let error = json!({"code": "target_unavailable", "message": "", "retryable": true});
    json!({"id": id, "error": error})
}
