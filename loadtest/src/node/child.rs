//! A server we started: it gets ready, it is stopped, it does not outlive us.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::node::NodeError;

/// A child that does not outlive us.
#[derive(Debug)]
pub(super) struct OwnChild {
    child: Child,
    log: File,
    is_mourned: bool,
    /// Its files, which go when it has ended.
    _prefix: Option<TempDir>,
}

/// The line a server prints once it listens.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    event: String,
    pub(super) devices: SocketAddr,
    pub(super) api: SocketAddr,
    #[serde(default)]
    pub(super) peer: Option<SocketAddr>,
    #[serde(default)]
    pub(super) ops: Option<SocketAddr>,
}

impl Ready {
    /// One address for everything.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self {
            event: READY_EVENT.to_owned(),
            devices: address,
            api: address,
            peer: None,
            ops: None,
        }
    }
}

const READY_EVENT: &str = "ready";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A server told to end has ten seconds: looked at so often, so many times.
const STOP_POLL: Duration = Duration::from_millis(20);
const STOP_POLLS_MAX: u32 = 500;
/// As long as a server may take to get ready.
const LISTEN_POLLS_MAX: u32 = 1_500;

impl Ready {
    /// The settings that have another process listen where this one does.
    pub(super) fn settings(&self) -> Vec<String> {
        let ports = [
            ("devices", Some(self.devices)),
            ("api", Some(self.api)),
            ("peer", self.peer),
            ("ops", self.ops),
        ];
        let known = ports.into_iter().filter_map(|(name, at)| Some((name, at?)));
        let pairs = known.map(|(name, at)| ["--set".to_owned(), format!("listen.{name}={at}")]);
        pairs.flatten().collect()
    }
}

impl OwnChild {
    /// Starts it and waits until it says where it listens.
    pub(super) fn start(program: &Path, args: &[String]) -> Result<(Self, Ready), NodeError> {
        let mut own = Self::spawn(program, args, Some(Stdio::piped()), None)?;
        let stdout = own.child.stdout.take();
        let lines = stdout
            .map(follow)
            .ok_or_else(|| io::Error::other("the server has no output"))?;
        match wait_ready(&lines) {
            Some(ready) => Ok((own, ready)),
            None => Err(NodeError::NotReady(READY_TIMEOUT, own.last_words())),
        }
    }

    /// Starts one that does not say where it listens, and waits until it does so where it was told to. Its files are in
    /// `prefix`.
    pub(super) fn start_listening(
        program: &Path,
        args: &[String],
        address: SocketAddr,
        prefix: TempDir,
    ) -> Result<Self, NodeError> {
        let mut own = Self::spawn(program, args, None, Some(prefix))?;
        for _ in 0..LISTEN_POLLS_MAX {
            if own.child.try_wait()?.is_some() {
                break;
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(own);
            }
            thread::park_timeout(STOP_POLL);
        }
        Err(NodeError::NotReady(READY_TIMEOUT, own.last_words()))
    }

    /// What it says goes to the log, as far as nobody else wants it.
    fn spawn(
        program: &Path,
        args: &[String],
        stdout: Option<Stdio>,
        prefix: Option<TempDir>,
    ) -> Result<Self, NodeError> {
        let log = tempfile::tempfile()?;
        let stdout = stdout.map_or_else(|| log.try_clone().map(Stdio::from), Ok)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log.try_clone()?)
            // Ctrl-C at the terminal is for us; the server is stopped when the lines are down.
            .process_group(0)
            .spawn()
            .map_err(|error| NodeError::Spawn(program.to_owned(), error))?;
        Ok(Self {
            child,
            log,
            is_mourned: false,
            _prefix: prefix,
        })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said at the end, if it ended although nobody asked it to; told once.
    pub(super) fn obituary(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let is_news = !std::mem::replace(&mut self.is_mourned, true);
        is_news.then(|| {
            format!(
                "the server ended by itself ({status}):\n{}",
                self.last_words()
            )
        })
    }

    /// Ends it: politely, then for good.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) -> io::Result<()> {
        self.is_mourned = true;
        if self.child.try_wait()?.is_none() {
            kill(self.pid()?, Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// Ends it at once, without warning.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.is_mourned = true;
        if self.child.try_wait()?.is_none() {
            // What it started goes with it.
            killpg(self.pid()?, Signal::SIGKILL)?;
        }
        self.child.wait().map(drop)
    }

    /// Whether it has ended.
    pub(super) fn is_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    fn pid(&self) -> io::Result<Pid> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(Pid::from_raw(pid))
    }

    fn end(&mut self) -> io::Result<()> {
        self.terminate()?;
        for _ in 0..STOP_POLLS_MAX {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::park_timeout(STOP_POLL);
        }
        self.kill()
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
        drop(self.end());
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
                if let Some(ready) = ready.filter(|ready| ready.event == READY_EVENT) {
                    return Some(ready);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
