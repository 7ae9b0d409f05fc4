//! Bytes until the head of a request is whole, in linear time however they are cut.

use super::request::{Limits, Malformed};

/// Collects one request head. Empty, and without an allocation, while heads arrive in one piece.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    bytes: Vec<u8>,
    /// Where the line that is not finished yet begins.
    line_start: usize,
    /// How far the search for its end has come.
    scanned: usize,
}

/// A whole head: borrowed from the input if it came in one piece, else from the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// From the request line to the empty line, included.
    pub bytes: &'a [u8],
    /// Bytes of the input that belong to it. What follows is not HTTP: frames after a 101, void after a refusal.
    pub consumed: usize,
}
