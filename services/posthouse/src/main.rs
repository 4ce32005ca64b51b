//! The one binary: the platform, one process from a folder of YAML, and the commands of the people who run it.

mod backup;
mod cli;
mod exit;
mod explain;
mod hash;
mod hint;
mod json;
mod output;
mod queue_changes;
mod queue_list;
mod queue_transfer;
mod reach;
mod run;
mod sendmail;
mod sessions;
mod site;
mod trace;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().collect())
}
