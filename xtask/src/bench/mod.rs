//! `cargo xtask bench ...`: numbers that a command of the repository reproduces.

mod start;

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Binary size, time from start to ready, resident memory when idle, of the release build.
    Start,
}

/// Measures it.
pub fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Start => start::run(),
    }
}
