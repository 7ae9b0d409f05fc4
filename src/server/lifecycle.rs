//! Signals: SIGTERM and SIGINT drain, a second one closes now, SIGHUP reloads.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::ControlPlane;
use crate::config::source::Sources;
use crate::error::StartError;
use crate::net::tls::policy::TlsPolicies;
use crate::reactor::settings::Settings;
use crate::server::certificate_watch::CertificateWatch;
use crate::server::log::Logger;
use crate::server::supervisor::Supervisor;

/// The signals the node listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers. Must run on the runtime.
    pub(super) fn new() -> Result<Self, StartError> {
        let install = |kind| {
            signal(kind).map_err(|source| StartError::System {
                step: "installing a signal handler".into(),
                source,
            })
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns when the node has drained, or when somebody has lost patience.
pub(super) async fn wait(
    mut signals: Signals,
    control: &Arc<ControlPlane>,
    sources: &Sources,
    logger: &Logger,
    mut watch: CertificateWatch,
    supervisor: Supervisor,
) {
    let mut looks = tokio::time::interval(CertificateWatch::INTERVAL);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => {
                supervisor.tell_reloading();
                reload(control, sources, logger, &mut watch);
                supervisor.tell_reloaded();
            }
            _ = looks.tick() => watch.look(&control.node.tls),
        }
    }
    supervisor.tell_stopping();
    tracing::info!("draining; a second signal closes now");
    tokio::select! {
        () = control.drain.run() => tracing::info!("drained"),
        () = signals.stop() => tracing::warn!("closing now"),
    }
}

/// Reads keys, certificates, limits and the log level again; what makes no sense leaves the old ones in place, all of
/// them.
fn reload(
    control: &ControlPlane,
    sources: &Sources,
    logger: &Logger,
    watch: &mut CertificateWatch,
) {
    let tls = &control.node.tls;
    let loaded = sources.load().and_then(|loaded| {
        let watch = CertificateWatch::new(&loaded.config);
        let policies = TlsPolicies::load(&loaded.config, &tls.tickets)?;
        let settings = Settings::load(&loaded.config)?;
        Ok((settings, policies, watch, loaded.config.log.level))
    });
    match loaded {
        Ok((settings, policies, renewed, level)) => {
            logger.set_level(level);
            control.reload(settings);
            tls.policies.store(Arc::new(policies));
            *watch = renewed;
            tracing::info!(
                "configuration reloaded: limits, keys, certificates and tokens are the new ones"
            );
        }
        Err(errors) => {
            control.note_failed_reload();
            tracing::error!(%errors, "the configuration was not reloaded; the old one stays");
        }
    }
}
