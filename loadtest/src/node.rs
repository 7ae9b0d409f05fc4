//! The server under test: built and started here, or somebody else's.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use thiserror::Error;

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
    #[error("the server was not ready within {0:?}; it said:\n{1}")]
    NotReady(Duration, String),
    /// A target that is no address.
    #[error("`{0}` is no ws://host:port or http://host:port")]
    Address(String),
    /// A file or pipe failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A server told to end has ten seconds: looked at so often, so many times.
const STOP_POLL: Duration = Duration::from_millis(20);
const STOP_POLLS_MAX: u32 = 500;
const PACKAGE: &str = "tautline";

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
            pid: Some(child.child.id()),
            child: Some(child),
        })
    }

    /// Takes a running server.
    pub(crate) fn attach(
        targets: &[String],
        api: Option<&str>,
        pid: Option<u32>,
    ) -> Result<Self, NodeError> {
        let devices = targets
            .iter()
            .map(|target| resolve(target))
            .collect::<Result<_, _>>()?;
        let api = api.map(resolve).transpose()?;
        Ok(Self {
            devices,
            api,
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

    /// The last thing it said, if it ended although nobody asked it to.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        let own = self.child.as_mut()?;
        let status = own.child.try_wait().ok()??;
        Some(format!(
            "the server ended by itself ({status}):\n{}",
            own.last_words()
        ))
    }

    /// Ends it, if it was started here: politely, then for good.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.child.take().map_or(Ok(()), OwnChild::stop)
    }
}

/// A child that does not outlive us.
#[derive(Debug)]
struct OwnChild {
    child: Child,
    log: File,
}

/// The line a server prints once it listens.
#[derive(Debug, Deserialize)]
struct Ready {
    event: String,
    devices: SocketAddr,
    api: SocketAddr,
}

impl OwnChild {
    fn start(program: &Path, args: &[String]) -> Result<(Self, Ready), NodeError> {
        let log = tempfile::tempfile()?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            // Ctrl-C at the terminal is for us; the server is stopped when the lines are down.
            .process_group(0)
            .spawn()
            .map_err(|error| NodeError::Spawn(program.to_owned(), error))?;
        let stdout = child.stdout.take();
        let mut own = Self { child, log };
        let lines = stdout
            .map(follow)
            .ok_or_else(|| io::Error::other("the server has no output"))?;
        match wait_ready(&lines) {
            Some(ready) => Ok((own, ready)),
            None => Err(NodeError::NotReady(READY_TIMEOUT, own.last_words())),
        }
    }

    fn stop(mut self) -> io::Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> io::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).map_err(io::Error::other)?);
        if self.child.try_wait()?.is_none() {
            kill(pid, Signal::SIGTERM)?;
        }
        for _ in 0..STOP_POLLS_MAX {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::park_timeout(STOP_POLL);
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        let read = self
            .log
            .rewind()
            .and_then(|()| self.log.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        match read {
            Ok(_) => lines[lines.len().saturating_sub(20)..].join("\n"),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Nobody is left to be told that it had ended already.
        drop(self.terminate());
    }
}

/// Reads the server's output to its end, so that it never blocks on a full pipe.
fn follow(stdout: ChildStdout) -> Receiver<String> {
    let (post, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Only the first lines are awaited; later ones have no reader.
            drop(post.send(line));
        }
    });
    lines
}

fn wait_ready(lines: &Receiver<String>) -> Option<Ready> {
    loop {
        match lines.recv_timeout(READY_TIMEOUT) {
            Ok(line) => {
                let ready = serde_json::from_str::<Ready>(&line).ok();
                if let Some(ready) = ready.filter(|ready| ready.event == "ready") {
                    return Some(ready);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
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

/// Builds the server as users run it, and asks cargo where it put the program.
fn build(progress: &impl Fn(&str)) -> Result<PathBuf, NodeError> {
    let args = [
        "build",
        "--release",
        "-p",
        PACKAGE,
        "--message-format=json-render-diagnostics",
    ];
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    progress("building the server (release)");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(args)
        .args(["--quiet", "--manifest-path", manifest])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(NodeError::Build(format!("cargo {}", args.join(" "))));
    }
    let messages = output.stdout.split(|b| *b == b'\n');
    let programs = messages.filter_map(|line| serde_json::from_slice::<Artifact>(line).ok());
    let mut programs = programs.filter(|artifact| artifact.target.name == PACKAGE);
    programs
        .find_map(|artifact| artifact.executable)
        .ok_or(NodeError::NoProgram(PACKAGE))
}

/// The part of cargo's messages that names a program.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: ArtifactTarget,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct ArtifactTarget {
    name: String,
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

    #[test]
    fn a_program_that_never_gets_ready_is_an_error_with_its_last_words() {
        let args = ["-c", "echo '{\"event\":\"other\"}'; echo no port >&2"].map(str::to_owned);
        let error = OwnChild::start(Path::new("/bin/sh"), &args).unwrap_err();
        assert!(error.to_string().contains("no port"), "{error}");
    }

    #[test]
    fn a_ready_program_is_found_and_stopped() {
        let line = r#"{"event":"ready","devices":"127.0.0.1:1","api":"127.0.0.1:2","ops":"127.0.0.1:3","pid":4}"#;
        let args = [
            "-c".to_owned(),
            format!("echo starting; echo '{line}'; exec tail -f /dev/null"),
        ];
        let (child, ready) = OwnChild::start(Path::new("/bin/sh"), &args).unwrap();
        assert_eq!((ready.devices.port(), ready.api.port()), (1, 2));
        child.stop().unwrap();
    }
}
