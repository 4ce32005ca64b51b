//! `cargo xtask bench ...`: numbers that a command of the repository reproduces.

mod accept;
mod backlog;
mod common;
mod cores;
mod decision;
mod memory;
mod start;
mod tls;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Binary size, time from start to ready, resident memory when idle, of the release build.
    Start,
    /// Accepting and delivering mail beside Postfix, and beside what the load tools can do: needs root, installs Postfix.
    Accept(accept::Options),
    /// Resident memory under load, with idle connections, and with large messages on all connections at once.
    Memory(memory::Options),
    /// Fresh mail, start and memory with a million messages waiting, against none.
    Backlog(backlog::Options),
    /// TLS handshakes per CPU second beside `openssl s_server`.
    Tls(tls::Options),
    /// The pure cores: SMTP parse, header walk, rule decision, address parse.
    Cores(Output),
    /// A decision among 10,000 domains, 100,000 users and 1,000 rules.
    Decision(Output),
}

/// Where figures go besides the terminal and docs/benchmarks.md.
#[derive(clap::Args)]
pub struct Output {
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures it.
pub fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Start => start::run(),
        Bench::Accept(options) => accept::run(&options),
        Bench::Memory(options) => memory::run(&options),
        Bench::Backlog(options) => backlog::run(&options),
        Bench::Tls(options) => tls::run(&options),
        Bench::Cores(output) => cores::run(output.json.as_deref()),
        Bench::Decision(output) => decision::run(output.json.as_deref()),
    }
}
