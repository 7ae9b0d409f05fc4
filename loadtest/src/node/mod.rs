//! The server under test: built and started here, or somebody else's.

mod build;
mod certificate;
mod child;
pub(crate) mod rival;
pub(crate) mod target;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

use crate::make::Make;
use crate::node::build::{TAUTLINE, build};
use crate::node::certificate::Certificate;
use crate::node::child::{OwnChild, Ready};
use crate::node::rival::store::StoreError;
use crate::node::rival::{Rival, RivalPlan};
use crate::node::target::{API, DEVICES, PEER, Target};
use crate::sample::ProcessSample;
use crate::task::TaskSample;

/// A server to be started.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    /// Whose it is.
    pub(crate) make: Make,
    /// The program; `None` builds `tautline` from this workspace, or finds what another make needs.
    pub(crate) program: Option<PathBuf>,
    /// Its reactors; another make's threads or processes.
    pub(crate) reactors: u32,
    /// Whether it speaks TLS to devices.
    pub(crate) is_tls: bool,
    /// More settings, `section.key=value`. Other makes know of heartbeats only.
    pub(crate) settings: Vec<String>,
}

/// Settings that others have no word for, or another one, and that are no mistake: they reap in their own way.
const HEARTBEATS: &str = "heartbeat.";
/// The setting that every make has a word for.
const PING_AFTER: &str = "heartbeat.ping_after";
/// Heartbeats of a rival that is told nothing: those of ours.
const PING_AFTER_DEFAULT: Duration = Duration::from_secs(45);

impl ServerPlan {
    /// Whether a make can be told this; ours says itself.
    pub(crate) fn check_setting(make: Make, setting: &str) -> Result<(), NodeError> {
        let key = setting.split('=').next().unwrap_or(setting);
        if make == Make::Tautline || key.starts_with(HEARTBEATS) {
            return Ok(());
        }
        Err(NodeError::Setting(make.name(), key.to_owned()))
    }

    /// The last word on heartbeats.
    fn ping_after(&self) -> Duration {
        let values = self
            .settings
            .iter()
            .filter_map(|setting| setting.split_once('='));
        let of_pings = values.filter(|(key, _)| *key == PING_AFTER);
        let mut times = of_pings.filter_map(|(_, value)| humantime::parse_duration(value).ok());
        times.next_back().unwrap_or(PING_AFTER_DEFAULT)
    }
}

/// A server with its addresses.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where devices connect.
    pub(crate) devices: Vec<Target>,
    /// How many of these serve at first; the others take over.
    pub(crate) serving: usize,
    /// Where back ends push.
    pub(crate) api: Option<Target>,
    /// Where back ends open streams.
    pub(crate) peer: Option<Target>,
    /// Its names, for each of `devices`, if it speaks TLS there.
    pub(crate) tls_names: Option<Vec<String>>,
    /// Its process, when it is known and on this machine.
    pub(crate) pid: Option<u32>,
    /// What a reader of its figures must know.
    pub(crate) notes: Vec<String>,
    child: Option<OwnChild>,
    /// The one that takes over, and where it listens, as further arguments.
    next: Option<(OwnChild, Vec<String>)>,
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
    /// Where it listens, as further arguments.
    ports: Vec<String>,
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
    /// A make that is only spoken to.
    #[error("{0} is not started here: --target says where it runs")]
    NotOurs(String),
    /// A server that somebody else has started, or of another make.
    #[error("only tautline, started here, gets a second server beside it")]
    NoNext,
    /// A rival that is not on this machine.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What only ours can be told.
    #[error("{0} has no word for `{1}` here: of settings it knows `{PING_AFTER}`")]
    Setting(String, String),
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
        if plan.make != Make::Tautline {
            return Self::start_rival(plan, &progress);
        }
        let program = match &plan.program {
            Some(program) => program.clone(),
            None => build(TAUTLINE, &progress)?,
        };
        progress("starting the server");
        let certificate = plan.is_tls.then(Certificate::make).transpose()?;
        let args = server_args(plan, certificate.as_ref());
        let (child, ready) = OwnChild::start(&program, &args)?;
        Ok(Self {
            start: Some(Start {
                program,
                args,
                ports: ready.settings(),
            }),
            earlier_cpu: Duration::ZERO,
            serving: 1,
            next: None,
            devices: vec![Target::at(ready.devices)],
            api: Some(Target::at(ready.api)),
            peer: ready.peer.map(Target::at),
            tls_names: plan.is_tls.then(|| vec![certificate::NAME.to_owned()]),
            pid: Some(child.id()),
            notes: Vec::new(),
            child: Some(child),
            certificate,
        })
    }

    fn start_rival(plan: &ServerPlan, progress: &impl Fn(&str)) -> Result<Self, NodeError> {
        if plan.is_tls {
            return Err(NodeError::Setting(plan.make.name(), "--tls".to_owned()));
        }
        let rival = Rival::start(
            &RivalPlan {
                make: plan.make,
                program: plan.program.clone(),
                threads: plan.reactors,
                ping_after: plan.ping_after(),
            },
            progress,
        )?;
        Ok(Self {
            devices: vec![Target::at(rival.ready.devices)],
            api: Some(Target::at(rival.ready.api)),
            peer: None,
            tls_names: None,
            pid: Some(rival.child.id()),
            notes: rival.notes,
            child: Some(rival.child),
            certificate: None,
            start: None,
            earlier_cpu: Duration::ZERO,
            serving: 1,
            next: None,
        })
    }

    /// Takes a running server.
    pub(crate) fn attach(
        targets: &[String],
        api: Option<&str>,
        peer: Option<&str>,
        pid: Option<u32>,
        next: &[String],
    ) -> Result<Self, NodeError> {
        let all = targets.iter().chain(next);
        let devices = all
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
            notes: Vec::new(),
            child: None,
            certificate: None,
            start: None,
            earlier_cpu: Duration::ZERO,
            serving: targets.len(),
            next: None,
        })
    }

    /// The same with more addresses: lines take turns among them as well.
    pub(crate) fn at_addresses(mut self, addresses: &[IpAddr]) -> Self {
        if addresses.is_empty() {
            return self;
        }
        let spread = |target: &Target| -> Vec<Target> {
            addresses.iter().map(|ip| target.at_address(*ip)).collect()
        };
        self.devices = self.devices.iter().flat_map(spread).collect();
        self.serving *= addresses.len();
        let names = || {
            self.devices
                .iter()
                .map(|target| target.host.clone())
                .collect()
        };
        self.tls_names = self.tls_names.is_some().then(names);
        self
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

    /// What each of its threads has used.
    pub(crate) fn tasks(&self) -> Option<TaskSample> {
        TaskSample::read(self.pid?).ok()
    }

    /// Ends a server of our own without warning.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
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
        let Start {
            program,
            args,
            ports,
        } = self.start.clone()?;
        let args = [args, ports].concat();
        Some(Restart(thread::spawn(move || {
            OwnChild::start(&program, &args)
        })))
    }

    /// Goes on with a server that has started again; its processes had used this much before.
    pub(crate) fn finish_restart(
        &mut self,
        restart: Restart,
        earlier_cpu: Duration,
    ) -> Result<(), NodeError> {
        self.earlier_cpu = earlier_cpu;
        let panicked = |_| io::Error::other("the thread that starts the server panicked");
        let (child, _) = restart.0.join().map_err(panicked)??;
        self.pid = Some(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Starts another server like this one, on ports of its own: lines go there once they are directed to it.
    pub(crate) fn start_next(&mut self) -> Result<(), NodeError> {
        let Some(Start { program, args, .. }) = &self.start else {
            return Err(NodeError::NoNext);
        };
        let (child, ready) = OwnChild::start(program, args)?;
        self.devices.push(Target::at(ready.devices));
        if let Some(names) = &mut self.tls_names {
            names.push(certificate::NAME.to_owned());
        }
        self.next = Some((child, ready.settings()));
        Ok(())
    }

    /// Has the next server be the one that everything is about, and this one the next.
    pub(crate) fn change_places(&mut self) {
        let places = (&mut self.child, &mut self.start, &mut self.next);
        if let (Some(child), Some(start), Some((next, ports))) = places {
            std::mem::swap(child, next);
            std::mem::swap(&mut start.ports, ports);
            self.pid = Some(child.id());
            self.earlier_cpu = Duration::ZERO;
        }
    }

    /// The certificate made for it.
    pub(crate) fn certificate_file(&self) -> Option<PathBuf> {
        self.certificate.as_ref().map(Certificate::file)
    }

    /// Whether everything stays on this machine.
    pub(crate) fn is_ipv4_loopback(&self) -> bool {
        let is_such = |address: &SocketAddr| address.is_ipv4() && address.ip().is_loopback();
        self.devices.iter().all(|target| is_such(&target.address))
    }

    /// What it said at the end, if it was started here and ended by itself; told once.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        self.child.as_mut()?.obituary()
    }

    /// Ends it, if it was started here: politely, then for good.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let next = self.next.take().map(|(child, _)| child);
        let children = [self.child.take(), next];
        children.into_iter().flatten().try_for_each(OwnChild::stop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_heartbeats_counts_for_other_makes() {
        let mut plan = ServerPlan {
            make: Make::Axum,
            program: None,
            reactors: 1,
            is_tls: false,
            settings: vec!["heartbeat.pong_timeout=3s".to_owned()],
        };
        assert_eq!(plan.ping_after(), PING_AFTER_DEFAULT);
        for time in ["20s", "1m 5s"] {
            plan.settings.push(format!("{PING_AFTER}={time}"));
        }
        assert_eq!(plan.ping_after(), Duration::from_secs(65));
    }

    #[test]
    fn a_server_that_somebody_else_started_gets_no_second_one() {
        let target = ["ws://127.0.0.1:1".to_owned()];
        let mut node = Node::attach(&target, None, None, None, &[]).unwrap();
        assert!(matches!(node.start_next(), Err(NodeError::NoNext)));
    }

    #[test]
    fn other_makes_refuse_settings_that_they_have_no_word_for() {
        assert!(ServerPlan::check_setting(Make::Bun, "heartbeat.ping_after=3s").is_ok());
        let error = ServerPlan::check_setting(Make::Bun, "limits.lines=3").unwrap_err();
        assert!(error.to_string().contains("`limits.lines`"), "{error}");
        assert!(ServerPlan::check_setting(Make::Tautline, "limits.lines=3").is_ok());
    }
}
