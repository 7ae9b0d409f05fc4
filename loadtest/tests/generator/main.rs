//! The generator against servers that are honest and servers that lie: the honest pass, every lie is named.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod broadcast;
mod canary;
mod churn;
mod compare;
mod diff;
mod drain;
mod foreign_server;
mod halfopen;
mod ladder;
mod line;
mod lying_server;
mod make;
mod merge;
mod message;
mod plan;
mod real;
mod report;
mod request;
mod run;
mod slow;
mod soak;
mod storm;
mod tls;
mod tls_front;
