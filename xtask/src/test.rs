//! `cargo xtask test`: what CI runs, and nothing less.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{call, cargo, packages, root, tidy};

/// Packages, format, lints, tidy, dependencies, build, every test.
pub fn run() -> Result<()> {
    packages::install_missing()?;
    run_cargo(&["fmt", "--all", "--check"])?;
    run_cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    tidy::run()?;
    deny()?;
    // Tests start what this makes: the system tests the binary, those of delivery the helper that is an example.
    run_cargo(&["build", "--workspace", "--bins", "--examples", "--locked"])?;
    tests()
}

fn run_cargo(arguments: &[&str]) -> Result<()> {
    call(cargo().args(arguments))
}

/// Licences, duplicates and sources of what we depend on.
fn deny() -> Result<()> {
    let installed = cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        println!("==> missing: cargo-deny (guards licences, sources and duplicates of dependencies): building it");
        // Its own target folder would be thrown away; a shared one keeps a second try cheap.
        run_cargo(&["install", "--locked", "--quiet", "--no-default-features", "cargo-deny", "--version", "0.20.2"])?;
    }
    run_cargo(&["deny", "--locked", "--log-level", "error", "check", "bans", "licenses", "sources"])
}

/// Runs the tests, shows what they print, and closes with the sum of all their summaries.
fn tests() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"]);
    println!("==> cargo test --workspace --all-targets");
    let mut child = command.current_dir(root()?).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut sum = Summary::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cargo test prints text")?;
        println!("{line}");
        sum.add(&line);
    }
    let status = child.wait().context("cargo test ends")?;
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.ignored);
    if !status.success() || sum.failed > 0 {
        bail!("the tests failed: {status}");
    }
    if sum.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Summary {
    /// Adds a line like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`; other lines add nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            let Some((number, word)) = count.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Runs a command quietly and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let text = format!("{command:?}");
    let output = command.current_dir(root()?).output().with_context(|| format!("cannot start {text}"))?;
    if !output.status.success() {
        bail!("{text}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up() {
        let mut sum = Summary::default();
        sum.add("test a ... ok");
        sum.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        sum.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(sum, Summary { passed: 13, failed: 2, ignored: 1 });
    }
}
