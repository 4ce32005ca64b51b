//! `cargo xtask bench cores`: the divan benches of the pure crates, as one table.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::common::{Results, Target};
use crate::{cargo, root, test};

/// The crates and their bench targets.
const BENCHES: &[(&str, &str)] =
    &[("smtp", "server"), ("message", "header"), ("rules", "decision"), ("types", "address")];
/// Through DATA, in bytes a second.
const THROUGHPUT_MIN: f64 = 1e9;

/// One line of divan's tree.
#[derive(Debug, PartialEq)]
struct Bench {
    name: String,
    /// Seconds, the median.
    time: f64,
    /// Bytes a second, the median.
    throughput: Option<f64>,
}

/// Runs all of them and holds the text of a message against its target.
pub fn run(json: Option<&Path>) -> Result<()> {
    let mut results = Results::new("cores");
    for (package, bench) in BENCHES {
        let mut command: Command = cargo();
        command.args(["bench", "--locked", "-p", package, "--bench", bench]);
        // Not in the format of a terminal, and bytes in powers of ten.
        command.args(["--", "--color", "never", "--bytes-format", "decimal"]).current_dir(root()?);
        let text = test::output(&mut command)?;
        let benches = read(&text);
        ensure!(!benches.is_empty(), "divan said nothing of {package}:\n{text}");
        for bench in benches {
            let what = format!("{package}: {}", bench.name);
            let key = what.replace(": ", "_");
            match bench.throughput {
                Some(throughput) => {
                    let target = if bench.name == "data_text" || bench.name == "data_dots" {
                        Target::AtLeast(THROUGHPUT_MIN / 1e6)
                    } else {
                        Target::None
                    };
                    results.add(key, what, throughput / 1e6, "MB/s", target);
                }
                None => results.add(key, what, bench.time * 1e9, "ns", Target::None),
            }
        }
    }
    results
        .note("Medians. `data_...`: a session fed with reads of 64 KiB of a message of 1 MiB, from MAIL to its 250.");
    results.finish(json)
}

/// Reads divan's tree: rows with `fastest │ slowest │ median │ ...`; below a row its throughput, if it has one.
fn read(text: &str) -> Vec<Bench> {
    let mut benches: Vec<Bench> = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(at) = line.find(|c: char| c.is_alphanumeric() || c == '"' || c == '_') else { continue };
        let depth = line[..at].chars().count() / 3;
        let cells: Vec<&str> = line[at..].split('│').map(str::trim).collect();
        let is_row = line[..at].contains(['├', '╰']);
        match (cells.as_slice(), is_row) {
            ([first, _, median, ..], true) if !median.is_empty() => {
                // The name and the fastest time stand in one cell, two blanks or more apart.
                let name = first.split("  ").next().unwrap_or(first).trim();
                groups.truncate(depth.saturating_sub(1));
                let name = groups.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(" ");
                let time = quantity(median).unwrap_or(f64::NAN);
                benches.push(Bench { name, time, throughput: None });
            }
            ([first, ..], true) => {
                groups.truncate(depth.saturating_sub(1));
                groups.push((*first).to_owned());
            }
            ([_, _, median, ..], false) if median.ends_with("B/s") => {
                if let Some(bench) = benches.last_mut() {
                    bench.throughput = quantity(median.trim_end_matches("/s"));
                }
            }
            _ => {}
        }
    }
    benches
}

/// `1.25 GB`, `13.5 µs`: in bytes or seconds.
fn quantity(text: &str) -> Option<f64> {
    let (value, unit) = text.split_once(' ')?;
    let factor = match unit {
        "s" | "B" => 1.0,
        "ms" => 1e-3,
        "µs" | "us" => 1e-6,
        "ns" => 1e-9,
        "ps" => 1e-12,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    Some(value.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_divan_is_read() {
        let text = "\
Timer precision: 20 ns
server            fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ data_text      100 µs        │ 300 µs        │ 200.5 µs      │ 210 µs        │ 100     │ 100
│                 10 GB/s       │ 3 GB/s        │ 5.25 GB/s     │ 5 GB/s        │         │
╰─ parse                        │               │               │               │         │
   ├─ a@b         13.9 ns       │ 20 ns         │ 14 ns         │ 15 ns         │ 100     │ 6400
   ╰─ \"c d\"@e   23.9 ns       │ 20 ns         │ 24 ns         │ 15 ns         │ 100     │ 6400
";
        let bench = |name: &str, time: f64, throughput| Bench { name: name.to_owned(), time, throughput };
        let expected = [
            bench("data_text", 200.5 * 1e-6, Some(5.25 * 1e9)),
            bench("parse a@b", 14.0 * 1e-9, None),
            bench("parse \"c d\"@e", 24.0 * 1e-9, None),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        assert_eq!(quantity("12"), None);
        assert_eq!(quantity("x GB"), None);
        assert_eq!(quantity("2 KB"), Some(2000.0));
    }
}
