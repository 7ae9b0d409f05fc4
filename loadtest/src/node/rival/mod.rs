//! Servers of other makes, started for a comparison: on free loopback ports, with files of their own, gone with the run.

mod centrifugo;
mod nchan;
pub(crate) mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::make::Make;
use crate::node::NodeError;
use crate::node::build::{AXUM, build};
use crate::node::child::{OwnChild, Ready};
use crate::node::rival::store::Store;

/// How a rival is to run.
#[derive(Clone, Debug)]
pub(super) struct RivalPlan {
    /// Whose it is.
    pub(super) make: Make,
    /// The program, for those that are one; found or built if it is not given.
    pub(super) program: Option<PathBuf>,
    /// Its threads or processes.
    pub(super) threads: u32,
    /// Silence after which it pings.
    pub(super) ping_after: Duration,
}

/// A rival that listens.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) child: OwnChild,
    pub(super) ready: Ready,
    /// What a reader of the figures must know about it.
    pub(super) notes: Vec<String>,
}

/// A program that has to be told where to listen.
#[derive(Debug)]
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    /// What a reader of the figures should see of what it was told.
    configuration: String,
}

/// Not all take port 0, so a free one is looked for; somebody else may be quicker.
const ATTEMPTS: u32 = 5;
/// The version of a program that was not fetched here.
const OF_ONES_OWN: &str = "of one's own";
/// What we give Bun to run.
const BUN_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rivals/bun.js");

impl Rival {
    /// Starts it, and waits until it listens.
    pub(super) fn start(plan: &RivalPlan, progress: &impl Fn(&str)) -> Result<Self, NodeError> {
        let name = plan.make.name();
        match plan.make {
            Make::Nchan | Make::NchanDefault => nchan::start(plan, progress),
            Make::Axum => axum(plan, progress),
            Make::Bun => bun(plan, progress),
            Make::Centrifugo => centrifugo::start(plan, progress),
            Make::Tautline | Make::Raw => Err(NodeError::NotOurs(name)),
        }
    }
}

/// Starts a program on a free port, with a directory for its files, and waits until it listens.
fn start_listening(
    launch: impl Fn(SocketAddr, &Path) -> io::Result<Launch>,
) -> Result<(OwnChild, Ready, String), NodeError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let prefix = tempfile::tempdir()?;
        let Launch {
            program,
            arguments,
            configuration,
        } = launch(address, prefix.path())?;
        match OwnChild::start_listening(&program, &arguments, address, prefix) {
            Ok(child) => return Ok((child, Ready::at(address), configuration)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no port is free").into()))
}

/// Whole seconds, at least one: what some makes count heartbeats in.
fn seconds(time: Duration) -> u64 {
    let is_more = time.subsec_nanos() > 0;
    (time.as_secs() + u64::from(is_more)).max(1)
}

fn axum(plan: &RivalPlan, progress: &impl Fn(&str)) -> Result<Rival, NodeError> {
    let program = match &plan.program {
        Some(program) => program.clone(),
        None => build(AXUM, progress)?,
    };
    progress("starting axum");
    let args = [
        plan.threads.to_string(),
        plan.ping_after.as_secs_f64().to_string(),
    ];
    let (child, ready) = OwnChild::start(&program, &args)?;
    let note = format!(
        "axum on {} threads with jemalloc and buffers of 512 bytes",
        plan.threads
    );
    Ok(Rival {
        child,
        ready,
        notes: vec![note],
    })
}

fn bun(plan: &RivalPlan, progress: &impl Fn(&str)) -> Result<Rival, NodeError> {
    let (program, version) = match &plan.program {
        Some(program) => (program.clone(), OF_ONES_OWN.to_owned()),
        None => Store::open().bun()?,
    };
    progress("starting bun");
    let args = [BUN_SERVER.to_owned(), seconds(plan.ping_after).to_string()];
    let (child, ready) = OwnChild::start(&program, &args)?;
    let note = format!(
        "bun {version} on one thread, as it runs JavaScript: a second process would not know the devices of the first; \
         its memory is returned by a garbage collector, in its own time"
    );
    Ok(Rival {
        child,
        ready,
        notes: vec![note],
    })
}
