//! Everything that a developer runs: `cargo xtask test`, `cargo xtask bench start`, ...
#![allow(clippy::print_stdout, reason = "a tool for people at a terminal")]

mod bench;
mod chaos;
mod fuzz;
mod packages;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Developer's commands of Posthouse.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs the real peers that are missing, then formats, lints, builds and tests everything. What CI runs.
    Test,
    /// Checks what the compiler does not: arrows between crates, sizes, words.
    Tidy,
    /// Fuzzes what reads hostile input, each target for some minutes: needs a nightly toolchain.
    Fuzz(fuzz::Options),
    /// Kills the platform and takes its power away under load; fails when anything that was answered 250 is lost.
    Chaos(chaos::Options),
    /// Honest and hostile traffic for half an hour; fails on a leak or a loss.
    Soak(chaos::Options),
    /// Measures.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Tidy => tidy::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Chaos(options) => chaos::run("chaos", &options),
        Task::Soak(options) => chaos::run("soak", &options),
        Task::Bench { what } => bench::run(what),
    }
}

/// Top of the repository.
fn root() -> Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).context("xtask lies in the workspace")
}

/// Runs a command at the top of the repository and fails with it.
fn call(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}").replace('"', "");
    println!("==> {text}");
    let status = command.current_dir(root()?).status().with_context(|| format!("cannot start {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
