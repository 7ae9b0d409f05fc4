//! One request head, parsed and checked.
