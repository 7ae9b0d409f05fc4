//! The command line's words that all scenarios share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::dialect::{Dialect, Template};
use crate::swarm::ramp::Pacing;
use crate::token::{SigningKey, TokenError, Tokens};

/// The server under test.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArg {
    /// Start this program instead of building tautline
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub(crate) server: Option<PathBuf>,
    /// Use a running server, such as ws://10.0.0.5:7400; several take turns
    #[arg(long, value_name = "URL")]
    pub(crate) target: Vec<String>,
    /// Its sending API, such as http://10.0.0.5:7401
    #[arg(long, value_name = "URL", requires = "target")]
    pub(crate) api: Option<String>,
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
    /// Lines to open per second, open loop; 0 opens as fast as the server answers
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "0")]
    pub(crate) ramp: f64,
    /// Lines under way at once when no rate is given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 512)]
    pub(crate) in_flight: u32,
    /// How long a line may take to open
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s")]
    pub(crate) open_timeout: Duration,
    /// Address to connect from; several take turns [default: on loopback as many of 127/8 as it takes]
    #[arg(long, value_name = "IP")]
    pub(crate) source: Vec<IpAddr>,
    /// Path of a line; {device} and {account} are filled in
    #[arg(long, default_value = "/ws?device_id={device}&user_id={account}")]
    pub(crate) line_path: Template,
    /// Sub-protocol to offer
    #[arg(long)]
    pub(crate) subprotocol: Option<String>,
    /// Sign a token for each line and send it as `Authorization`: HS256, RS256, ES256 or EdDSA, and the key
    #[arg(long, value_name = "ALGORITHM:FILE")]
    pub(crate) sign: Option<SigningKey>,
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

    /// How to speak; `push_path` is where messages go.
    pub(crate) fn dialect(&self, push_path: Template) -> Result<Dialect, TokenError> {
        let tokens = self.sign.as_ref();
        Ok(Dialect {
            line_path: self.line_path.clone(),
            push_path,
            subprotocol: self.subprotocol.clone(),
            tokens: tokens
                .map(|key| Tokens::sign(key, self.connections))
                .transpose()?,
            headers: self.header.clone(),
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
    }
}
