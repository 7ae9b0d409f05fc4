//! The server from the outside: the real binary, real sockets, free ports, and deadlines instead of sleeps. Each test
//! starts its own node and says in its name what the node promises.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking with what it saw, and a table of cases is as long as it is"
)]

mod account;
mod api;
mod attack;
mod auth;
mod authority;
mod batch;
mod broadcast;
mod canary;
mod census;
mod certificate;
mod control;
mod d2d;
mod deadline;
mod device;
mod doctor;
mod drain;
mod drain_engine;
mod event;
mod first_minute;
mod frame;
mod full;
mod guarantee;
mod heartbeat;
mod http;
mod idempotency;
mod ipv6;
mod library;
mod lifetime;
mod limit;
mod line;
mod log;
mod memory;
mod node;
mod order;
mod outcome;
mod proxy;
mod replaced;
mod slow_consumer;
mod start;
mod stream;
mod supervisor;
mod tls;
mod token;
mod upgrade;
