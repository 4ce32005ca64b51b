//! Rules that the compiler does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cargo, root, test};

/// Lines of a source file without its tests.
const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Crates that decide and depend on no runtime, socket, database or client.
const PURE: &[&str] = &["types", "smtp", "message", "rules", "resources", "schedule"];
const SHELL_DEPENDENCIES: &[&str] =
    &["tokio", "tonic", "axum", "sqlx", "redis", "hickory-resolver", "tokio-rustls", "hyper-util", "notify"];
const SERVICES: &[&str] = &["ingress", "policy", "queue", "delivery"];

/// Checks everything and reports all faults together.
pub fn run() -> Result<()> {
    println!("==> tidy");
    let mut faults = Vec::new();
    let files = test::output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let files: Vec<&str> = files.lines().collect();
    let root = root()?;
    check_files(&root, &files, &mut faults)?;
    check_arrows(&mut faults)?;
    check_architecture(&root, &mut faults)?;
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

fn check_files(root: &Path, files: &[&str], faults: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        // A file that was removed and not yet committed is still listed.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let excused = LONG_FILES.iter().any(|(long, _)| long == file);
        let is_test = file.starts_with("tests/") || file.contains("/tests");
        if lines > FILE_LINES_MAX && !excused && !is_test {
            faults.push(format!("{file}: {lines} lines without tests: split it by subject ({FILE_LINES_MAX} at most)"));
        }
    }
    let main = fs::read_to_string(root.join("services/posthouse/src/main.rs"))?;
    if main.lines().count() > 30 {
        faults.push("services/posthouse/src/main.rs: over 30 lines: it only hands over".to_owned());
    }
    Ok(())
}

/// Which packages of ours depend on what, test dependencies apart.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = test::output(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("metadata lists packages")?;
    let normal = |package: &serde_json::Value| -> BTreeSet<String> {
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        let normal = all.iter().filter(|dependency| dependency["kind"].is_null());
        normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect()
    };
    let named = packages.iter().filter_map(|package| Some((package["name"].as_str()?.to_owned(), normal(package))));
    Ok(named.collect())
}

fn check_arrows(faults: &mut Vec<String>) -> Result<()> {
    let all = dependencies()?;
    let ours: BTreeSet<&str> = all.keys().map(String::as_str).collect();
    for (package, depends_on) in &all {
        let package = package.as_str();
        for dependency in depends_on.iter().map(String::as_str) {
            let wrong = if PURE.contains(&package) && SHELL_DEPENDENCIES.contains(&dependency) {
                "it is pure"
            } else if package == "posthouse-proto" && ours.contains(dependency) {
                "the contracts depend on nothing of ours"
            } else if SERVICES.contains(&dependency) && !["posthouse", "posthouse-tests", "fuzzing"].contains(&package)
            {
                "services are called through their contract"
            } else if ["sqlx", "rusqlite"].contains(&dependency) && !["queue", "policy"].contains(&package) {
                "only queue and policy have a database"
            } else if dependency == "testkit" && package != "posthouse-tests" {
                "the test kit is for tests"
            } else {
                continue;
            };
            faults.push(format!("{package} must not depend on {dependency}: {wrong}"));
        }
    }
    Ok(())
}

fn check_architecture(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    if text.lines().count() >= 300 {
        faults.push("ARCHITECTURE.md: 300 lines or more: it is a map".to_owned());
    }
    for package in dependencies()?.keys() {
        let name = package.strip_prefix("posthouse-").unwrap_or(package);
        if !text.contains(name) {
            faults.push(format!("ARCHITECTURE.md does not name {name}"));
        }
    }
    Ok(())
}
