//! The command line's words that all scenarios share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::address::AddressBlock;
use crate::dialect::{Dialect, Template};
use crate::make::Make;
use crate::name::{ACCOUNT_LINES, Names, TAGGED_LINES_MAX};
use crate::oracle::mark::BODY_BYTES_MIN;
use crate::schedule::Spread;
use crate::swarm::ramp::Pacing;
use crate::token::{SigningKey, TokenError, Tokens};

/// What every scenario has.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArg {
    #[command(flatten)]
    pub(crate) lines: LineArg,
    #[command(flatten)]
    pub(crate) canary: CanaryArg,
    #[command(flatten)]
    pub(crate) tls: TlsArg,
    #[command(flatten)]
    pub(crate) server: ServerArg,
    #[command(flatten)]
    pub(crate) record: RecordArg,
}

/// What is sent, by scenarios that send.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct SendArg {
    /// Messages per second, open loop, timed from when they were meant to leave; 0 sends on each answer
    #[arg(long, value_parser = parse_rate, default_value = "0")]
    pub(crate) rate: f64,
    /// How arrivals are spread when a rate is given
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) spread: Spread,
    /// How long to send and measure
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// How long to send before that
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
    pub(crate) warmup: Duration,
    /// Bytes of a message's body, at least 24
    #[arg(long, default_value_t = BODY_BYTES_MIN)]
    pub(crate) body_bytes: usize,
    /// Messages the server may refuse, or not know of, before the run has failed
    #[arg(long, default_value_t = 0)]
    pub(crate) refusals_max: u64,
    /// Fixes targets and arrivals
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Lines beside the measured ones, pushed to all the while: what everybody else notices of the load.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Canary")]
pub(crate) struct CanaryArg {
    /// Lines to open before the ramp and to push to over HTTP until the end
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(..=i64::from(TAGGED_LINES_MAX)))]
    pub(crate) canary: Option<u32>,
    /// Pushes to them per second, open loop
    #[arg(long, value_name = "RATE", value_parser = parse_some_rate, default_value = "500")]
    pub(crate) canary_rate: f64,
    /// Where these go; {device} and {account} are filled in [default: as for --against]
    #[arg(long, value_name = "PATH")]
    pub(crate) canary_path: Option<Template>,
}

impl CanaryArg {
    /// How many there are.
    pub(crate) fn lines(&self) -> u32 {
        self.canary.unwrap_or(0)
    }
}

/// TLS on lines.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArg {
    /// Have a started server speak TLS to lines, with a certificate of the moment (ECDSA P-256)
    #[arg(long, conflicts_with = "target")]
    pub(crate) tls: bool,
    /// Of all handshakes, how many resume an earlier one: 0 to 1. The first lines have nothing to resume
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0")]
    pub(crate) tls_resume: f64,
    /// Certificates, as PEM, of whom to believe in a wss:// target [default: believe every one]
    #[arg(long, value_name = "FILE", requires = "target")]
    pub(crate) tls_ca: Option<PathBuf>,
}

/// The server under test.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArg {
    /// Start this program instead of building tautline
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub(crate) server: Option<PathBuf>,
    /// Use a running server, such as ws://10.0.0.5:7400 or wss://push.example.com; several take turns
    #[arg(long, value_name = "URL")]
    pub(crate) target: Vec<String>,
    /// More addresses of the targets, which take turns with the same port and name: a list as for --sources
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "target")]
    pub(crate) destinations: Vec<AddressBlock>,
    /// Where lines go once the server drains (drain); several take turns
    #[arg(long, value_name = "URL", requires = "target")]
    pub(crate) next_target: Vec<String>,
    /// Its sending API, such as http://10.0.0.5:7401
    #[arg(long, value_name = "URL", requires = "target")]
    pub(crate) api: Option<String>,
    /// Its streams, such as ws://10.0.0.5:7402
    #[arg(long, value_name = "URL", requires = "target")]
    pub(crate) peer: Option<String>,
    /// Its process id, for memory and CPU, when it runs on this machine
    #[arg(long, requires = "target")]
    pub(crate) pid: Option<u32>,
    /// Reactors of a started server [default: lines / 15,000, at least one per core]
    #[arg(long, conflicts_with = "target")]
    pub(crate) reactors: Option<u32>,
    /// More settings for a started server
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "target")]
    pub(crate) set: Vec<String>,
}

/// The lines.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Lines")]
pub(crate) struct LineArg {
    /// Lines to open
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..), default_value_t = 19_000)]
    pub(crate) connections: u32,
    /// Number of the first line: runs side by side against one server need numbers of their own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000_000), default_value_t = 0)]
    pub(crate) first_line: u32,
    /// Lines of one account [default: 4; with d2d as many as it takes to reach all]
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) account_lines: Option<u32>,
    /// Lines to open per second, open loop; 0 opens as fast as the server answers
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "0")]
    pub(crate) ramp: f64,
    /// Lines under way at once when no rate is given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 512)]
    pub(crate) in_flight: u32,
    /// How long a line may take to open
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s")]
    pub(crate) open_timeout: Duration,
    /// Addresses to connect from, which take turns: a list with networks, such as 10.0.0.7,10.0.1.0/28 [default: on
    /// loopback as many of 127/8 as it takes]
    #[arg(long, alias = "source", value_name = "LIST", value_delimiter = ',')]
    pub(crate) sources: Vec<AddressBlock>,
    /// Whose server it is: how lines are opened and messages posted, and what is started without --target
    #[arg(
        long,
        value_name = "MAKE",
        value_enum,
        default_value_t,
        help_heading = "Server"
    )]
    pub(crate) against: Make,
    /// Path of a line; {device} and {account} are filled in [default: as for --against]
    #[arg(long)]
    pub(crate) line_path: Option<Template>,
    /// Sub-protocol that lines offer; those that send speak JSON
    #[arg(long)]
    pub(crate) subprotocol: Option<String>,
    /// Sign a token for each line and send it as `Authorization`: HS256, RS256, ES256 or EdDSA, and the key
    #[arg(long, value_name = "ALGORITHM:FILE")]
    pub(crate) sign: Option<SigningKey>,
    /// Whom the tokens let their lines send to: a device or account, `*` at the end; several add up
    #[arg(long, value_name = "PATTERN", requires = "sign")]
    pub(crate) may_send_to: Vec<String>,
    /// Header to send with every request
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
    /// Failed or lost lines that are not yet a failed run
    #[arg(long, default_value_t = 0)]
    pub(crate) failures_max: u64,
}

/// What remains of the run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Record")]
pub(crate) struct RecordArg {
    /// Write no record
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Where records go [default: loadtest/results of the source]
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    #[arg(hide_default_value = true)]
    pub(crate) record_dir: PathBuf,
}

impl LineArg {
    /// How fast lines are opened.
    pub(crate) fn pacing(&self) -> Pacing {
        if self.ramp > 0.0 {
            Pacing::Rate(self.ramp)
        } else {
            Pacing::InFlight(self.in_flight)
        }
    }

    /// The names of all lines, of which none is a sender.
    pub(crate) fn names(&self) -> Names {
        self.names_of(0, self.connections)
    }

    /// The names of some of the lines.
    pub(crate) fn names_of(&self, from: u32, count: u32) -> Names {
        let account_lines = self.account_lines.unwrap_or(ACCOUNT_LINES);
        Names::new(self.first_line + from, count, account_lines)
    }

    /// How lines of these names speak, `senders` more included; `push_path` is where messages go.
    pub(crate) fn dialect(
        &self,
        names: Names,
        senders: u32,
        push_path: Template,
    ) -> Result<Dialect, TokenError> {
        let lines = names.lines() + senders;
        let sign = |key| Tokens::sign(key, &names, lines, &self.may_send_to);
        let line_path = || self.against.line_path();
        Ok(Dialect {
            make: self.against,
            line_path: self.line_path.clone().unwrap_or_else(line_path),
            push_path,
            subprotocol: self.subprotocol.clone(),
            tokens: self.sign.as_ref().map(sign).transpose()?,
            headers: self.header.clone(),
            names,
        })
    }
}

/// `500`, `500/s`, `15k/s`.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let (number, scale) = number
        .strip_suffix('k')
        .map_or((number, 1.0), |n| (n, 1000.0));
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate * scale),
        Ok(_) | Err(_) => Err("a rate is a number per second, such as 500/s or 15k/s".to_owned()),
    }
}

/// A part of one.
pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("a share is a number from 0 to 1".to_owned()),
    }
}

/// More than one.
pub(crate) fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 1.0 && factor.is_finite() => Ok(factor),
        Ok(_) | Err(_) => Err("a factor is a number above 1".to_owned()),
    }
}

/// A rate that is not zero.
pub(crate) fn parse_some_rate(text: &str) -> Result<f64, String> {
    match parse_rate(text)? {
        rate if rate > 0.0 => Ok(rate),
        _ => Err("nothing would ever be sent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_per_second() {
        assert_eq!(parse_rate("500/s"), Ok(500.0));
        assert_eq!(parse_rate("15k/s"), Ok(15_000.0));
        assert_eq!(parse_rate("0"), Ok(0.0));
        for bad in ["", "x", "-1", "inf", "5/m"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_some_rate("0").is_err());
    }

    #[test]
    fn shares_are_parts_of_one() {
        assert_eq!(parse_factor("1.5"), Ok(1.5));
        assert!(
            ["1", "0.5", "inf", ""]
                .iter()
                .all(|bad| parse_factor(bad).is_err())
        );
        assert_eq!(parse_share("0.25"), Ok(0.25));
        for bad in ["", "-0.1", "1.1", "NaN"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
