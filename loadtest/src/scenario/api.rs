//! Calls of the server's API that are not what is measured.

use std::time::Duration;

use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::node::target::Target;

/// An API, with the headers of every request.
#[derive(Debug)]
pub(super) struct Api {
    agent: Agent,
    base: String,
    headers: Vec<(String, String)>,
}

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

impl Api {
    /// The API there; `headers` are as on the command line.
    pub(super) fn new(at: &Target, headers: &[String]) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let pairs = headers.iter().filter_map(|header| header.split_once(':'));
        let trim = |(name, value): (&str, &str)| (name.trim().to_owned(), value.trim().to_owned());
        Self {
            agent,
            base: format!("http://{}", at.authority),
            headers: pairs.map(trim).collect(),
        }
    }

    /// Makes a call without a body; returns the body of the answer, or what went wrong.
    pub(super) fn call(&self, method: Method, path: &str) -> Result<String, String> {
        let request = self.request(method, path).body(());
        let request = request.map_err(|error| error.to_string())?;
        read(self.agent.run(request))
    }

    /// Posts a payload.
    pub(super) fn post(&self, path: &str, payload: &[u8]) -> Result<String, String> {
        let request = self.request(Method::POST, path);
        let request = request.header("Content-Type", "text/plain").body(payload);
        let request = request.map_err(|error| error.to_string())?;
        read(self.agent.run(request))
    }

    fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        let uri = format!("{}{path}", self.base);
        let request = Request::builder().method(method).uri(uri);
        let headers = self.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }
}

/// An answer that is no success says why in its body.
fn read(answer: Result<Response<Body>, ureq::Error>) -> Result<String, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let body = answer.body_mut().read_to_string();
    let body = body.map_err(|error| error.to_string())?;
    if answer.status().is_success() {
        Ok(body)
    } else {
        Err(format!("HTTP status {}: {body}", answer.status().as_u16()))
    }
}
