//! The configuration: one typed tree, the only place of defaults, and the way from file, environment and flags to it.
//!
//! `cli` loads it, `server` hands each part its section; everybody may read the types, nobody writes to them. A bad
//! source never yields a tree: every mistake becomes a [`error::ConfigError`] with place, cause and next step.
//! Secrets are named by file (`*_file`) and never enter the tree.

pub mod error;
mod file;
pub mod name;
pub mod render;
pub mod secret;
pub mod section;
pub mod size;
pub mod source;
mod tls;
mod validate;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use section::{
    Api, Auth, Broadcast, Drain, Heartbeat, Lifetime, Limits, Listen, Log, Memory, Node, Ops,
    Presence, Reactor, Section, Tls,
};

/// Everything an operator can set. [`Default`] is what runs without a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[listen]`
    pub listen: Listen,
    /// `[devices_tls]`
    pub devices_tls: Tls,
    /// `[api_tls]`
    pub api_tls: Tls,
    /// `[peer_tls]`
    pub peer_tls: Tls,
    /// `[ops_tls]`
    pub ops_tls: Tls,
    /// `[reactor]`
    pub reactor: Reactor,
    /// `[auth]`
    pub auth: Auth,
    /// `[api]`
    pub api: Api,
    /// `[ops]`
    pub ops: Ops,
    /// `[heartbeat]`
    pub heartbeat: Heartbeat,
    /// `[presence]`
    pub presence: Presence,
    /// `[limits]`
    pub limits: Limits,
    /// `[memory]`
    pub memory: Memory,
    /// `[lifetime]`
    pub lifetime: Lifetime,
    /// `[broadcast]`
    pub broadcast: Broadcast,
    /// `[drain]`
    pub drain: Drain,
    /// `[log]`
    pub log: Log,
}

impl Config {
    /// The sections in the order of the file, each with its keys and their documentation.
    pub const SECTIONS: &[Section] = &[
        Node::SECTION,
        Listen::SECTION,
        Tls::SECTION,
        Tls::API_SECTION,
        Tls::PEER_SECTION,
        Tls::OPS_SECTION,
        Reactor::SECTION,
        Auth::SECTION,
        Api::SECTION,
        Ops::SECTION,
        Heartbeat::SECTION,
        Presence::SECTION,
        Limits::SECTION,
        Memory::SECTION,
        Lifetime::SECTION,
        Broadcast::SECTION,
        Drain::SECTION,
        Log::SECTION,
    ];

    /// The tree as TOML; keys that are unset are absent.
    fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
