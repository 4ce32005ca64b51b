//! `cargo xtask chaos` and `cargo xtask soak`: the tools of the ledger, over the build that the tests use.

use clap::Args;

use anyhow::Result;

use crate::{call, cargo};

/// What follows goes to the tool; `--help` tells.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// As in `--quick --json FILE --seed N`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the platform with its named points (the dev profile) and runs this tool of the tests.
pub fn run(tool: &str, options: &Options) -> Result<()> {
    call(cargo().args(["build", "--locked", "-p", "posthouse"]))?;
    call(cargo().args(["run", "--locked", "-p", "posthouse-tests", "--bin", tool, "--"]).args(&options.arguments))
}
