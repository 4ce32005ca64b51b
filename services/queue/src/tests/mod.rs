//! The service through its generated client, over a wire, with a clock that the test turns.
//!
//! Every test is generic over [`Bench`]: another store runs the same suite.

mod accept;
mod admin;
mod kit;
mod lease;
mod settle;
mod trouble;
