//! Layer 6: the composition root. The only place that knows every part and puts them together.
//!
//! Starts the reactors in the one order that split descriptor tables allow (`engine`), opens the control plane beside
//! them, announces the node, then waits for signals (`lifecycle`).

use std::sync::Arc;

use crate::api::ControlPlane;
use crate::config::Config;
use crate::config::source::Sources;
use crate::error::StartError;
use crate::net::fdtable::raise_descriptors_max;
use crate::ops::Neighbours;
use crate::protocol::intake::IntakeLimits;
use crate::reactor::settings::Settings;
use crate::server::announce::Audience;
use crate::server::capacity::Capacity;
use crate::server::certificate_watch::CertificateWatch;
use crate::server::doctor::Report;
use crate::server::doctor::machine::Machine;
use crate::server::engine::Bound;
use crate::server::log::Logger;
use crate::server::supervisor::Supervisor;

mod announce;
mod capacity;
mod certificate_watch;
pub(crate) mod doctor;
mod engine;
mod lifecycle;
mod log;
mod memory;
mod supervisor;

/// Serves until told to stop. `json` announces the node as one line of JSON instead of some for people.
///
/// # Errors
/// When it cannot start: a key file, a port, a limit of the host.
pub fn run(config: Config, sources: Sources, json: bool) -> Result<(), StartError> {
    let settings = Settings::load(&config)?;
    let audience = if json {
        Audience::Programs
    } else {
        Audience::People
    };
    serve(&config, settings, sources, audience)
}

/// What this machine can hold, compared with the configuration. The soft limit on descriptors is raised, as the server does.
pub(crate) fn examine(config: &Config) -> Report {
    raise_descriptors_max();
    Report::new(config, &Machine::of_this_process())
}

/// Serves lines that echo what they receive, over the production stack: what conformance tests talk to.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
pub fn run_echo(config: Config) -> Result<(), StartError> {
    let settings = Settings {
        is_echo: true,
        intake: IntakeLimits::NONE,
        ..Settings::load(&config)?
    };
    serve(&config, settings, Sources::default(), Audience::Conformance)
}

fn serve(
    config: &Config,
    settings: Settings,
    sources: Sources,
    audience: Audience,
) -> Result<(), StartError> {
    let logger = Logger::start(&config.log);
    raise_descriptors_max();
    let machine = Machine::of_this_process();
    let report = Report::new(config, &machine);
    let supervisor = Supervisor::of_this_process();
    let runtime = start_runtime()?;
    // Signal handlers, like everything the runtime polls, must exist before the first reactor splits its table off.
    let signals = runtime.block_on(async { lifecycle::Signals::new() })?;
    // Before the certificates are read: a pair that is replaced while the node starts is one that has changed.
    let watch = CertificateWatch::new(config);
    let prepared = engine::Prepared::new(config, settings, Capacity::of(config, &machine))?;
    let control = Arc::new(ControlPlane::new(
        prepared.node(),
        prepared.posts(),
        runtime.handle().clone(),
    ));
    let engine = prepared.start(config, &control)?;
    let Bound { devices, api, .. } = engine.bound;
    let neighbours = Neighbours { devices, api };
    let opened = crate::ops::listen(config, &control.node, neighbours, logger.writer());
    let ops = runtime.block_on(opened)?;
    runtime.spawn(memory::watch(Arc::clone(&control.node)));
    announce::announce(config, &engine, ops, &report, audience);
    supervisor.tell_ready(&report);
    runtime.spawn(supervisor.watch(Arc::clone(&control.node)));
    runtime.block_on(lifecycle::wait(
        signals, &control, &sources, &logger, watch, supervisor,
    ));
    engine.stop();
    Ok(())
}

fn start_runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|source| StartError::System {
            step: "starting the control plane's threads".into(),
            source,
        })
}

/// Threads of the control plane: it may be slow, and the cores are the reactors'.
const CONTROL_THREADS: usize = 1;
