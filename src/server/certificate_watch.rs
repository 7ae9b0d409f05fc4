//! Certificates that change on disk are taken into use without a signal: whoever renews them need not know us.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Config;
use crate::net::tls::policy::{TlsCell, TlsPolicies};

/// The files of the certificates in use, and how they looked when they were read.
///
/// It looks at them again and again instead of being told: where certificates are mounted, what changes is a link
/// somewhere above the file.
#[derive(Debug)]
pub(super) struct CertificateWatch {
    config: Config,
    files: Vec<PathBuf>,
    in_use: Vec<Look>,
    /// A change that is taken into use if it looks the same next time: a certificate and its key are two files.
    pending: Option<Vec<Look>>,
}

/// What tells one state of a file from another; `None` when it is not there.
type Look = Option<(u64, i64, i64, u64)>;

impl CertificateWatch {
    /// How often to look.
    pub(super) const INTERVAL: Duration = Duration::from_secs(2);

    /// Watches the files that a configuration names; to be made before they are read.
    pub(super) fn new(config: &Config) -> Self {
        let sections = [
            &config.devices_tls,
            &config.api_tls,
            &config.peer_tls,
            &config.ops_tls,
        ];
        let files: Vec<_> = sections.into_iter().flat_map(|tls| tls.files()).collect();
        Self {
            config: config.clone(),
            in_use: look_at(&files),
            files,
            pending: None,
        }
    }

    /// Looks, and takes what has changed into use; what makes no sense leaves the old ones in place.
    pub(super) fn look(&mut self, tls: &TlsCell) {
        let now = look_at(&self.files);
        if now == self.in_use {
            self.pending = None;
            return;
        }
        if self.pending.as_ref() != Some(&now) {
            self.pending = Some(now);
            return;
        }
        self.pending = None;
        self.in_use = now;
        match TlsPolicies::load(&self.config, &tls.tickets) {
            Ok(policies) => {
                tls.policies.store(Arc::new(policies));
                tls.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!("certificates have changed and are in use");
            }
            Err(errors) => {
                tls.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%errors, "certificates have changed and cannot be used; the old ones stay");
            }
        }
    }
}

fn look_at(files: &[PathBuf]) -> Vec<Look> {
    let look = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
    };
    files.iter().map(look).collect()
}
