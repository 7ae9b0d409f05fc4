//! `GET /v1/connections/events`: lines coming and going, as server-sent events.
//!
//! The [`hub`] hands what the shards tell to every subscriber in this process; one that reads over HTTP has a bounded
//! `queue`. The answer's body is polled by the reactor that holds the reader's connection, like every other body.
#![expect(unused_qualifications, reason = "in what utoipa makes of `params`")]

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::api::ControlPlane;
use crate::api::caller::Reader;
use crate::api::event::hub::{Position, Subscription};
use crate::api::event::queue::{Interest, Queue};
use crate::api::failure::Failure;
use crate::base::close::CloseReason;
use crate::base::id::is_valid_id;
use crate::reactor::node::Node;
use crate::route::event::{Change, ConnectionEvent, Notice};
use crate::wire::error::ErrorCode;
use crate::wire::event::{EventBody, MissedBody};

pub mod hub;
pub(crate) mod queue;

/// Which events to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selection {
    /// Only lines of this account.
    user_id: Option<String>,
    /// Only lines of this device.
    device_id: Option<String>,
}

/// Tells of this node's lines as they come and go, until the reader hangs up: `opened`, `renewed` and `closed`, each an
/// `EventBody`; `missed` where the reader was too slow, a `MissedBody`. Begins with the answer; what was before is in
/// the list of connections.
#[utoipa::path(
    get,
    path = "/v1/connections/events",
    operation_id = "follow_connections",
    tag = "connections",
    params(
        Selection,
        ("Last-Event-ID" = Option<String>, Header, description = "The last event seen before the connection broke: the first event says how many were missed, if the node knows."),
    ),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = String))
)]
pub(crate) async fn follow(
    _: Reader,
    State(control): State<Arc<ControlPlane>>,
    selection: Result<Query<Selection>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Failure> {
    let Query(selection) = selection?;
    let interest = selection.interest()?;
    let settings = control.node.settings.load();
    let api = &settings.api;
    let queue = Queue::new(api.event_buffer_max as usize);
    let inlet = queue.inlet(interest, Arc::clone(&control.node));
    let subscription = control
        .hub
        .subscribe(inlet, api.event_readers_max as usize)
        .ok_or_else(|| {
            let cause = "as many readers of events as api.event_readers_max allows are here";
            Failure::new(ErrorCode::Overloaded, cause)
        })?;
    let keep_alive = KeepAlive::new().interval(api.event_heartbeat);
    let boot = control.node.epoch.boot;
    let outlet = Outlet {
        missed: headers
            .get(LAST_EVENT_ID)
            .and_then(|id| missed_since(id.to_str().ok(), subscription.start, boot)),
        queue,
        subscription,
        node: Arc::clone(&control.node),
    };
    let events = stream::unfold(outlet, |mut outlet| async {
        let event = outlet.next().await;
        Some((event, outlet))
    });
    Ok(Sse::new(events).keep_alive(keep_alive))
}

impl Selection {
    fn interest(self) -> Result<Interest, Failure> {
        let is_id = |id: &Option<String>| id.as_ref().is_none_or(|id| is_valid_id(id.as_bytes()));
        if !is_id(&self.user_id) || !is_id(&self.device_id) {
            let cause = "an id is 1 to 128 characters of A-Z a-z 0-9 . _ : -";
            return Err(Failure::new(ErrorCode::InvalidId, cause));
        }
        Ok(Interest {
            user_id: self.user_id,
            device_id: self.device_id,
        })
    }
}

/// What a reader gets its events from.
struct Outlet {
    /// The reader was here before, and something happened since.
    missed: Option<MissedBody>,
    queue: Arc<Queue>,
    subscription: Subscription,
    node: Arc<Node>,
}

/// What an `id:` says: the run of the node, and the place in its order of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastSeen {
    boot: u32,
    position: Position,
}

impl Outlet {
    async fn next(&mut self) -> Result<Event, axum::Error> {
        if let Some(missed) = self.missed.take() {
            return self.event(self.subscription.start.number, "missed", &missed);
        }
        match self.queue.receive().await {
            Notice::Happened(number, event) => {
                let body = body(&event, &self.node.id);
                self.event(number, event.change.word(), &body)
            }
            Notice::Missed(count, number) => {
                let count = Some(count);
                self.event(number, "missed", &MissedBody { count })
            }
        }
    }

    fn event(&self, number: u64, word: &str, body: &impl Serialize) -> Result<Event, axum::Error> {
        let order = self.subscription.start.order;
        let id = LastSeen {
            boot: self.node.epoch.boot,
            position: Position { order, number },
        };
        let event = Event::default().id(id.to_string()).event(word);
        event.json_data(body)
    }
}

fn body<'a>(event: &'a ConnectionEvent, node_id: &'a str) -> EventBody<'a> {
    let reason = match event.change {
        Change::Closed(reason) => Some(reason),
        Change::Opened | Change::Renewed => None,
    };
    EventBody {
        device_id: (&*event.device_id).into(),
        user_id: event.user_id.as_deref().map(Into::into),
        connection_id: event.connection_id.to_string(),
        node_id: node_id.into(),
        generation: format!("{:016x}", event.generation),
        at_ms: event.at_ms,
        cause: reason.map(|reason| reason.word().into()),
        code: reason.map(CloseReason::code),
    }
}

/// What happened since a reader saw the event it names; `None` if nothing did.
fn missed_since(last: Option<&str>, start: Position, boot: u32) -> Option<MissedBody> {
    let known = last.and_then(LastSeen::parse).filter(|seen| {
        let is_this_order = seen.boot == boot && seen.position.order == start.order;
        is_this_order && seen.position.number <= start.number
    });
    let count = known.map(|seen| start.number - seen.position.number);
    (count != Some(0)).then_some(MissedBody { count })
}

impl LastSeen {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let boot = u32::from_str_radix(parts.next()?, 16).ok()?;
        let (order, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self {
            boot,
            position: Position { order, number },
        })
    }
}

impl std::fmt::Display for LastSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Position { order, number } = self.position;
        write!(f, "{:08x}-{order}-{number}", self.boot)
    }
}

/// What a reader that comes back brings along (WHATWG HTML, server-sent events).
const LAST_EVENT_ID: &str = "last-event-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = LastSeen {
            boot: 0xa,
            position: Position {
                order: 3,
                number: u64::MAX,
            },
        };
        assert_eq!(id.to_string(), "0000000a-3-18446744073709551615");
        assert_eq!(LastSeen::parse(&id.to_string()), Some(id));
        for bad in ["", "a", "a-1", "a-1-", "a-1-2-3", "x-1-2", "a--1-2"] {
            assert_eq!(LastSeen::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_reader_that_comes_back_is_told_what_it_missed_if_the_node_knows() {
        let start = Position {
            order: 1,
            number: 10,
        };
        let missed = |last| missed_since(last, start, 0xa).map(|missed| missed.count);
        assert_eq!(missed(Some("a-1-10")), None);
        assert_eq!(missed(Some("a-1-7")), Some(Some(3)));
        for unknown in ["a-0-7", "b-1-7", "a-1-11", "nonsense"] {
            assert_eq!(missed(Some(unknown)), Some(None), "{unknown}");
        }
        assert_eq!(missed(None), Some(None));
    }
}
