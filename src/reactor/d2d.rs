//! Messages from device to device: what a `send` sets going.
//!
//! The line's own shard answers for its allowance and for its requests; the shard that owns the target decides whether
//! the sender may reach it. What becomes of the message comes back as a `reply`, whatever it is.

use std::sync::Arc;

use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::mailbox::command::Outcome;
use crate::mailbox::sender::{DeviceSender, Sender};
use crate::net::stream::Transport;
use crate::protocol::device::encode_refusal;
use crate::reactor::fanout::{Addressee, Errand};
use crate::reactor::request::{Denial, Question};
use crate::reactor::shard::Shard;
use crate::reactor::waiter::RequestKind;
use crate::wire::device::encode_error;
use crate::wire::error::ErrorCode;
use crate::wire::send::{SendFrame, Target};
use crate::ws::encoder;
use crate::ws::frame::Opcode;

impl<T: Transport> Shard<T> {
    /// Takes a device's message up: from here on its line gets exactly one reply, unless it ends first.
    pub(crate) fn handle_send(
        &mut self,
        id: ConnId,
        send: SendFrame<'_>,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        self.cells().sends.add(1);
        let message_id = self.api.mint();
        let question = Question {
            conn: id,
            id: send.id,
            message_id: Some(message_id),
            wait: send.wait,
            kind: RequestKind::Send,
            requests_max: REQUESTS_MAX,
        };
        let ticket = match self.open_request(&question, now) {
            Ok(ticket) => ticket,
            Err(denial) => return self.deny(send.id, denial, out),
        };
        let Some(from) = self.device_sender(id) else {
            return self.answer(ticket, Outcome::Offline);
        };
        if !self.take_sends(id, 1, now) {
            return self.answer(ticket, Outcome::RateLimited);
        }
        let to = match send.to {
            Target::Device(device_id) => Addressee::Device(device_id.into()),
            Target::User(account) if from.owns_or_names(Some(&account)) => {
                Addressee::Account(account.into())
            }
            // Nobody here has topics, and of an account that is not the sender's to reach nothing is told.
            Target::User(_) | Target::Topic => return self.answer(ticket, Outcome::Offline),
        };
        let errand = Errand {
            to,
            message_id,
            payload: send.payload,
            from: Sender::Device(from),
            wait: send.wait,
            ttl_ms: send.ttl_ms,
            collapse_key: send.collapse_key.map(Into::into),
            ticket,
            submitted_us: now.us,
            deadline_ms: now.ms() + self.settings.patience_ms(send.timeout_ms),
        };
        self.send_in_order(id, errand, now);
    }

    /// A line as the sender of a message, with the rights it has now.
    fn device_sender(&self, id: ConnId) -> Option<Arc<DeviceSender>> {
        let identity = &self.arena.get(id)?.device()?.identity;
        Some(Arc::new(DeviceSender {
            device_id: identity.device().into(),
            account: identity.account().map(Into::into),
            may_send_to: identity.may_send_to().map(Into::into).collect(),
        }))
    }

    /// Says why a request was not taken up.
    pub(crate) fn deny(&self, id: &str, denial: Denial, out: &mut Vec<u8>) {
        let (code, cause) = match denial {
            Denial::Duplicate => {
                // An error, not a reply: the request that has the id is still to get its one reply.
                let mut text = Vec::new();
                let cause = "a request of this id is not answered yet";
                encode_error(Some(id), ErrorCode::BadRequest, cause, &mut text);
                self.cells().frame_errors.add(1);
                return encoder::encode(Opcode::Text, &text, out);
            }
            Denial::TooMany => {
                self.cells().sends_rate_limited.add(1);
                (
                    ErrorCode::RateLimited,
                    "64 requests of this line wait for their answer",
                )
            }
            Denial::Busy => (
                ErrorCode::Overloaded,
                "the node has no room for the request now; try again",
            ),
        };
        encode_refusal(id, code, cause, out);
    }
}

/// Most unanswered requests of a line.
pub(crate) const REQUESTS_MAX: usize = 64;
