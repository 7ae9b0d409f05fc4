//! Layer 1: our own words inside frames and bodies, as bytes.
//!
//! Payloads and their forms, the device protocol's JSON frames, the API's envelope, results and errors. Decoding
//! borrows, encoding writes into the caller's buffer; nothing here knows sockets, connections or the frame around it.

pub mod account;
pub mod answer;
pub mod api;
pub mod batch;
pub mod broadcast;
pub mod cursor;
pub mod device;
pub mod drain;
pub mod envelope;
pub mod error;
pub mod event;
pub mod payload;
pub mod reply;
pub mod send;
pub mod stream;
