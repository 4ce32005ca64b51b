//! `cargo xtask chaos`: kills and power cuts under load, and the ledger's verdict.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for people at a terminal; what goes wrong fails the run, with its reason"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use posthouse_tests::points::{self, CASES};
use posthouse_tests::power;
use posthouse_tests::random::Random;
use posthouse_tests::storm::{self, Storm};

/// Platforms at a time, at the named points.
const PARALLEL: usize = 4;

/// Kills the platform at random instants and at every named point, takes its power away, and compares what was answered
/// 250 with what arrived.
#[derive(Parser)]
struct Arguments {
    /// The short form: 20 random kills, every named point, 10 power cuts
    #[arg(long)]
    quick: bool,
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The same seed makes the same numbers (what happens between them is up to the machine)
    #[arg(long)]
    seed: Option<u64>,
    /// Random kills
    #[arg(long)]
    kills: Option<u64>,
    /// Power cuts
    #[arg(long)]
    cuts: Option<u64>,
}

/// Random kills of one storm: over one state folder, which grows old with it.
const KILLS_OF_A_STORM: u64 = 50;
/// Power cuts of one storm.
const CUTS_OF_A_STORM: u64 = 55;
/// Kills with recipients that are refused.
const KILLS_WITH_REFUSALS: u64 = 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(Random::any_seed);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let kills = arguments.kills.unwrap_or(if arguments.quick { 20 } else { 200 });
    let cuts = arguments.cuts.unwrap_or(if arguments.quick { 10 } else { 110 });
    let mut whole = Storm::default();
    let mut tell = |name: &str, storm: &Storm| {
        println!("{name}: {} kills, {} power cuts; {}", storm.kills, storm.power_cuts, storm.verdict);
        whole.add(storm);
    };
    for (from, to) in parts(kills, KILLS_OF_A_STORM) {
        tell("random kills", &storm::kills(random.draw(), to - from, 12, false));
    }
    let refusals = KILLS_WITH_REFUSALS.min(kills);
    tell("random kills, refused recipients", &storm::kills(random.draw(), refusals, 6, true));
    tell("named points", &all_points(random.draw()));
    let mut broken = None;
    for (from, to) in parts(cuts, CUTS_OF_A_STORM) {
        let report = power::power_cuts(to - from, random.draw());
        println!("{report}");
        broken = broken.or(report.broken.clone());
        tell("power cuts", &Storm { verdict: report.verdict, kills: 0, power_cuts: report.cuts });
    }
    println!("all: {} kills, {} power cuts; {}", whole.kills, whole.power_cuts, whole.verdict);
    if let Some(path) = &arguments.json {
        let mut json = whole.verdict.to_json();
        json["kills"] = whole.kills.into();
        json["power_cuts"] = whole.power_cuts.into();
        json["seed"] = seed.into();
        std::fs::write(path, format!("{json:#}\n")).expect("the figures are written");
    }
    if whole.verdict.is_clean() && broken.is_none() {
        println!("nothing was lost");
        ExitCode::SUCCESS
    } else {
        println!("NOT CLEAN (seed {seed})");
        ExitCode::FAILURE
    }
}

/// `0..whole` in parts of this size.
fn parts(whole: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..whole.div_ceil(size)).map(move |n| (n * size, (n * size + size).min(whole)))
}

fn all_points(seed: u64) -> Storm {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Storm::default());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some((point, reached)) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let storm = points::kill_at(point, *reached, seed);
                    if !storm.verdict.is_clean() {
                        println!("{point} {reached:?}: {}", storm.verdict);
                    }
                    all.lock().expect("no other thread broke off").add(&storm);
                }
            });
        }
    });
    all.into_inner().expect("no thread broke off")
}
