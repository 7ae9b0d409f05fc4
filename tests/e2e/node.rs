//! A node: the real binary with its own ports, directory and log, killed when the test ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::deadline::{Deadline, PATIENCE, eventually, pause};
use crate::http::{Answer, Http};

/// What a node is started with.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    descriptors_max: Option<u32>,
    api_key: Option<String>,
    is_log_stuck: bool,
}

impl Setup {
    /// Free ports, and these settings.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let ports =
            ["devices", "api", "peer", "ops"].map(|name| format!("listen.{name}=127.0.0.1:0"));
        let settings = settings.iter().map(ToString::to_string);
        Self {
            dir: TempDir::new().unwrap(),
            settings: ports.into_iter().chain(settings).collect(),
            environment: Vec::new(),
            descriptors_max: None,
            api_key: None,
            is_log_stuck: false,
        }
    }

    /// Writes a file beside the configuration, for keys.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes the configuration file.
    pub(crate) fn config(self, toml: &str) -> Self {
        self.file("tautline.toml", toml);
        self
    }

    /// Sets one more key.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// Adds a back end's key with these roles.
    pub(crate) fn key(self, name: &str, key: &str, roles: &[&str]) -> Self {
        let path = self.file(&format!("{name}.key"), key);
        let entry =
            format!("\n[[api.keys]]\nname = {name:?}\nkey_file = {path:?}\nroles = {roles:?}\n");
        let toml = self.dir.path().join("tautline.toml");
        let before = std::fs::read_to_string(&toml).unwrap_or_default();
        self.config(&(before + &entry))
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Lets the process hold only so many descriptors.
    pub(crate) fn descriptors_max(mut self, max: u32) -> Self {
        self.descriptors_max = Some(max);
        self
    }

    /// The key that the node's own requests bring.
    pub(crate) fn api_key(mut self, key: &str) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Its standard error is a pipe that nobody reads.
    pub(crate) fn stuck_log(mut self) -> Self {
        self.is_log_stuck = true;
        self
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Node {
        let (mut child, stderr) = self.spawn();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // It reads to the end, so that the node never blocks on a full pipe.
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.send(line)));
        });
        let mut node = Node {
            child,
            ready: Ready::default(),
            stderr,
            setup: self,
        };
        let line = lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("the node does not start: {}", node.log()));
        node.ready = serde_json::from_str(&line).expect("the first line is the ready line");
        assert_eq!(node.ready.event, "ready");
        assert_eq!(node.ready.pid, node.child.id());
        node
    }

    /// Starts it in the expectation that it refuses, and returns what it said.
    pub(crate) fn start_refused(self) -> String {
        let (child, stderr) = self.spawn();
        let mut node = Node {
            child,
            ready: Ready::default(),
            stderr,
            setup: self,
        };
        let status = node.exit_status();
        assert_eq!(status.code(), Some(1), "{}", node.log());
        node.log()
    }

    fn spawn(&self) -> (Child, PathBuf) {
        let stderr = self.dir.path().join("stderr");
        let log = File::create(&stderr).unwrap();
        let log = if self.is_log_stuck {
            Stdio::piped()
        } else {
            log.into()
        };
        let mut command = match self.descriptors_max {
            None => Command::new(BINARY),
            Some(max) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={max}")).arg(BINARY);
                command
            }
        };
        command.args(["serve", "--json"]);
        let config = self.dir.path().join("tautline.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        (command.spawn().unwrap(), stderr)
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    pub(crate) ready: Ready,
    stderr: PathBuf,
    setup: Setup,
}

/// What the node announces.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    event: String,
    pub(crate) node_id: String,
    pub(crate) devices: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) ops: SocketAddr,
    /// Lines it has room for.
    pub(crate) lines_max: u64,
    pid: u32,
}

impl Default for Ready {
    fn default() -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            event: String::new(),
            node_id: String::new(),
            devices: nowhere,
            api: nowhere,
            peer: nowhere,
            ops: nowhere,
            lines_max: 0,
            pid: 0,
        }
    }
}

impl Node {
    /// Starts a node with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Setup::new(settings).start()
    }

    /// Starts a node with one reactor, which a canary shares with whoever makes trouble.
    pub(crate) fn with_one_reactor(settings: &[&str]) -> Self {
        let mut all = vec!["reactor.threads=1"];
        all.extend(settings);
        Self::start(&all)
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// The `Authorization` its requests bring, if any.
    pub(crate) fn authorization(&self) -> Option<String> {
        let key = self.setup.api_key.as_ref();
        key.map(|key| format!("Bearer {key}"))
    }

    /// One request on a connection of its own, with the node's key.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let authorization = self.authorization();
        let key = authorization.as_deref().map(|key| ("Authorization", key));
        let headers: Vec<_> = headers.iter().copied().chain(key).collect();
        Http::connect(self.ready.api).request(method, path, &headers, body)
    }

    /// Sends a plain body to a device, like `curl -d`.
    pub(crate) fn push(&self, device_id: &str, query: &str, body: &[u8]) -> Answer {
        let path = format!("/v1/devices/{device_id}/messages{query}");
        self.request("POST", &path, &[CURL_CONTENT_TYPE], body)
    }

    /// Sends an envelope to a device.
    pub(crate) fn push_envelope(&self, device_id: &str, envelope: &str) -> Answer {
        let path = format!("/v1/devices/{device_id}/messages");
        self.request("POST", &path, &[JSON_CONTENT_TYPE], envelope.as_bytes())
    }

    /// The status of a device's line.
    pub(crate) fn device_status(&self, device_id: &str) -> u16 {
        let path = format!("/v1/devices/{device_id}");
        self.request("GET", &path, &[], b"").status
    }

    /// What the program says with these arguments, asked about this node.
    pub(crate) fn tautline(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--api");
        command.arg(format!("http://{}", self.ready.api));
        command.env_remove("TAUTLINE_KEY").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// A page of the ops listener.
    pub(crate) fn ops(&self, path: &str) -> Answer {
        Http::connect(self.ready.ops).request("GET", path, &[], b"")
    }

    /// The sum of a metric's series that carry the label, given as `name="value"`, or of all when it is empty.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.ops("/metrics");
        assert_eq!(page.status, 200, "no /metrics");
        let page = page.text();
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        let values: Vec<_> = series.collect();
        assert!(!values.is_empty(), "no metric {name} {label}");
        values.iter().sum()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn await_metric(&self, name: &str, label: &str, wanted: f64) {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let value = self.metric(name, label);
            if value == wanted {
                return;
            }
            assert!(
                !deadline.has_passed(),
                "{name} {label}: {value}, not {wanted}"
            );
            pause(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory of its own in bytes, from the kernel; the pages of the program file do not count.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Limits the descriptors that each of its tables may hold, from now on.
    pub(crate) fn limit_descriptors(&self, soft: u64) {
        let pid = self.child.id().to_string();
        let limit = format!("--nofile={soft}:");
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status()
            .unwrap();
        assert!(status.success(), "prlimit {limit}");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        let log = self.stderr.clone();
        let child = &mut self.child;
        let what = format!("exit; its log is in {}", log.display());
        eventually(&what, || child.try_wait().unwrap())
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it, and starts another one where it was.
    pub(crate) fn restart(mut self) -> Self {
        self.kill();
        let addrs = [
            ("devices", self.ready.devices),
            ("api", self.ready.api),
            ("peer", self.ready.peer),
            ("ops", self.ready.ops),
        ];
        let settings = addrs.map(|(name, addr)| format!("listen.{name}={addr}"));
        Self::start(&settings.each_ref().map(String::as_str))
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(LOG_TAIL_BYTES);
            let tail = (tail..).find(|&at| log.is_char_boundary(at));
            println!("the node's log ends:\n{}", &log[tail.unwrap_or(0)..]);
        }
    }
}

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tautline");
/// What an envelope is.
pub(crate) const JSON_CONTENT_TYPE: (&str, &str) = ("Content-Type", "application/json");
/// What `curl -d` says of a body.
pub(crate) const CURL_CONTENT_TYPE: (&str, &str) =
    ("Content-Type", "application/x-www-form-urlencoded");
const LOG_TAIL_BYTES: usize = 2_000;
