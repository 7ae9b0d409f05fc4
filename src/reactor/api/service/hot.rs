//! Pushes that are answered without hyper: one request after the other is taken up as it is read, all of them are under
//! way at once, and their answers leave in the order the requests came.
//!
//! A request is hot if everything about it is ordinary. Whatever is not, hyper reads, and it makes all refusals that come
//! before the body: what then becomes of the body and the connection is for hyper to say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use http::Method;

use crate::config::section::ApiRole;
use crate::head::guard::{Choice, Offer};
use crate::head::request::Request;
use crate::protocol::auth::api_key::{Bearer, Shown};
use crate::protocol::field::Fields;
use crate::protocol::push::{Call, Refused, send_request};
use crate::reactor::api::ApiContext;
use crate::reactor::api::pipe::Pipe;
use crate::reactor::api::service::send::{Sending, submit};
use crate::reactor::api::service::{
    HEAD_BYTES_MAX, authorize, put_request_id, refusal, request_id, writer,
};

/// Requests of one connection that were taken up and are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Hot(VecDeque<Flight>);

/// One of them.
#[derive(Debug)]
struct Flight {
    request_id: String,
    sending: Result<Sending, Refused>,
}

impl Hot {
    /// Unanswered requests of a connection. With so many, what it sends next waits.
    pub(crate) const WINDOW: usize = 64;

    /// Whether everything is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether another request may be taken up.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < Self::WINDOW
    }

    /// Takes a request up if it is hot. If its head is and its body is not there, it is awaited as long as it fits in what
    /// a connection holds. All others pass, and leave no trace.
    pub(crate) fn choose(
        &mut self,
        context: &ApiContext,
        bearer: Option<&Bearer>,
        offer: &Offer<'_>,
    ) -> Choice {
        let Some(call) = HotCall::of(context, bearer, offer) else {
            return Choice::Pass;
        };
        let Some(body) = offer.body else {
            let fits = offer.whole_bytes() <= Pipe::INPUT_BYTES_MAX;
            return if fits { Choice::Await } else { Choice::Pass };
        };
        let Some(flight) = Flight::begin(context, call, &offer.request, body) else {
            return Choice::Pass;
        };
        self.0.push_back(flight);
        Choice::Take
    }

    /// Appends the answers that are there, up to the first that is not; `waker` is told when that one is.
    pub(crate) fn answer(&mut self, context: &ApiContext, waker: &Waker, out: &mut Vec<u8>) {
        while let Some(flight) = self.0.front()
            && flight.poll_answer(context, waker, out).is_ready()
        {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.0.shrink_to(SPARE_FLIGHTS);
        }
    }
}

/// What the head of a hot request asks for, and who asks.
struct HotCall {
    device_id: String,
    service: Arc<str>,
}

impl HotCall {
    fn of(context: &ApiContext, bearer: Option<&Bearer>, offer: &Offer<'_>) -> Option<Self> {
        let request = &offer.request;
        if offer.head_bytes >= HEAD_BYTES_MAX || !is_ordinary(request) {
            return None;
        }
        let Ok(Call::Send(device_id)) = Call::of(&Method::POST, request.target().path) else {
            return None;
        };
        let service = authorize(context, Shown::by(request, bearer), ApiRole::Send).ok()?;
        let body_bytes_max = context.node.settings.load().api.body_bytes_max.as_usize();
        (offer.body_bytes <= body_bytes_max).then(|| Self {
            device_id: device_id.into_owned(),
            service,
        })
    }
}

impl Flight {
    fn begin(
        context: &ApiContext,
        call: HotCall,
        request: &Request<'_>,
        body: &[u8],
    ) -> Option<Self> {
        let body = Bytes::copy_from_slice(body);
        let send = send_request(request, Some(request.target().query), &body);
        // The answer to the first request with a key is the answer to the next, which therefore has to wait for it.
        if send
            .as_ref()
            .is_ok_and(|send| send.idempotency_key.is_some())
        {
            return None;
        }
        context.cells().api_requests.add(1);
        let request_id = request_id(context, request);
        let sending = send.and_then(|send| submit(context, call.device_id, send, &call.service));
        Some(Self {
            request_id,
            sending,
        })
    }

    fn poll_answer(&self, context: &ApiContext, waker: &Waker, out: &mut Vec<u8>) -> Poll<()> {
        let request_id = &self.request_id;
        let result = match &self.sending {
            Ok(sending) => match sending.poll_receipt(waker) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(receipt) => {
                    receipt.map(|receipt| sending.response(&receipt, context, request_id))
                }
            },
            Err(refused) => Err(refused.clone()),
        };
        let mut response = result.unwrap_or_else(|refused| refusal(&refused, request_id));
        put_request_id(&mut response, request_id);
        let date = context.date.get().at(context.now.get().wall_ms);
        context.date.set(date);
        writer::write(&response, &date, out);
        Poll::Ready(())
    }
}

/// Whether no reader could find anything in the head but a POST to a plain path, on a connection that stays. What it says
/// of the body's length, the guard has understood.
fn is_ordinary(request: &Request<'_>) -> bool {
    let target = request.target();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/%=&".contains(&b);
    let stays = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive");
    request.method() == "POST"
        && request.minor_version() == 1
        && target.authority.is_none()
        && target
            .path
            .bytes()
            .chain(target.query.bytes())
            .all(is_plain)
        && request.values("connection").all(stays)
        && !OTHERS.iter().any(|name| request.has(name))
}

/// What an idle connection keeps room for.
const SPARE_FLIGHTS: usize = 16;
/// Fields that change what hyper does, or that say of a request that it may be a second one.
const OTHERS: [&str; 3] = ["expect", "upgrade", "idempotency-key"];
