//! The sections of the tree. Name, type, default and documentation of a key stand in one place; `config init`,
//! `config show` and the names of environment variables come from it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::size::Size;
use crate::base::id::{ID_BYTES_MAX, is_valid_id};

/// What is known about a section besides its values.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The table's name in the file.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub about: &'static [&'static str],
    /// Its keys, in order.
    pub keys: &'static [Key],
}

/// What is known about a key besides its value.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key's name in its section.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub about: &'static [&'static str],
}

/// Declares a section: the struct, its defaults, and its description for the command line.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident as $table:literal {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($serde:meta)])?
                $key:ident: $type:ty = $default:expr,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                $(#[serde($serde)])?
                pub $key: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $name {
            /// The section's description.
            pub const SECTION: Section = Section {
                name: $table,
                about: &[$($about),+],
                keys: &[$(Key { name: stringify!($key), about: &[$($doc),+] },)+],
            };
        }
    };
}

section! {
    /// This node among others.
    Node as "node" {
        /// The node's id, unique in the fleet: `[A-Za-z0-9._:-]{1,128}`. Unset: the host name made valid, else "node-1".
        id: Option<String> = None,
    }
}

section! {
    /// Where to listen: loopback until there are keys. Port 0 takes a free port.
    Listen as "listen" {
        /// Devices (WebSocket at /ws). Any other address than loopback needs auth.mode = "jwt" or "certificate".
        devices: SocketAddr = loopback(7400),
        /// Back ends (HTTP). Any other address than loopback needs api.keys.
        api: SocketAddr = loopback(7401),
        /// Back ends' streams (WebSocket at /v1/stream). Any other address than loopback needs api.keys.
        peer: SocketAddr = loopback(7402),
        /// Metrics and probes. Any other address than loopback needs ops.key_file.
        ops: SocketAddr = loopback(7403),
        /// Load balancers in front of the devices' listener, as networks (`10.0.0.0/8`, `fd00::/8`): connections from
        /// them must begin with a PROXY protocol header, version 1 or 2; from anywhere else one is a bad request.
        proxy_networks: Vec<IpNet> = Vec::new(),
        /// Let another process listen on the same ports (SO_REUSEPORT), as for a hand-over.
        share: bool = false,
        /// Accepted connections the kernel keeps for a listener; net.core.somaxconn bounds it.
        backlog: u32 = 4_096,
    }
}

section! {
    /// TLS for devices (wss): on when certificate_file or pairs is set.
    Tls as "devices_tls" {
        /// A file with the certificate chain as PEM, the listener's own first.
        certificate_file: Option<PathBuf> = None,
        /// The file with its private key as PEM (PKCS #8, PKCS #1 or SEC 1).
        private_key_file: Option<PathBuf> = None,
        /// More certificates, as tables with certificate_file and private_key_file: for other names (SNI), or for who
        /// cannot verify the first (RSA beside ECDSA). The first that fits is shown, and the first of all when none does.
        pairs: Vec<CertificatePair> = Vec::new(),
        /// "1.2" or "1.3": the oldest version that is spoken.
        version_min: TlsVersion = TlsVersion::V1_2,
        /// A file with the certificates, as PEM, of the authorities whose client certificates are believed (mutual TLS).
        /// Sessions are not resumed then.
        client_ca_file: Option<PathBuf> = None,
        /// With client_ca_file: "required", or "optional".
        client_certificates: CertificateDemand = CertificateDemand::Required,
        /// Which name in a client certificate says who its bearer is: "common_name" of the subject, "dns" or "uri" of the
        /// subject's alternative names (of a URI what follows its last slash); it must be the only one of its kind.
        /// Unset: none, the certificate only opens the door.
        client_identity: Option<NameKind> = None,
    }
}

section! {
    /// The event loops.
    Reactor as "reactor" {
        /// Event loops, each a thread with its own share of the lines. 0: one per core.
        threads: u16 = 0,
    }
}

section! {
    /// Who a device is.
    Auth as "auth" {
        /// "dev": a device names itself (?device_id=tv-1&user_id=ann), on loopback only. "jwt": it brings a signed token.
        /// "certificate": its client certificate names it (devices_tls.client_identity).
        mode: AuthMode = AuthMode::Dev,
        /// A file with a JSON Web Key Set with keys that verify tokens, besides auth.keys.
        jwks_file: Option<PathBuf> = None,
        /// Accepted values of the `aud` claim. Empty: not checked.
        audience: Vec<String> = Vec::new(),
        /// Accepted values of the `iss` claim. Empty: not checked.
        issuer: Vec<String> = Vec::new(),
        /// Clock skew allowed for `exp` and `nbf`.
        #[serde(with = "humantime_serde")]
        leeway: Duration = secs(60),
        /// A cookie that may carry the token of a browser. Needs auth.origins.
        cookie: Option<String> = None,
        /// Web pages that may connect: `app.example.com`, `https://app.example.com`, `http://localhost:3000`. Hosts are
        /// compared whole; scheme and port count when given, and no scheme means http or https. A request without an
        /// Origin comes from no browser and passes.
        origins: Vec<String> = Vec::new(),
        /// Keys that verify tokens, each pinned to one algorithm. A token that names no key is tried against the first
        /// four of its algorithm.
        ///   [[auth.keys]]
        ///   kid = "2026-11"               # optional: picks the key for tokens that name it
        ///   algorithm = "ES256"           # HS256, RS256, ES256, EdDSA
        ///   public_key_file = "es256.pem" # for HS256: secret_file
        keys: Vec<AuthKey> = Vec::new(),
    }
}

section! {
    /// The sending API.
    Api as "api" {
        /// Longest request body.
        body_bytes_max: Size = Size::kib(256),
        /// For a request's head to arrive.
        #[serde(with = "humantime_serde")]
        head_timeout: Duration = secs(10),
        /// For a request's body to arrive.
        #[serde(with = "humantime_serde")]
        body_timeout: Duration = secs(10),
        /// A connection without a request is closed after this.
        #[serde(with = "humantime_serde")]
        idle_timeout: Duration = secs(75),
        /// How long a message may wait for its level when the sender names no timeout_ms.
        #[serde(with = "humantime_serde")]
        timeout_default: Duration = secs(10),
        /// The most a sender may ask for with timeout_ms.
        #[serde(with = "humantime_serde")]
        timeout_max: Duration = secs(60),
        /// Connections of back ends.
        connections_max: u32 = 10_000,
        /// Back ends' streams on listen.peer; more are refused with 503.
        streams_max: u32 = 1_000,
        /// Records of a stream that may be unanswered, at most 65536; the node reads no further beyond.
        stream_window: u32 = 1_024,
        /// A stream without a record is closed after this.
        #[serde(with = "humantime_serde")]
        stream_idle_timeout: Duration = mins(10),
        /// Readers of connection events; more are told `overloaded`.
        event_readers_max: u32 = 64,
        /// Events that may wait for one reader; it is told how many it missed beyond.
        event_buffer_max: u32 = 1_024,
        /// A comment to a reader of events that has heard nothing for this long, so that neither side waits for the dead.
        #[serde(with = "humantime_serde")]
        event_heartbeat: Duration = secs(15),
        /// Messages in one batch.
        batch_messages_max: u32 = 1_000,
        /// How long a repeated Idempotency-Key gets the answer of the first request.
        #[serde(with = "humantime_serde")]
        idempotency_window: Duration = secs(300),
        /// Idempotency keys known at once, at least 16; beyond it the oldest are forgotten.
        idempotency_keys_max: u32 = 100_000,
        /// Keys of back ends, sent as `Authorization: Bearer`. None are needed with auth.mode = "dev" on loopback. One with
        /// `certificate = "billing.internal"` instead of key_file is whoever shows a client certificate of that name
        /// (client_identity of api_tls, and of peer_tls for streams).
        ///   [[api.keys]]
        ///   name = "billing"
        ///   key_file = "billing.key"
        ///   roles = ["send", "read"]      # send, read, admin
        keys: Vec<ApiKey> = Vec::new(),
    }
}

section! {
    /// Metrics and probes.
    Ops as "ops" {
        /// A file with the key that readers of /metrics send as `Authorization: Bearer`. Probes need none.
        key_file: Option<PathBuf> = None,
    }
}

section! {
    /// How dead lines are found.
    Heartbeat as "heartbeat" {
        /// Ping a line that was silent this long; at random up to a tenth earlier, and a new line up to three quarters,
        /// so that pings spread out. Load balancers cut silent lines, often at 60 s.
        #[serde(with = "humantime_serde")]
        ping_after: Duration = secs(45),
        /// Close a line that has not answered a ping within this; up to a tenth later, at random.
        #[serde(with = "humantime_serde")]
        pong_timeout: Duration = secs(15),
    }
}

section! {
    /// What devices of an account are told of each other.
    Presence as "presence" {
        /// A device whose line has ended is told of as offline after this, unless it has another line by then.
        #[serde(with = "humantime_serde")]
        offline_after: Duration = secs(10),
    }
}

section! {
    /// What a device may use. Beyond a limit its line is refused or closed with the reason.
    Limits as "limits" {
        /// Lines on this node; more are refused with 503.
        connections_max: u32 = 1_000_000,
        /// Lines that are not authenticated yet; more are refused with 503.
        handshakes_max: u32 = 50_000,
        /// From accepting a connection to an authenticated device, however its bytes trickle.
        #[serde(with = "humantime_serde")]
        handshake_timeout: Duration = secs(10),
        /// Longest head of a request; it may have 64 header fields.
        head_bytes_max: Size = Size::kib(8),
        /// Longest message from a device, and longest payload to one.
        message_bytes_max: Size = Size::kib(64),
        /// Longest data that a device may send back with an ack.
        ack_data_bytes_max: Size = Size::kib(4),
        /// Frames of one message.
        fragments_max: u32 = 64,
        /// From the first to the last byte of a message.
        #[serde(with = "humantime_serde")]
        message_timeout: Duration = secs(10),
        /// Bytes that may wait for one line; beyond it the line is a slow consumer and is closed.
        outbox_bytes_max: Size = Size::kib(256),
        /// A line that takes none of its waiting bytes for this long is closed as a slow consumer.
        #[serde(with = "humantime_serde")]
        outbox_stall_timeout: Duration = secs(10),
        /// Commands that may wait for one reactor; beyond it senders are told `overloaded`.
        mailbox_commands_max: u32 = 4_096,
        /// Connections of devices from one address (IPv6: from one /64); more are refused with 429. 0: no limit, for many
        /// devices may stand behind one address.
        connections_per_address: u32 = 0,
        /// Connections that devices may make from one address in one second; more are refused with 429. 0: no limit.
        connects_per_address: u32 = 0,
        /// Networks whose addresses are not limited, such as those of a carrier's NAT: `["100.64.0.0/10"]`.
        exempt_networks: Vec<IpNet> = Vec::new(),
        /// Devices of one account with a line; more are refused with 429. 0: no limit.
        connections_per_account: u32 = 0,
        /// Frames of all kinds a device may send in one second; more end its line. 0: no limit.
        frames_per_second: u16 = 200,
        /// Bytes a device may send in one second, below 16 MiB; more end its line. 0: no limit.
        bytes_per_second: Size = Size::kib(1_024),
        /// Pings and token refreshes a device may send in one second, below 255; more end its line. 0: no limit.
        pings_per_second: u8 = 20,
        /// Messages a device may send to others in one second, in the long run; more are refused with `rate_limited`.
        sends_per_second: u32 = 50,
        /// Messages a device may send at once. A message to a whole account counts as one for each of its devices.
        sends_burst: u32 = 100,
        /// Messages a device may get from others in one second, in the long run; back ends are not bounded by it.
        receives_per_second: u32 = 200,
        /// Messages a device may get from others at once.
        receives_burst: u32 = 400,
    }
}

section! {
    /// What to give up when memory is short, at which share of it in percent.
    Memory as "memory" {
        /// Resident memory the process may use, as "20GiB". Unset: the bound of its control group, else the machine's memory;
        /// both count what the kernel keeps for sockets too.
        limit: Option<ByteSize> = None,
        /// From here on new lines are refused with 503.
        refuse_lines_at: u8 = 85,
        /// From here on the newest idle lines are closed (4007), a fiftieth of all in a second.
        shed_lines_at: u8 = 92,
        /// From here on new messages are refused with 503.
        refuse_messages_at: u8 = 96,
    }
}

section! {
    /// How long a line lives.
    Lifetime as "lifetime" {
        /// A line is asked to reconnect at this age, so that lines spread over the nodes again.
        #[serde(with = "humantime_serde")]
        age_max: Duration = mins(30),
        /// Up to this much earlier, at random, so that lines opened together do not leave together.
        #[serde(with = "humantime_serde")]
        age_jitter: Duration = mins(3),
        /// How long a device that was told to go away has before it is closed.
        #[serde(with = "humantime_serde")]
        goaway_grace: Duration = secs(5),
        /// How long the other side has to answer a close frame.
        #[serde(with = "humantime_serde")]
        close_timeout: Duration = secs(5),
    }
}

section! {
    /// Messages to all lines.
    Broadcast as "broadcast" {
        /// Bytes that all broadcasts together may write in one second, so that other messages keep their speed; a frame
        /// counts as 512 bytes at least.
        bytes_per_second: Size = Size::kib(32 * 1_024),
        /// Broadcasts under way at once; more are refused with `overloaded`.
        running_max: u32 = 8,
    }
}

section! {
    /// Leaving politely, on SIGTERM or on request.
    Drain as "drain" {
        /// From the start of a drain to its end; below the 30 s of Kubernetes.
        #[serde(with = "humantime_serde")]
        deadline: Duration = secs(25),
        /// How long readiness is off before lines are asked to leave: what the load balancer needs to notice.
        #[serde(with = "humantime_serde")]
        interval: Duration = secs(2),
    }
}

section! {
    /// What is written to standard error.
    Log as "log" {
        /// "error", "warn", "info", "debug" or "trace".
        level: LogLevel = LogLevel::Info,
        /// "text" for people, "json" for machines.
        format: LogFormat = LogFormat::Text,
    }
}

impl Node {
    /// The node's id: the configured one, else the host name made valid, else `node-1`.
    pub fn id(&self) -> String {
        let host = || nix::unistd::gethostname().ok()?.into_string().ok();
        let id = self.id.clone().or_else(host).unwrap_or_default();
        id_from_host(&id)
    }
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// The file with the chain as PEM.
    pub certificate_file: PathBuf,
    /// The file with the key as PEM.
    pub private_key_file: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246, with forward secrecy and AEAD only.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whether who connects must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateDemand {
    /// Without one the handshake fails.
    Required,
    /// One that is shown must be good.
    Optional,
}

/// Which name in a certificate says who its bearer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// The subject's common name.
    CommonName,
    /// A DNS name among the subject's alternative names.
    Dns,
    /// A URI among them.
    Uri,
}

/// How devices prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// The device names itself; loopback only.
    Dev,
    /// A signed token.
    Jwt,
    /// A client certificate.
    Certificate,
}

/// A key that verifies tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// The name by which a token's header picks the key.
    pub kid: Option<String>,
    /// The one algorithm the key is good for.
    pub algorithm: TokenAlgorithm,
    /// The file with the shared secret, for HS256. One line break at its end is not part of it.
    pub secret_file: Option<PathBuf>,
    /// The file with the public key as PEM, for the other algorithms.
    pub public_key_file: Option<PathBuf>,
}

/// The algorithms a token may be signed with (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256: a shared secret.
    HS256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl TokenAlgorithm {
    /// The name in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// A back end's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Names the key's owner in logs.
    pub name: String,
    /// The file with the key. One line break at its end is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name in the client certificate that stands for a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What the key may do.
    pub roles: Vec<ApiRole>,
}

/// What a back end may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiRole {
    /// Send messages.
    Send,
    /// Ask who is online.
    Read,
    /// Kick and drain.
    Admin,
}

/// The least important event that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something must be done.
    Error,
    /// Something may have to be done.
    Warn,
    /// What an operator wants to see; one line per closed connection.
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything.
    Trace,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

fn id_from_host(host: &str) -> String {
    let as_id_byte = |c: char| {
        let valid = c.is_ascii() && is_valid_id(&[c as u8]);
        if valid { c } else { '-' }
    };
    let id: String = host.chars().take(ID_BYTES_MAX).map(as_id_byte).collect();
    if id.is_empty() { "node-1".into() } else { id }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn mins(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_valid_id() {
        assert_eq!(id_from_host("tv-host.example"), "tv-host.example");
        assert_eq!(id_from_host("Anna's Büro"), "Anna-s-B-ro");
        assert_eq!(id_from_host(""), "node-1");
        assert!(is_valid_id(id_from_host(&"é".repeat(300)).as_bytes()));
    }
}
