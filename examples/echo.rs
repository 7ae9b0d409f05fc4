//! An echo application on the production stack, for conformance tests of everything below the device protocol.
//!
//! `cargo run --example echo -- --message-bytes-max 16777216` prints `ready 127.0.0.1:PORT` and serves until killed.

use clap::Parser;
use tautline::config::source::Sources;

/// Serves WebSockets that echo every message.
#[derive(Debug, Parser)]
struct Echo {
    /// Longest message taken, in bytes; the production default without it.
    #[arg(long)]
    message_bytes_max: Option<u32>,
    /// Serves wss, with a certificate made for the purpose.
    #[arg(long)]
    tls: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let echo = Echo::parse();
    let loopback =
        ["devices", "api", "peer", "ops"].map(|port| format!("listen.{port}=127.0.0.1:0"));
    let mut flags = loopback.to_vec();
    if let Some(bytes) = echo.message_bytes_max {
        // Autobahn sends whole messages of this size in 64-byte fragments, and reads them back when it likes.
        let (outbox_bytes, fragments) = (u64::from(bytes) * 4, u32::MAX);
        flags.push(format!("limits.message_bytes_max={bytes}"));
        flags.push(format!("limits.outbox_bytes_max={outbox_bytes}"));
        flags.push(format!("limits.fragments_max={fragments}"));
        flags.push("limits.message_timeout=60s".into());
        flags.push("limits.bytes_per_second=0".into());
    }
    // The files must stay as long as it serves.
    let directory = tempfile::tempdir()?;
    if echo.tls {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let files = [
            ("certificate_file", pair.cert.pem()),
            ("private_key_file", pair.signing_key.serialize_pem()),
        ];
        for (key, text) in files {
            let path = directory.path().join(key);
            std::fs::write(&path, text)?;
            flags.push(format!("devices_tls.{key}={}", path.display()));
        }
    }
    let config = Sources {
        flags,
        ..Sources::default()
    }
    .load()?
    .config;
    tautline::server::run_echo(config)?;
    Ok(())
}
