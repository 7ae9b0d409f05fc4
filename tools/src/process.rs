//! Children: run to their end or kept as servers, each in a process group that is gone when we are done with it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use wait_timeout::ChildExt as _;

/// Longest any one child may run.
const RUN_TIMEOUT: Duration = Duration::from_mins(30);
/// Longest a server may take from start to its first line.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest a server may take to leave after SIGTERM: more than its drain deadline.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// Process groups that are alive; a pid stands here only until it was waited for, so it is never another's.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills every child before this process ends by SIGINT, SIGTERM or SIGHUP: groups of their own do not hear the terminal.
pub(crate) fn stop_children_on_signal() -> Result<()> {
    let stop = || {
        for &group in &*GROUPS.lock() {
            killpg(group, Signal::SIGKILL).ok();
        }
        std::process::exit(130);
    };
    ctrlc::set_handler(stop).context("cannot install a signal handler")
}

/// What the children of one stage wrote.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    /// Where it can be read.
    pub(crate) path: PathBuf,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whether its status was 0.
    pub(crate) is_success: bool,
    /// Its standard output and error, as they came.
    pub(crate) output: String,
}

impl Finished {
    /// An error with the words given, unless the status was 0.
    pub(crate) fn expect_success(self, otherwise: &'static str) -> Result<Self> {
        ensure!(self.is_success, otherwise);
        Ok(self)
    }
}

impl Log {
    /// Begins an empty one; its directory is made when missing.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
        // Append, because several children may hold it at once.
        std::fs::write(&path, "")?;
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Runs a command to its end; an error when it cannot be started or does not end in time.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<Finished> {
        let start = self.note(command)?;
        let mut child = Group::spawn(
            command
                .stdout(self.file.try_clone()?)
                .stderr(self.file.try_clone()?),
        )?;
        let status = child.wait(RUN_TIMEOUT)?;
        let mut output = Vec::new();
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_to_end(&mut output)?;
        let Some(status) = status else {
            bail!("still running after {RUN_TIMEOUT:?}: {command:?}");
        };
        Ok(Finished {
            is_success: status.success(),
            output: String::from_utf8_lossy(&output).into_owned(),
        })
    }

    /// Where it tells what went wrong: from the first line that says so, or else its last lines.
    pub(crate) fn excerpt(&self, lines_max: usize) -> String {
        let content = std::fs::read(&self.path).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<_> = content.lines().collect();
        let says_so = |l: &&str| {
            l.starts_with("error") || l.starts_with("failures:") || l.starts_with("not ok")
        };
        let begin = lines.iter().position(says_so);
        let begin = begin.unwrap_or_else(|| lines.len().saturating_sub(lines_max));
        lines[begin..]
            .iter()
            .take(lines_max)
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn note(&mut self, command: &Command) -> Result<u64> {
        writeln!(self.file, "$ {command:?}")?;
        Ok(self.file.metadata()?.len())
    }
}

/// A server that said it was ready.
#[derive(Debug)]
pub(crate) struct Server {
    group: Group,
    /// Its first line.
    pub(crate) ready: String,
}

impl Server {
    /// Starts it and waits for its first line; what follows goes to the log.
    pub(crate) fn start(command: &mut Command, log: &mut Log) -> Result<Self> {
        log.note(command)?;
        let mut group = Group::spawn(command.stdout(Stdio::piped()).stderr(log.file.try_clone()?))?;
        let output = group.child.stdout.take().context("no standard output")?;
        let ready = first_line(BufReader::new(output), log.file.try_clone()?);
        let ready = ready.recv_timeout(READY_TIMEOUT);
        let ready = ready.with_context(|| format!("did not say that it is ready: {command:?}"))?;
        Ok(Self { group, ready })
    }

    /// Asks it to leave and waits; an error when it does not leave in time, or not with status 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.group.signal(Signal::SIGTERM);
        let Some(status) = self.group.wait(STOP_TIMEOUT)? else {
            bail!("the server was still there {STOP_TIMEOUT:?} after SIGTERM");
        };
        ensure!(status.success(), "the server left with {status}");
        Ok(())
    }
}

/// Sends the first line, then copies the rest to the log so that the pipe never fills.
fn first_line(
    mut output: BufReader<impl std::io::Read + Send + 'static>,
    mut log: File,
) -> mpsc::Receiver<String> {
    let (ready, first) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        if output.read_line(&mut line).is_ok_and(|length| length > 0) {
            // Nobody waits any more when the deadline has passed.
            ready.send(line.trim_end().to_owned()).ok();
        }
        std::io::copy(&mut output, &mut log)
    });
    first
}

/// A child that leads its process group; the whole group is killed when this is dropped before the child ended.
#[derive(Debug)]
struct Group {
    child: Child,
    is_over: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let group = Self {
            child,
            is_over: false,
        };
        GROUPS.lock().push(group.pid());
        Ok(group)
    }

    /// The status, or `None` when the deadline passed.
    fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let status = self.child.wait_timeout(timeout)?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        // It may have just ended by itself.
        killpg(self.pid(), signal).ok();
    }

    fn forget(&mut self) {
        self.is_over = true;
        let own = self.pid();
        GROUPS.lock().retain(|&pid| pid != own);
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::SIGKILL);
            self.child.wait().ok();
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn log() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path().join("log/stage.log")).unwrap();
        (directory, log)
    }

    #[test]
    fn a_run_returns_its_own_output_and_keeps_all_of_it() {
        let (_directory, mut log) = log();
        log.run(&mut shell("echo before")).unwrap();
        let finished = log
            .run(&mut shell("echo out; echo err >&2; exit 3"))
            .unwrap();
        assert!(!finished.is_success);
        assert_eq!(finished.output, "out\nerr\n");
        assert!(log.excerpt(10).contains("before"));
    }

    #[test]
    fn an_excerpt_begins_where_something_went_wrong() {
        let (_directory, mut log) = log();
        let script = "echo fine; echo failures:; echo why; echo; seq 100";
        log.run(&mut shell(script)).unwrap();
        assert!(log.excerpt(3).starts_with("failures:\nwhy"));
    }

    #[test]
    fn a_server_is_ready_with_its_first_line_and_leaves_when_asked() {
        let (_directory, mut log) = log();
        let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let server = Server::start(&mut shell(script), &mut log).unwrap();
        assert_eq!(server.ready, "ready");
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_dies_early_is_an_error() {
        let (_directory, mut log) = log();
        assert!(Server::start(&mut shell("exit 1"), &mut log).is_err());
    }

    #[test]
    fn dropping_a_server_kills_its_children() {
        let (_directory, mut log) = log();
        let server = Server::start(&mut shell("sleep 600 & echo $!; wait"), &mut log).unwrap();
        let grandchild = PathBuf::from(format!("/proc/{}/stat", server.ready));
        drop(server);
        // The kernel ends it a moment after the signal was sent.
        let is_gone =
            || std::fs::read_to_string(&grandchild).map_or(true, |stat| stat.contains(") Z "));
        assert!((0..1_000_000).any(|_| is_gone()));
    }
}
