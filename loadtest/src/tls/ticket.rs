//! Sessions to resume. Lines are many and short of memory, so they share one bounded store.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Tickets of TLS 1.3 that no line has used yet, the newest last. Older versions resume nothing here.
#[derive(Clone, Debug, Default)]
pub(super) struct Tickets(Arc<Mutex<VecDeque<Tls13ClientSessionValue>>>);

/// What a line's configuration sees of them.
#[derive(Debug)]
pub(super) struct Store {
    tickets: Tickets,
    resumes: bool,
}

/// Beyond this the oldest goes.
const TICKETS_MAX: usize = 8_192;

impl Tickets {
    /// A store that keeps tickets, and gives them out only if it `resumes`.
    pub(super) fn store(&self, resumes: bool) -> Store {
        Store {
            tickets: self.clone(),
            resumes,
        }
    }
}

/// All targets of a run are one server, so its name does not matter.
impl ClientSessionStore for Store {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets.0.lock();
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest: its key is the server's current one.
        self.resumes
            .then(|| self.tickets.0.lock().pop_back())
            .flatten()
    }
}
