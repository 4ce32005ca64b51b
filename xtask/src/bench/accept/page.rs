//! `docs/benchmarks.md`: the generated part between two markers; the rest is written by people.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::machine::Machine;
use super::report::{self, Row};

const BEGIN: &str = "<!-- bench accept: begin (written by `cargo xtask bench accept`) -->";
const END: &str = "<!-- bench accept: end -->";

/// Replaces the generated part.
pub fn write(file: &Path, rows: &[Row], machine: &Machine) -> Result<()> {
    let page = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let page = replaced(&page, &generated(rows, machine))
        .with_context(|| format!("{}: {BEGIN} or {END} is missing", file.display()))?;
    fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("==> {} is written anew", file.display());
    Ok(())
}

fn generated(rows: &[Row], machine: &Machine) -> String {
    let mut text = format!(
        "\n{}.\n\n{}\n{}",
        machine.text(),
        report::markdown(&report::targets(rows)),
        report::markdown(&report::cells(rows))
    );
    let warnings = report::warnings(rows);
    if !warnings.is_empty() {
        text.push_str("\nDisturbed:\n\n");
        text.extend(warnings.iter().map(|warning| format!("- {warning}\n")));
    }
    text + "\n"
}

fn replaced(page: &str, generated: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{generated}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_markers_changes() {
        let page = format!("# Before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("# Before\n{BEGIN}\nnew\n{END}\nafter\n")));
        assert_eq!(replaced("# Nothing\n", "new\n"), None);
    }
}
