//! `cargo xtask soak`: honest and hostile traffic at half the measured rate, watched for leaks.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for people at a terminal; what goes wrong fails the run, with its reason"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use posthouse_tests::random::Random;
use posthouse_tests::soak::{self, Plan};

/// Sends honest and hostile traffic for a long time; fails when memory grows, tasks or file descriptors leak, or anything
/// is lost.
#[derive(Parser)]
struct Arguments {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Messages per second; by default half of what is measured first
    #[arg(long)]
    rate: Option<f64>,
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The same seed makes the same numbers
    #[arg(long)]
    seed: Option<u64>,
}

/// Between two samples; more often in a short run, so that each third has some.
const SAMPLE_EVERY_S: f64 = 10.0;
const SAMPLES_MIN: f64 = 18.0;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(Random::any_seed);
    println!("seed {seed}");
    let seconds = arguments.minutes * 60.0;
    let plan = Plan {
        time: Duration::from_secs_f64(seconds),
        every: Duration::from_secs_f64(SAMPLE_EVERY_S.min(seconds / SAMPLES_MIN)),
        rate: arguments.rate,
        seed,
    };
    let soak = soak::run(&plan, |s| {
        println!(
            "{:>7.1} s  RSS {:>7} KiB  fds {:>4}  threads {:>3}  tasks {:>4}",
            s.at_s, s.rss_kib, s.fds, s.threads, s.tasks
        );
    });
    let (middle, last) = soak.thirds();
    println!("{:.0} messages/s, {} attacks; {}", soak.rate, soak.attacks, soak.verdict);
    println!("RSS of the second third {middle:.0} KiB, of the last {last:.0} KiB");
    println!(
        "before and after: tasks {} and {}, file descriptors {} and {}",
        soak.before.tasks, soak.after.tasks, soak.before.fds, soak.after.fds
    );
    if let Some(path) = &arguments.json {
        let mut json = soak.to_json();
        json["seed"] = seed.into();
        std::fs::write(path, format!("{json:#}\n")).expect("the figures are written");
    }
    let faults = soak.faults();
    faults.iter().for_each(|fault| println!("FAULT: {fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
