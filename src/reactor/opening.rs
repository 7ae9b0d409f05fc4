//! What happens on a connection before its first byte for the application: what TLS and a load balancer say about the
//! far end, and what becomes of those who say it wrong.

use std::net::IpAddr;

use http::StatusCode;

use crate::base::close::CloseReason;
use crate::base::id::ConnId;
use crate::base::time::Now;
use crate::head::response::Response;
use crate::metrics::{Refusal, TlsFailure};
use crate::net::layer::News;
use crate::net::stream::{Breach, Transport};
use crate::reactor::conn::Phase;
use crate::reactor::shard::Shard;
use crate::route::address::Standing;
use crate::wire::api::ErrorBody;
use crate::wire::error::ErrorCode;

impl<T: Transport> Shard<T> {
    /// Takes what became known about the far end.
    pub(crate) fn handle_news(&mut self, id: ConnId, news: News, now: Now) {
        self.admission.charge(news.cost_us);
        if let Some(secured) = &news.secured {
            let cells = self.cells();
            if secured.is_resumed {
                cells.tls_resumed.add(1);
            } else {
                cells.tls_full.add(1);
            }
        }
        let Some(conn) = self.arena.get_mut(id) else {
            return;
        };
        match &mut conn.phase {
            Phase::Upgrade(upgrade) => {
                if let Some(secured) = news.secured {
                    upgrade.bearer = secured.bearer;
                }
                if let Some(source) = news.source {
                    upgrade.from = source.ip().to_canonical();
                    let from = upgrade.from;
                    self.judge_source(id, from, now);
                }
            }
            Phase::Api(api) => {
                if let Some(secured) = news.secured {
                    api.begin(secured.bearer, now);
                }
            }
            Phase::Device(_) | Phase::Stream(_) | Phase::Closing(_) => {}
        }
    }

    /// Counts a connection for the address that a load balancer names, and has it turned away if that has too many.
    fn judge_source(&mut self, id: ConnId, from: IpAddr, now: Now) {
        let Some((key, standing)) = self.weigh_source(from, now) else {
            return;
        };
        self.keep_source(id.slot, key);
        let conn = self.arena.get_mut(id);
        if let Some(Phase::Upgrade(upgrade)) = conn.map(|conn| &mut conn.phase)
            && standing != Standing::Good
        {
            upgrade.turn_away(Refusal::AddressLimit);
        }
    }

    /// Ends a connection that does not speak as it must.
    pub(crate) fn handle_breach(&mut self, id: ConnId, breach: Breach) {
        let is_closing = self
            .arena
            .get(id)
            .is_none_or(|conn| matches!(conn.phase, Phase::Closing(_)));
        if is_closing {
            return;
        }
        match breach {
            Breach::ProxyHeader => {
                self.cells().refused[Refusal::ProxyHeader as usize].add(1);
                self.close(id, CloseReason::Refused);
            }
            Breach::Tls(failure) => {
                self.cells().tls_failures[failure as usize].add(1);
                if failure == TlsFailure::NotTls {
                    self.send(id, &plain_refusal());
                }
                self.close(id, CloseReason::TlsFailed);
            }
        }
    }
}

/// What somebody is told who speaks HTTP to a port with TLS: in plain, or it would not be understood.
fn plain_refusal() -> Vec<u8> {
    let message = "this port speaks TLS: connect with wss:// or https://";
    let body = ErrorBody::new(ErrorCode::BadRequest, message, "");
    // A struct of strings always serialises.
    let body = serde_json::to_string(&body).unwrap_or_default();
    let mut response = Vec::new();
    Response::new(StatusCode::BAD_REQUEST, &body).encode(&mut response);
    response
}
