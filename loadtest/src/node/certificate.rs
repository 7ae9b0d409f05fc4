//! A certificate for a server of our own: self-signed, ECDSA P-256, gone with the run.

use std::fs;
use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

/// The name it is for.
pub(super) const NAME: &str = "localhost";

/// The files of a certificate and its key.
#[derive(Debug)]
pub(super) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one.
    pub(super) fn make() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let this = Self {
            directory: tempfile::tempdir()?,
        };
        fs::write(this.file(), made.cert.pem())?;
        fs::write(this.key_file(), made.signing_key.serialize_pem())?;
        Ok(this)
    }

    /// Where it is.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The settings that have the devices' listener show it.
    pub(super) fn settings(&self) -> [String; 2] {
        [
            ("certificate_file", self.file()),
            ("private_key_file", self.key_file()),
        ]
        .map(|(key, path)| format!("devices_tls.{key}={}", path.display()))
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}
