//! `cargo xtask fuzz`: every target of `fuzz/` under libFuzzer for some minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{call, root};

/// Seconds for one input: whatever takes longer is a finding.
const INPUT_SECONDS_MAX: usize = 10;
/// Resident memory of a target in MiB: whatever takes more is a finding.
const RSS_MIB_MAX: usize = 2048;

/// A target, the octets of its longest input, its dictionary.
struct Target {
    name: &'static str,
    octets_max: usize,
    dictionary: Option<&'static str>,
}

const fn target(name: &'static str, octets_max: usize, dictionary: Option<&'static str>) -> Target {
    Target { name, octets_max, dictionary }
}

const TARGETS: [Target; 11] = [
    target("smtp_server", 4096, Some("smtp")),
    target("smtp_client", 8192, Some("smtp")),
    target("proxy_header", 4200, Some("smtp")),
    target("address", 600, Some("smtp")),
    target("header_walk", 4096, Some("smtp")),
    target("dsn", 4096, Some("smtp")),
    target("crypt", 512, Some("crypt")),
    target("resource_yaml", 16384, Some("yaml")),
    target("proto_queue", 4096, Some("smtp")),
    target("proto_policy", 4096, Some("smtp")),
    target("proto_ingress", 4096, Some("smtp")),
];

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Minutes for each target; the long form is 20
    #[arg(long, default_value_t = 5, value_name = "MINUTES")]
    minutes: u64,
    /// Names of targets; all of them where none is given
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// What came of a target.
struct Outcome {
    name: &'static str,
    executions: u64,
    per_second: u64,
    coverage: u64,
    findings: Vec<PathBuf>,
    failed: bool,
}

/// Builds and runs the targets one after the other; fails where one of them found something.
pub fn run(options: &Options) -> Result<()> {
    let unknown = options.targets.iter().find(|name| !TARGETS.iter().any(|target| target.name == **name));
    if let Some(unknown) = unknown {
        bail!("{unknown} is no target: {}", TARGETS.map(|target| target.name).join(", "));
    }
    need_nightly()?;
    need_cargo_fuzz()?;
    let chosen =
        |target: &&Target| options.targets.is_empty() || options.targets.iter().any(|name| name == target.name);
    let outcomes: Vec<Outcome> =
        TARGETS.iter().filter(chosen).map(|target| fuzz(target, options.minutes)).collect::<Result<_>>()?;
    println!("\n| target | minutes | executions | a second | coverage | findings |\n|---|---|---|---|---|---|");
    for outcome in &outcomes {
        let Outcome { name, executions, per_second, coverage, findings, .. } = outcome;
        println!("| {name} | {} | {executions} | {per_second} | {coverage} | {} |", options.minutes, findings.len());
    }
    for finding in outcomes.iter().flat_map(|outcome| &outcome.findings) {
        println!("finding: {}", finding.display());
    }
    if let Some(failed) = outcomes.iter().find(|outcome| outcome.failed) {
        bail!("{} found something: mend it, and keep the input in fuzz/corpus/{}", failed.name, failed.name);
    }
    Ok(())
}

fn need_nightly() -> Result<()> {
    let toolchains = Command::new("rustup").args(["toolchain", "list"]).output().context("cannot start rustup")?;
    if !String::from_utf8_lossy(&toolchains.stdout).lines().any(|line| line.starts_with("nightly")) {
        bail!("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal");
    }
    Ok(())
}

fn need_cargo_fuzz() -> Result<()> {
    let found = nightly().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    call(Command::new("cargo").args(["install", "cargo-fuzz", "--locked"]))
}

/// Cargo of the nightly toolchain: the repository pins another.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn fuzz(target: &Target, minutes: u64) -> Result<Outcome> {
    let name = target.name;
    let folder = root()?.join("fuzz");
    // What is found on the way stays here: the committed corpus grows by hand.
    let work = folder.join("work").join(name);
    fs::create_dir_all(&work)?;
    let artifacts = folder.join("artifacts").join(name);
    fs::create_dir_all(&artifacts)?;
    let before = files(&artifacts)?;
    // The code is safe Rust: an address sanitizer has nothing to find in it, and makes it slow.
    call(nightly().args(["fuzz", "build", "-s", "none", name]))?;
    let log = folder.join("work").join(format!("{name}.log"));
    println!("==> {name} for {minutes} minutes, log in {}", log.display());
    let mut command = nightly();
    command.args(["fuzz", "run", "-s", "none", name]).arg(&work).arg(folder.join("corpus").join(name)).arg("--");
    command.args([
        format!("-max_total_time={}", minutes * 60),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={RSS_MIB_MAX}"),
        format!("-max_len={}", target.octets_max),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    if let Some(dictionary) = target.dictionary {
        command.arg(format!("-dict={}", folder.join("dictionaries").join(format!("{dictionary}.dict")).display()));
    }
    let status = command.current_dir(root()?).stdout(Stdio::null()).stderr(fs::File::create(&log)?).status()?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let mut findings = files(&artifacts)?;
    findings.retain(|file| !before.contains(file));
    let outcome = Outcome {
        name,
        executions: after(&text, "stat::number_of_executed_units:"),
        per_second: after(&text, "stat::average_exec_per_sec:"),
        coverage: after(&text, " cov: "),
        findings,
        failed: !status.success(),
    };
    println!("    {} executions, {} a second, coverage {}", outcome.executions, outcome.per_second, outcome.coverage);
    if outcome.failed {
        let message = text.lines().find(|line| line.contains("panicked at")).unwrap_or("see the log");
        println!("    it found something: {message}");
    }
    Ok(outcome)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The number behind the last `label`.
fn after(text: &str, label: &str) -> u64 {
    let digits = |rest: &str| rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
    text.rsplit_once(label).and_then(|(_, rest)| digits(rest).parse().ok()).unwrap_or(0)
}
