//! The service through its generated client, over a wire, with a clock that the test turns.
//!
//! Tests reach the store through `kit::Bench` only, but for `trouble`, which damages SQLite on purpose.

mod accept;
mod admin;
mod clock;
mod kit;
mod lease;
mod settle;
mod trouble;
