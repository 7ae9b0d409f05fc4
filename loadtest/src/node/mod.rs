//! The server under test: built and started here, or somebody else's.

mod build;
mod certificate;
mod child;
pub(crate) mod target;

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

use crate::node::build::build;
use crate::node::certificate::Certificate;
use crate::node::child::{OwnChild, Ready};
use crate::node::target::{API, DEVICES, PEER, Target};
use crate::sample::ProcessSample;

/// A server to be started.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    /// The program; `None` builds `tautline` from this workspace.
    pub(crate) program: Option<PathBuf>,
    /// Its reactors.
    pub(crate) reactors: u32,
    /// Whether it speaks TLS to devices.
    pub(crate) is_tls: bool,
    /// More settings, `section.key=value`.
    pub(crate) settings: Vec<String>,
}

/// A server with its addresses.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where devices connect.
    pub(crate) devices: Vec<Target>,
    /// Where back ends push.
    pub(crate) api: Option<Target>,
    /// Where back ends open streams.
    pub(crate) peer: Option<Target>,
    /// Its names, for each of `devices`, if it speaks TLS there.
    pub(crate) tls_names: Option<Vec<String>>,
    /// Its process, when it is known and on this machine.
    pub(crate) pid: Option<u32>,
    child: Option<OwnChild>,
    certificate: Option<Certificate>,
    /// How it was started, to start it again.
    start: Option<Start>,
    /// What earlier processes of it used.
    earlier_cpu: Duration,
}

/// How a server was started.
#[derive(Clone, Debug)]
struct Start {
    program: PathBuf,
    args: Vec<String>,
}

/// A server that is being started again.
#[derive(Debug)]
pub(crate) struct Restart(JoinHandle<Result<(OwnChild, Ready), NodeError>>);

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
    #[error("`{0}` is no {1}://host:port")]
    Address(String, String),
    /// Lines take turns among the targets, and all must cost the same.
    #[error("some targets are ws:// and some are wss://")]
    Mixed,
    /// A file or pipe failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Restart {
    /// Whether it is there, or has failed.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_finished()
    }
}

impl Node {
    /// Starts a server of our own on free loopback ports.
    pub(crate) fn start(plan: &ServerPlan, progress: impl Fn(&str)) -> Result<Self, NodeError> {
        let program = match &plan.program {
            Some(program) => program.clone(),
            None => build(&progress)?,
        };
        progress("starting the server");
        let certificate = plan.is_tls.then(Certificate::make).transpose()?;
        let args = server_args(plan, certificate.as_ref());
        let (child, ready) = OwnChild::start(&program, &args)?;
        Ok(Self {
            start: Some(Start {
                args: [args, ready.settings()].concat(),
                program,
            }),
            earlier_cpu: Duration::ZERO,
            devices: vec![Target::at(ready.devices)],
            api: Some(Target::at(ready.api)),
            peer: ready.peer.map(Target::at),
            tls_names: plan.is_tls.then(|| vec![certificate::NAME.to_owned()]),
            pid: Some(child.id()),
            child: Some(child),
            certificate,
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
            .map(|target| Target::resolve(target, &DEVICES))
            .collect::<Result<Vec<_>, _>>()?;
        let is_tls = devices.iter().any(|target| target.is_tls);
        if is_tls && !devices.iter().all(|target| target.is_tls) {
            return Err(NodeError::Mixed);
        }
        let names = || devices.iter().map(|target| target.host.clone()).collect();
        Ok(Self {
            tls_names: is_tls.then(names),
            devices,
            api: api.map(|url| Target::resolve(url, &API)).transpose()?,
            peer: peer.map(|url| Target::resolve(url, &PEER)).transpose()?,
            pid,
            child: None,
            certificate: None,
            start: None,
            earlier_cpu: Duration::ZERO,
        })
    }

    /// Whether it was started here.
    pub(crate) fn is_own(&self) -> bool {
        self.child.is_some()
    }

    /// What its process uses, earlier ones of it included.
    pub(crate) fn sample(&self) -> Option<ProcessSample> {
        let mut sample = ProcessSample::read(self.pid?).ok()?;
        sample.cpu += self.earlier_cpu;
        Some(sample)
    }

    /// Ends a server of our own without warning.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.bank_cpu();
        self.child.as_mut().map_or(Ok(()), OwnChild::kill)
    }

    /// Asks a server of our own to end, as an init system does.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        self.child.as_mut().map_or(Ok(()), OwnChild::terminate)
    }

    /// Whether a server of our own that was asked to end has ended.
    pub(crate) fn is_ended(&mut self) -> io::Result<bool> {
        self.child.as_mut().map_or(Ok(true), OwnChild::is_ended)
    }

    /// Starts a server of our own again that has ended, on the same ports.
    pub(crate) fn begin_restart(&self) -> Option<Restart> {
        let Start { program, args } = self.start.clone()?;
        Some(Restart(thread::spawn(move || {
            OwnChild::start(&program, &args)
        })))
    }

    /// Goes on with a server that has started again.
    pub(crate) fn finish_restart(&mut self, restart: Restart) -> Result<(), NodeError> {
        let panicked = |_| io::Error::other("the thread that starts the server panicked");
        let (child, _) = restart.0.join().map_err(panicked)??;
        self.pid = Some(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Keeps in mind what the process has used that is about to end.
    pub(crate) fn bank_cpu(&mut self) {
        if let Some(sample) = self.sample() {
            self.earlier_cpu = sample.cpu;
        }
    }

    /// The certificate made for it.
    pub(crate) fn certificate_file(&self) -> Option<PathBuf> {
        self.certificate.as_ref().map(Certificate::file)
    }

    /// Whether everything stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.devices
            .iter()
            .all(|target| target.address.ip().is_loopback())
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

fn server_args(plan: &ServerPlan, certificate: Option<&Certificate>) -> Vec<String> {
    let fixed = [
        "listen.devices=127.0.0.1:0".to_owned(),
        "listen.api=127.0.0.1:0".to_owned(),
        "listen.peer=127.0.0.1:0".to_owned(),
        "listen.ops=127.0.0.1:0".to_owned(),
        format!("reactor.threads={}", plan.reactors),
    ];
    let tls = certificate.into_iter().flat_map(Certificate::settings);
    let settings = fixed.into_iter().chain(tls);
    let settings = settings.chain(plan.settings.iter().cloned());
    let settings = settings.flat_map(|setting| ["--set".to_owned(), setting]);
    ["serve".to_owned(), "--json".to_owned()]
        .into_iter()
        .chain(settings)
        .collect()
}
