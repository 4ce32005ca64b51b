//! What must be reached, and what was.

use serde_json::{Value, json};

use super::cells::{Cell, Mode};
use super::report::Row;
use super::stats::{Spread, rounded};

/// One line of the table of targets.
pub struct Target {
    pub what: &'static str,
    /// The key of the JSON file.
    pub key: &'static str,
    bound: Bound,
    pub found: Spread,
    pub unit: &'static str,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

type Measure = fn(&Row) -> Option<Spread>;

impl Target {
    pub fn reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.found.median >= bound,
            Bound::AtMost(bound) => self.found.median <= bound,
        }
    }

    pub fn bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!(">= {bound}{}", self.unit),
            Bound::AtMost(bound) => format!("<= {bound}{}", self.unit),
        }
    }

    pub fn json(&self) -> Value {
        let mut value = self.found.json();
        value["what"] = json!(self.what);
        value["target"] = json!(self.bound());
        value["reached"] = json!(self.reached());
        value
    }
}

/// Those targets for which the cell was measured.
pub fn judge(rows: &[Row]) -> Vec<Target> {
    let mut found = Vec::new();
    for (what, key, (size_kib, connections, mode), bound, unit, measure) in table() {
        let cell = Cell { size_kib, connections, mode };
        let Some(row) = rows.iter().find(|row| row.cell == cell) else { continue };
        let Some(spread) = measure(row) else { continue };
        found.push(Target { what, key, bound, found: spread, unit });
    }
    found
}

/// The values that other tools read, by key.
pub fn keys(targets: &[Target]) -> Vec<(&'static str, f64)> {
    targets.iter().map(|target| (target.key, rounded(target.found.median))).collect()
}

type Line = (&'static str, &'static str, (u64, u64, Mode), Bound, &'static str, Measure);

fn table() -> Vec<Line> {
    use Bound::{AtLeast, AtMost};
    use Mode::{Keep, New};
    vec![
        (
            "accepted/s against Postfix, 1 connection",
            "accept_ratio_1",
            (10, 1, Keep),
            AtLeast(2.0),
            "x",
            Row::accept_ratio,
        ),
        (
            "accepted/s against Postfix, 10 connections",
            "accept_ratio_10",
            (10, 10, Keep),
            AtLeast(5.0),
            "x",
            Row::accept_ratio,
        ),
        (
            "accepted/s against Postfix, 100 connections",
            "accept_ratio_100",
            (10, 100, Keep),
            AtLeast(10.0),
            "x",
            Row::accept_ratio,
        ),
        (
            "delivered/s against Postfix, 10 connections",
            "e2e_ratio_10",
            (10, 10, Keep),
            AtLeast(5.0),
            "x",
            Row::deliver_ratio,
        ),
        (
            "delivered/s against Postfix, 100 connections",
            "e2e_ratio_100",
            (10, 100, Keep),
            AtLeast(10.0),
            "x",
            Row::deliver_ratio,
        ),
        (
            "a new connection per message, 10 connections",
            "accept_ratio_new_10",
            (10, 10, New),
            AtLeast(4.0),
            "x",
            Row::accept_ratio,
        ),
        (
            "100 KiB messages, 10 connections",
            "accept_ratio_100kib_10",
            (100, 10, Keep),
            AtLeast(3.0),
            "x",
            Row::accept_ratio,
        ),
        (
            "accepted/s against the tools' ceiling, 100 connections",
            "ceiling_share_100",
            (10, 100, Keep),
            AtLeast(0.5),
            "",
            Row::ceiling_share,
        ),
        (
            "CPU per message against Postfix, 10 connections",
            "cpu_share_of_postfix_10",
            (10, 10, Keep),
            AtMost(0.125),
            "x",
            Row::cpu_share,
        ),
        (
            "CPU per message against Postfix, 100 connections",
            "cpu_share_of_postfix_100",
            (10, 100, Keep),
            AtMost(0.125),
            "x",
            Row::cpu_share,
        ),
        (
            "sync calls per message, 100 connections",
            "syncs_per_message_100",
            (10, 100, Keep),
            AtMost(0.1),
            "",
            Row::syncs_of_posthouse,
        ),
        ("peak RSS at 100 connections", "rss_mib_100", (10, 100, Keep), AtMost(80.0), " MiB", Row::rss_of_posthouse),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bound: Bound, median: f64) -> Target {
        Target { what: "", key: "", bound, found: Spread { median, min: median, max: median }, unit: "x" }
    }

    #[test]
    fn a_bound_itself_is_reached() {
        assert!(target(Bound::AtLeast(5.0), 5.0).reached());
        assert!(!target(Bound::AtLeast(5.0), 4.99).reached());
        assert!(target(Bound::AtMost(0.1), 0.1).reached());
        assert!(!target(Bound::AtMost(0.1), 0.11).reached());
    }

    #[test]
    fn the_keys_that_others_read_are_all_there_and_each_once() {
        let mut keys: Vec<_> = table().into_iter().map(|line| line.1).collect();
        for key in [
            "accept_ratio_1",
            "accept_ratio_10",
            "accept_ratio_100",
            "e2e_ratio_10",
            "e2e_ratio_100",
            "cpu_share_of_postfix_10",
            "syncs_per_message_100",
            "ceiling_share_100",
        ] {
            assert!(keys.contains(&key), "{key}");
        }
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
