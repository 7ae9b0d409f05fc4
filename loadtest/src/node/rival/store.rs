//! Where rivals are kept: what the system has is used, what is fetched stays in a directory of this workspace.
//!
//! Everything comes through the ordinary clients, `apt-get`, `npm` and `go`, and nothing of it is installed into the
//! system: packages are unpacked beside each other. Fetching is asked for (`loadtest install`), never done in passing.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::make::Make;

/// A directory with rivals.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

/// nginx with its module.
#[derive(Clone, Debug)]
pub(super) struct Nginx {
    pub(super) program: PathBuf,
    pub(super) module: PathBuf,
    pub(super) version: String,
}

/// Why a rival is not there.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// Nobody has fetched it.
    #[error("{0} is not on this machine: `loadtest install {1}` fetches it, and so does --install")]
    Missing(&'static str, &'static str),
    /// What fetches it failed.
    #[error("`{0}` failed: {1}")]
    Fetch(String, String),
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
}

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/rivals");
const DIRECTORY_VARIABLE: &str = "LOADTEST_RIVALS_DIR";
const NGINX_PROGRAM: &str = "usr/sbin/nginx";
const NCHAN_MODULE: &str = "usr/lib/nginx/modules/ngx_nchan_module.so";
const NGINX_PACKAGES: [&str; 2] = ["nginx", "libnginx-mod-nchan"];
const BUN_VERSION: &str = "1.4.5";
/// The last one of version 5.
const CENTRIFUGO_VERSION: &str = "5.4.9";
const CENTRIFUGO_MODULE: &str = "github.com/centrifugal/centrifugo/v5";

impl Store {
    /// The one of this workspace, or where `LOADTEST_RIVALS_DIR` says.
    pub(crate) fn open() -> Self {
        let directory = env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
        Self(directory.unwrap_or_else(|| DIRECTORY.into()))
    }

    /// Fetches what a make needs and the machine has not; whether there was anything to fetch.
    pub(crate) fn install(&self, make: Make) -> Result<bool, StoreError> {
        match make {
            Make::Nchan | Make::NchanDefault if self.nginx().is_err() => self.fetch_nginx()?,
            Make::Bun if self.bun().is_err() => self.fetch_bun()?,
            Make::Centrifugo if self.centrifugo().is_err() => self.fetch_centrifugo()?,
            Make::Nchan | Make::NchanDefault | Make::Bun | Make::Centrifugo => return Ok(false),
            Make::Tautline | Make::Axum | Make::Raw => return Ok(false),
        }
        Ok(true)
    }

    /// nginx and nchan: the system's, if it has both, or what was fetched.
    pub(super) fn nginx(&self) -> Result<Nginx, StoreError> {
        let roots = [Path::new("/"), &self.root()];
        let found = roots.map(|root| (root.join(NGINX_PROGRAM), root.join(NCHAN_MODULE)));
        let mut found = found
            .into_iter()
            .filter(|(program, module)| program.exists() && module.exists());
        let (program, module) = found
            .next()
            .ok_or(StoreError::Missing("nginx with nchan", "nchan"))?;
        let output = output(Command::new(&program).arg("-v"))?;
        let version = output.rsplit('/').next().unwrap_or_default().trim();
        Ok(Nginx {
            version: format!("{version}{}", self.nchan_version()),
            program,
            module,
        })
    }

    /// Bun's program and its version.
    pub(super) fn bun(&self) -> Result<(PathBuf, String), StoreError> {
        let packages = self.0.join("bun/node_modules/@oven");
        let entries = fs::read_dir(packages).into_iter().flatten().flatten();
        let mut programs = entries.map(|entry| entry.path().join("bin/bun"));
        let program = programs.find(|program| program.exists());
        let program = program.ok_or(StoreError::Missing("bun", "bun"))?;
        let version = output(Command::new(&program).arg("--version"))?;
        Ok((program, version.trim().to_owned()))
    }

    /// Centrifugo's program and its version.
    pub(super) fn centrifugo(&self) -> Result<(PathBuf, String), StoreError> {
        let program = self.centrifugo_program();
        if program.exists() {
            Ok((program, CENTRIFUGO_VERSION.to_owned()))
        } else {
            Err(StoreError::Missing("centrifugo", "centrifugo"))
        }
    }

    fn centrifugo_program(&self) -> PathBuf {
        let name = format!("centrifugo-{CENTRIFUGO_VERSION}");
        self.0.join("centrifugo").join(name)
    }

    fn root(&self) -> PathBuf {
        self.0.join("nginx/root")
    }

    fn packages(&self) -> PathBuf {
        self.0.join("nginx/packages")
    }

    /// The module does not say its version, but its package does.
    fn nchan_version(&self) -> String {
        let entries = fs::read_dir(self.packages())
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut versions = names.filter_map(|name| {
            Some(
                name.strip_prefix("libnginx-mod-nchan_")?
                    .split_once("%3a")?
                    .1
                    .to_owned(),
            )
        });
        versions.next().map_or_else(String::new, |rest| {
            format!(", nchan {}", rest.split('_').next().unwrap_or_default())
        })
    }

    /// Downloads the packages that the system lacks, and unpacks them here: no service is started, no root is needed.
    fn fetch_nginx(&self) -> Result<(), StoreError> {
        let packages = self.packages();
        make_directory(&packages.join("partial"))?;
        let mut apt = Command::new("apt-get");
        apt.args([
            "--yes",
            "--download-only",
            "--no-install-recommends",
            "--option",
        ])
        .arg(format!("Dir::Cache::archives={}", packages.display()))
        .args(["--option", "Debug::NoLocking=true", "install"])
        .args(NGINX_PACKAGES)
        .env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut apt)?;
        let root = self.root();
        let entries = fs::read_dir(&packages).map_err(|e| StoreError::File(packages.clone(), e))?;
        let files = entries.flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension() == Some(OsStr::new("deb"))) {
            output(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(file)
                    .arg(&root),
            )?;
        }
        self.nginx().map(drop)
    }

    fn fetch_bun(&self) -> Result<(), StoreError> {
        let directory = self.0.join("bun");
        make_directory(&directory)?;
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--ignore-scripts",
            "--prefix",
        ])
        .arg(&directory)
        .arg(format!("bun@{BUN_VERSION}"));
        output(&mut npm)?;
        self.bun().map(drop)
    }

    /// Builds it from its module, whose sums the client checks. Modules and objects are some gigabyte, and do not stay.
    fn fetch_centrifugo(&self) -> Result<(), StoreError> {
        let directory = self.0.join("centrifugo");
        make_directory(&directory)?;
        let failed = |error| StoreError::File(directory.clone(), error);
        let scratch = tempfile::tempdir_in(&directory).map_err(failed)?;
        let modules = scratch.path().join("modules");
        let go = || {
            let mut go = Command::new("go");
            go.current_dir(scratch.path())
                .env("GOTOOLCHAIN", "local")
                .env("GOMODCACHE", &modules)
                .env("GOCACHE", scratch.path().join("objects"))
                // Or they could not be removed.
                .env("GOFLAGS", "-modcacherw");
            go
        };
        let module = format!("{CENTRIFUGO_MODULE}@v{CENTRIFUGO_VERSION}");
        output(go().args(["mod", "download", &module]))?;
        let version = format!("{CENTRIFUGO_MODULE}/internal/build.Version={CENTRIFUGO_VERSION}");
        let (source, program) = (modules.join(&module), scratch.path().join("program"));
        let mut build = go();
        build.arg("build").arg("-C").arg(source);
        build.args([
            "-trimpath",
            "-ldflags",
            &format!("-s -w -X {version}"),
            "-o",
        ]);
        output(build.arg(&program).arg("."))?;
        // Moved only when it is whole: who is interrupted does not leave half of one.
        fs::rename(program, self.centrifugo_program()).map_err(failed)?;
        self.centrifugo().map(drop)
    }
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| StoreError::File(path.to_owned(), error))
}

/// What a command prints, on either stream; an error has it too.
fn output(command: &mut Command) -> Result<String, StoreError> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| StoreError::Fetch(name.clone(), error.to_string()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(StoreError::Fetch(name, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_fetched_is_missing_and_told_how_to_fetch() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store(directory.path().to_owned());
        for (found, make) in [(store.bun(), "bun"), (store.centrifugo(), "centrifugo")] {
            let told = found.unwrap_err().to_string();
            assert!(told.contains(&format!("loadtest install {make}")), "{told}");
        }
    }

    #[test]
    fn a_command_that_fails_is_named_with_what_it_said() {
        let script = ["-c", "echo no such package >&2; exit 100"];
        let error = output(Command::new("sh").args(script))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no such package") && error.contains("\"sh\""),
            "{error}"
        );
        assert!(output(&mut Command::new("/nowhere/program")).is_err());
    }

    #[test]
    fn ours_and_axum_need_nothing_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store(directory.path().to_owned());
        for make in [Make::Tautline, Make::Axum, Make::Raw] {
            assert!(matches!(store.install(make), Ok(false)), "{make}");
        }
    }
}
