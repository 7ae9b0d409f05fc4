//! `tautline config`: the configuration file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::error::CliError;
use super::terminal;
use super::{Options, exit_code};
use crate::config::Config;
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::render;
use crate::config::source::Sources;
use crate::net::tls::policy::TlsCell;
use crate::protocol::auth::api_key::ApiKeys;
use crate::protocol::auth::authenticator::Authenticator;
use crate::protocol::auth::origin::OriginPolicy;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Writes a file that documents every key and sets none.
    Init {
        /// Where to.
        #[arg(default_value = "tautline.toml")]
        file: PathBuf,
        /// Prints it instead.
        #[arg(long)]
        stdout: bool,
        /// Overwrites a file that exists.
        #[arg(long)]
        force: bool,
    },
    /// Checks a file and the key files it names, with the environment and flags over it. Exits with 1 on a mistake.
    Check {
        /// The file; --config when left out.
        file: Option<PathBuf>,
    },
    /// Shows every setting in effect and where it was set. There are no secrets in it.
    Show,
}

impl ConfigCommand {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        match self {
            Self::Init { stdout: true, .. } => terminal::print(render::default_file().trim_end())?,
            Self::Init { file, force, .. } => init(&file, force)?,
            Self::Check { file } => return check(file, options),
            Self::Show => show(options)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn init(path: &Path, force: bool) -> Result<(), CliError> {
    let failed = |source| CliError::Io {
        place: path.display().to_string(),
        source,
    };
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .create_new(!force)
        .open(path);
    let mut file = match opened {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::FileExists(path.into()));
        }
        opened => opened.map_err(failed)?,
    };
    file.write_all(render::default_file().as_bytes())
        .map_err(failed)?;
    terminal::note(&format!(
        "wrote {0}; start with `tautline serve --config {0}`",
        path.display()
    ));
    Ok(())
}

fn check(file: Option<PathBuf>, options: &Options) -> Result<ExitCode, CliError> {
    let mut sources = options.sources();
    sources.file = file.or(sources.file);
    let result = check_all(&sources);
    if options.json {
        let errors = result
            .as_ref()
            .err()
            .map(|errors| errors.0.as_slice())
            .unwrap_or_default();
        let errors: Vec<_> = errors.iter().map(error_as_json).collect();
        terminal::print_json(&json!({ "ok": result.is_ok(), "errors": errors }))?;
        return Ok(exit_code(result.is_ok()));
    }
    result?;
    terminal::print("the configuration is good")?;
    Ok(ExitCode::SUCCESS)
}

fn check_all(sources: &Sources) -> Result<(), ConfigErrors> {
    check_keys(&sources.load()?.config)
}

/// Reads what the configuration names, as the server will.
fn check_keys(config: &Config) -> Result<(), ConfigErrors> {
    let results = [
        Authenticator::new(&config.auth).map(drop),
        OriginPolicy::new(&config.auth)
            .map(drop)
            .map_err(ConfigErrors::from),
        ApiKeys::new(&config.api).map(drop),
        ApiKeys::for_ops(&config.ops).map(drop),
        TlsCell::load(config).map(drop),
    ];
    let errors = results
        .into_iter()
        .filter_map(Result::err)
        .flat_map(|errors| errors.0);
    ConfigErrors::check(errors.collect())
}

fn show(options: &Options) -> Result<(), CliError> {
    let loaded = options.sources().load()?;
    if options.json {
        let shown = json!({ "config": loaded.config, "origins": loaded.origins });
        return terminal::print_json(&shown);
    }
    terminal::print(render::effective(&loaded).trim_end())
}

fn error_as_json(error: &ConfigError) -> serde_json::Value {
    json!({ "place": error.place, "cause": error.cause, "advice": error.advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_passes_the_check_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        init(&path, false).unwrap();
        let sources = Sources {
            file: Some(path.clone()),
            ..Sources::default()
        };
        assert_eq!(check_all(&sources), Ok(()));
        assert!(matches!(init(&path, false), Err(CliError::FileExists(_))));
        init(&path, true).unwrap();
    }

    #[test]
    fn the_check_reads_key_files_and_nothing_shows_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "hunter2-hunter2-hunter2-hunter2-hunter2").unwrap();
        let path = dir.path().join("t.toml");
        let key = format!("algorithm = \"HS256\"\nsecret_file = {secret:?}");
        let ops = format!("[ops]\nkey_file = \"{}/gone\"", dir.path().display());
        std::fs::write(&path, format!("[[auth.keys]]\n{key}\n{ops}\n")).unwrap();
        let sources = Sources {
            file: Some(path),
            ..Sources::default()
        };
        let places: Vec<_> = check_all(&sources)
            .unwrap_err()
            .0
            .into_iter()
            .map(|e| e.place)
            .collect();
        assert_eq!(places, ["ops.key_file"]);
        let loaded = sources.load().unwrap();
        let shown = render::effective(&loaded) + &serde_json::to_string(&loaded.config).unwrap();
        assert!(
            shown.contains("secret_file") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert!(
            !format!("{:?}", Authenticator::new(&loaded.config.auth).unwrap()).contains("hunter2")
        );
    }
}
