//! The process is killed, at random instants and at every named point: nothing that was answered 250 is lost.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test fails the test, with its reason"
)]

mod kills;
mod points;
