//! `tautline token`: tokens of devices.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Options;
use super::error::CliError;
use super::terminal;
use crate::base::time::millis;
use crate::config::secret;
use crate::config::section::TokenAlgorithm;
use crate::protocol::auth::authenticator::{AuthError, Authenticated, Authenticator, Credential};
use crate::protocol::auth::token_signer::{NewClaims, TokenSigner};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Makes a token, signed with a secret or a private key.
    Create(Create),
    /// Checks a token against the configuration. Exits with 1 when it would not be accepted.
    Verify {
        /// The token; `-` reads it from standard input.
        token: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The device's id.
    #[arg(long, value_name = "DEVICE")]
    sub: String,
    /// The account that owns the device.
    #[arg(long)]
    user: Option<String>,
    /// How long the token is good.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// An account or device it may send to, `*` at the end for all that begin so; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    may_send_to: Vec<String>,
    /// For whom the token is meant.
    #[arg(long)]
    aud: Option<String>,
    /// Who made it.
    #[arg(long)]
    iss: Option<String>,
    /// The name of the key, for the token's header.
    #[arg(long)]
    kid: Option<String>,
    /// The secret (HS256) or the private key as PEM.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// What to sign with.
    #[arg(long, default_value = "HS256", ignore_case = true)]
    algorithm: AlgorithmName,
}

/// The algorithms by their names in a token's header.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AlgorithmName {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
}

impl TokenCommand {
    pub(super) fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        match self {
            Self::Create(create) => create.run(options),
            Self::Verify { token } => verify(token, options),
        }
    }
}

impl Create {
    fn run(self, options: &Options) -> Result<ExitCode, CliError> {
        let key = secret::read("--key-file", &self.key_file)?;
        let signer = TokenSigner::new(self.algorithm.into(), self.kid.clone(), &key)?;
        let claims = self.claims(wall_clock());
        claims.check().map_err(CliError::UselessToken)?;
        let token = signer.sign(&claims)?;
        if options.json {
            terminal::print_json(&json!({ "token": token, "claims": claims }))?;
        } else {
            terminal::print(&token)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn claims(self, now: Duration) -> NewClaims {
        NewClaims {
            sub: self.sub,
            exp: now.saturating_add(self.ttl).as_secs(),
            user_id: self.user,
            labels: self.label.into_iter().collect::<BTreeMap<_, _>>(),
            may_send_to: self.may_send_to,
            aud: self.aud,
            iss: self.iss,
        }
    }
}

impl From<AlgorithmName> for TokenAlgorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Hs256 => Self::HS256,
            AlgorithmName::Rs256 => Self::RS256,
            AlgorithmName::Es256 => Self::ES256,
            AlgorithmName::EdDsa => Self::EdDSA,
        }
    }
}

fn verify(token: String, options: &Options) -> Result<ExitCode, CliError> {
    let token = if token == "-" { read_token()? } else { token };
    let auth = options.sources().load()?.config.auth;
    if auth.keys.is_empty() && auth.jwks_file.is_none() {
        terminal::note("no key is configured; name a file that has some with --config");
    }
    let authenticator = Authenticator::new(&auth)?;
    let wall_ms = millis(wall_clock());
    match authenticator.authenticate(Credential::Token(token.trim()), wall_ms) {
        Ok(device) => print_device(&device, options.json).map(|()| ExitCode::SUCCESS),
        Err(error) => print_refusal(error, options.json).map(|()| ExitCode::FAILURE),
    }
}

fn read_token() -> Result<String, CliError> {
    let mut token = String::new();
    let read = std::io::stdin()
        .take(TOKEN_INPUT_BYTES_MAX)
        .read_to_string(&mut token);
    read.map_err(|source| CliError::Io {
        place: "standard input".into(),
        source,
    })?;
    Ok(token)
}

fn print_refusal(error: AuthError, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return terminal::print_json(&json!({ "ok": false, "error": error.word() }));
    }
    terminal::print(&format!("refused: {error}"))
}

fn print_device(device: &Authenticated, as_json: bool) -> Result<(), CliError> {
    let identity = &device.identity;
    let mut shown = json!({
        "ok": true,
        "device_id": identity.device(),
        "user_id": identity.account(),
        "labels": identity.labels().collect::<BTreeMap<_, _>>(),
        "may_send_to": identity.may_send_to().collect::<Vec<_>>(),
        "expires_ms": device.expires_ms,
    });
    if as_json {
        return terminal::print_json(&shown);
    }
    let expires = UNIX_EPOCH + Duration::from_millis(device.expires_ms.unwrap_or_default());
    shown["expires_ms"] = humantime::format_rfc3339_seconds(expires)
        .to_string()
        .into();
    terminal::print_object(&shown)
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

/// The time since the epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "a command has no loop that reads the clock for it"
)]
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

const TOKEN_INPUT_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::super::Command;
    use super::*;

    fn create(arguments: &[&str]) -> Create {
        let fixed = [
            "tautline",
            "token",
            "create",
            "--sub",
            "tv-1",
            "--key-file",
            "k",
        ];
        let cli = Cli::parse_from(fixed.iter().chain(arguments));
        let Some(Command::Token(TokenCommand::Create(create))) = cli.command else {
            panic!("another command");
        };
        create
    }

    #[test]
    fn arguments_become_claims() {
        let claims = create(&[
            "--user",
            "ann",
            "--ttl",
            "10m",
            "--label",
            "os=tvOS",
            "--label",
            "url=a=b",
            "--may-send-to",
            "tv-*",
        ])
        .claims(Duration::from_secs(1_000));
        assert_eq!((claims.sub.as_str(), claims.exp), ("tv-1", 1_600));
        assert_eq!(claims.labels["url"], "a=b");
        assert_eq!(claims.check(), Ok(()));
    }

    #[test]
    fn claims_that_no_node_would_accept_are_not_signed() {
        for arguments in [
            &["--user", "a b"],
            &["--may-send-to", "a*b"],
            &["--label", "=x"],
        ] {
            assert!(
                create(arguments).claims(Duration::ZERO).check().is_err(),
                "{arguments:?}"
            );
        }
    }
}
