//! `cargo xtask bench decision`: one decision among 10,000 domains, 100,000 users and 1,000 rules.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::common::{Results, Target, target_folder};
use crate::{call, cargo, root, test};

/// Runs the example of the policy service that measures, and holds what it says against the targets.
pub fn run(json: Option<&Path>) -> Result<()> {
    call(cargo().args(["build", "--release", "--locked", "-p", "policy", "--example", "decision"]))?;
    let program = target_folder()?.join("release/examples/decision");
    let text = test::output(std::process::Command::new(&program).current_dir(root()?))?;
    let said: Value = serde_json::from_str(&text).context("what the example prints is JSON")?;
    let figure = |key: &str| said[key].as_f64().with_context(|| format!("the example does not say {key}"));
    let mut results = Results::new("decision");
    let targets = [
        ("envelope_p50_us", "one envelope, one recipient, by the service: p50", "us", Target::AtMost(50.0)),
        ("envelope_p99_us", "one envelope, one recipient, by the service: p99", "us", Target::AtMost(50.0)),
        ("explain_p50_us", "the same with its story (`posthouse explain`): p50", "us", Target::None),
        ("load_s", "YAML of 110,000 documents to typed objects", "s", Target::None),
        ("compile_s", "typed objects to a snapshot", "s", Target::AtMost(1.0)),
        ("rss_snapshot_mib", "resident memory of a process that holds the snapshot", "MiB", Target::AtMost(150.0)),
    ];
    for (key, what, unit, target) in targets {
        results.add(key, what, figure(key)?, unit, target);
    }
    results.note(
        "10,000 MailDomains, 100,000 MailUsers, a MailPolicy of 1,000 rules: senders, recipients, recipient domains and \
         HELO word for word and with wildcards, lists of networks, tables. The call goes through the wire and the codec of \
         the policy service in one process; recipients and senders change from call to call.",
    );
    results.finish(json)
}
