//! The command line: `tautline serve` and the tools around it.
//!
//! `main` calls [`run`]. Each command is one file; what it prints goes through `terminal`, results to standard output
//! and everything else to standard error, and `--json` turns results into JSON. Nothing here decides how the server
//! works: it reads the configuration and hands it over.

#[cfg(feature = "client")]
mod broadcast;
mod config;
#[cfg(feature = "client")]
mod connections;
#[cfg(feature = "client")]
mod devices;
mod doctor;
#[cfg(feature = "client")]
mod drain;
mod error;
#[cfg(feature = "client")]
mod follow;
#[cfg(feature = "client")]
mod listen;
#[cfg(feature = "client")]
mod ready;
#[cfg(feature = "client")]
mod send;
mod terminal;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::json;

use crate::config::source::Sources;
use error::CliError;

/// A push server: hundreds of thousands of WebSocket lines per node, each reached with one curl.
#[derive(Debug, Parser)]
#[command(name = "tautline", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Options {
    /// The configuration file; without it, defaults.
    #[arg(long, global = true, value_name = "FILE", env = "TAUTLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Sets one key of the configuration, over file and environment; may be repeated.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Prints results as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves devices and back ends; what happens without a command.
    Serve,
    /// Writes, checks and shows the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Makes and checks tokens of devices.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// A device in the terminal: prints what it receives.
    #[cfg(feature = "client")]
    Listen(listen::Listen),
    /// Sends a message to a device. Exits with 1 when it was not delivered.
    #[cfg(feature = "client")]
    Send(send::Send),
    /// Tells whether and where a device is online, or lists those of an account. Exits with 1 when none is.
    #[cfg(feature = "client")]
    Devices(devices::Devices),
    /// Lists the connections of a node, or closes one.
    #[cfg(feature = "client")]
    Connections(connections::Connections),
    /// Sends a message to all lines of a node.
    #[cfg(feature = "client")]
    Broadcast(broadcast::Broadcast),
    /// Empties a node: its devices are asked to go elsewhere, some at a time. Exits with 1 when that would not work out.
    #[cfg(feature = "client")]
    Drain(drain::Drain),
    /// Asks a node whether it wants devices, as a container's health check does. Exits with 1 when it does not.
    #[cfg(feature = "client")]
    Ready(ready::Ready),
    /// Says what this machine can hold, which limit bites first, and what lifts it. Exits with 1 when one bites.
    Doctor,
    /// Prints the version.
    Version,
    /// Prints a completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs the command of this process and says how it went.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        // Whoever read our output has what they wanted.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn exit_code(is_success: bool) -> ExitCode {
    if is_success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn execute(cli: Cli) -> Result<ExitCode, CliError> {
    let options = cli.options;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&options),
        Command::Config(command) => command.run(&options),
        Command::Token(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Listen(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Send(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Devices(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Connections(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Broadcast(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Drain(command) => command.run(&options),
        #[cfg(feature = "client")]
        Command::Ready(command) => command.run(&options),
        Command::Doctor => doctor::run(&options),
        Command::Version => version(&options),
        Command::Completions { shell } => completions(shell),
    }
}

fn serve(options: &Options) -> Result<ExitCode, CliError> {
    let sources = options.sources();
    let loaded = sources.load()?;
    crate::server::run(loaded.config, sources, options.json)?;
    Ok(ExitCode::SUCCESS)
}

fn version(options: &Options) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    if options.json {
        terminal::print_json(&json!({ "version": version }))?;
    } else {
        terminal::print(&format!("tautline {version}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tautline", &mut script);
    terminal::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn sources(&self) -> Sources {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().filter_map(text).collect(),
            flags: self.set.clone(),
        }
    }
}

/// How to reach a node's API.
#[cfg(feature = "client")]
#[derive(Debug, Args)]
struct ApiOptions {
    /// The node's API.
    #[arg(
        long,
        value_name = "URL",
        env = "TAUTLINE_API",
        default_value = "http://127.0.0.1:7401"
    )]
    api: String,
    #[command(flatten)]
    key: KeyOptions,
}

/// What a back end shows, and what it believes.
#[cfg(feature = "client")]
#[derive(Debug, Args)]
struct KeyOptions {
    /// The API key; seen by others in the list of processes, so prefer --key-file.
    #[arg(long, env = "TAUTLINE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A file with the API key.
    #[arg(
        long,
        value_name = "FILE",
        env = "TAUTLINE_KEY_FILE",
        conflicts_with = "key"
    )]
    key_file: Option<PathBuf>,
    /// A file with the certificates of the authorities that vouch for the node; for https:// and wss://, instead of the
    /// system's.
    #[arg(long, value_name = "FILE", env = "TAUTLINE_CA_FILE")]
    ca_file: Option<PathBuf>,
}

#[cfg(feature = "client")]
impl ApiOptions {
    fn client(&self) -> Result<crate::client::api::ApiClient, CliError> {
        let key = self.key.read()?;
        let ca_file = self.key.ca_file.as_deref();
        Ok(crate::client::api::ApiClient::new(&self.api, key, ca_file)?)
    }
}

#[cfg(feature = "client")]
impl KeyOptions {
    fn read(&self) -> Result<Option<String>, CliError> {
        let from_file = |path: &PathBuf| {
            let secret = crate::config::secret::read("--key-file", path)?;
            Ok::<_, CliError>(String::from_utf8_lossy(&secret).into_owned())
        };
        let key = self.key_file.as_ref().map(from_file).transpose()?;
        Ok(key.or_else(|| self.key.clone()))
    }
}

/// What the library runs on, in a command.
#[cfg(feature = "client")]
fn runtime() -> Result<crate::client::runtime::Runtime, CliError> {
    crate::client::runtime::Runtime::new().map_err(|source| CliError::Io {
        place: "starting a runtime".into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::name::COMMAND_VARIABLES;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve_and_options_stand_anywhere() {
        let cli = Cli::parse_from(["tautline", "--set", "log.level=debug", "--set", "a.b=c"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.options.set, ["log.level=debug", "a.b=c"]);
        let cli = Cli::parse_from(["tautline", "config", "show", "--json", "--config", "t.toml"]);
        assert!(cli.options.json);
        assert_eq!(cli.options.config, Some("t.toml".into()));
    }

    #[test]
    fn variables_of_commands_are_none_of_the_configuration() {
        fn collect(command: &clap::Command, names: &mut Vec<String>) {
            let variables = command.get_arguments().filter_map(|arg| arg.get_env());
            names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
            command
                .get_subcommands()
                .for_each(|sub| collect(sub, names));
        }
        let mut names = Vec::new();
        collect(&Cli::command(), &mut names);
        names.sort_unstable();
        names.dedup();
        for name in &names {
            assert!(COMMAND_VARIABLES.contains(&name.as_str()), "{name}");
        }
    }
}
