//! The server under test: built and started here, or somebody else's.

mod build;
mod child;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::node::build::build;
use crate::node::child::OwnChild;

/// A server to be started.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    /// The program; `None` builds `tautline` from this workspace.
    pub(crate) program: Option<PathBuf>,
    /// Its reactors.
    pub(crate) reactors: u32,
    /// More settings, `section.key=value`.
    pub(crate) settings: Vec<String>,
}

/// A server with its addresses.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where devices connect.
    pub(crate) devices: Vec<SocketAddr>,
    /// Where back ends push.
    pub(crate) api: Option<SocketAddr>,
    /// Where back ends open streams.
    pub(crate) peer: Option<SocketAddr>,
    /// Its process, when it is known and on this machine.
    pub(crate) pid: Option<u32>,
    child: Option<OwnChild>,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// The compiler was not content.
    #[error("`{0}` failed")]
    Build(String),
    /// The compiler made no program of this name.
    #[error("cargo built no program named {0}")]
    NoProgram(&'static str),
    /// The program could not be started.
    #[error("cannot start {0}: {1}")]
    Spawn(PathBuf, #[source] io::Error),
    /// It ended or kept silent instead of saying where it listens.
    #[error("the server ended, or did not get ready within {0:?}; it said:\n{1}")]
    NotReady(Duration, String),
    /// A target that is no address.
    #[error("`{0}` is no ws://host:port or http://host:port")]
    Address(String),
    /// A file or pipe failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Node {
    /// Starts a server of our own on free loopback ports.
    pub(crate) fn start(plan: &ServerPlan, progress: impl Fn(&str)) -> Result<Self, NodeError> {
        let program = match &plan.program {
            Some(program) => program.clone(),
            None => build(&progress)?,
        };
        progress("starting the server");
        let (child, ready) = OwnChild::start(&program, &server_args(plan))?;
        Ok(Self {
            devices: vec![ready.devices],
            api: Some(ready.api),
            peer: ready.peer,
            pid: Some(child.id()),
            child: Some(child),
        })
    }

    /// Takes a running server.
    pub(crate) fn attach(
        targets: &[String],
        api: Option<&str>,
        peer: Option<&str>,
        pid: Option<u32>,
    ) -> Result<Self, NodeError> {
        let devices = targets
            .iter()
            .map(|target| resolve(target))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            devices,
            api: api.map(resolve).transpose()?,
            peer: peer.map(resolve).transpose()?,
            pid,
            child: None,
        })
    }

    /// Whether it was started here.
    pub(crate) fn is_own(&self) -> bool {
        self.child.is_some()
    }

    /// Whether everything stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.devices.iter().all(|addr| addr.ip().is_loopback())
    }

    /// What it said at the end, if it was started here and ended by itself; told once.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        self.child.as_mut()?.obituary()
    }

    /// Ends it, if it was started here: politely, then for good.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.child.take().map_or(Ok(()), OwnChild::stop)
    }
}

fn server_args(plan: &ServerPlan) -> Vec<String> {
    let fixed = [
        "listen.devices=127.0.0.1:0".to_owned(),
        "listen.api=127.0.0.1:0".to_owned(),
        "listen.ops=127.0.0.1:0".to_owned(),
        format!("reactor.threads={}", plan.reactors),
    ];
    let settings = fixed.iter().chain(&plan.settings);
    let settings = settings.flat_map(|setting| ["--set".to_owned(), setting.clone()]);
    ["serve".to_owned(), "--json".to_owned()]
        .into_iter()
        .chain(settings)
        .collect()
}

/// The address of `ws://host:port/…`, `http://host:port` or `host:port`.
fn resolve(target: &str) -> Result<SocketAddr, NodeError> {
    let authority = target.split_once("://").map_or(target, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let found = authority
        .to_socket_addrs()
        .ok()
        .and_then(|mut addrs| addrs.next());
    found.ok_or_else(|| NodeError::Address(target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_or_addresses() {
        for good in [
            "ws://127.0.0.1:7400",
            "http://127.0.0.1:7400/x",
            "127.0.0.1:7400",
        ] {
            assert_eq!(
                resolve(good).unwrap(),
                "127.0.0.1:7400".parse().unwrap(),
                "{good}"
            );
        }
        for bad in ["", "ws://", "127.0.0.1", "127.0.0.1:http"] {
            assert!(resolve(bad).is_err(), "{bad}");
        }
    }
}
