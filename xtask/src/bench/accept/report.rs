//! The rounds summed up: rows, the terminal's table, JSON.

use serde_json::{Map, Value, json};

use super::cells::{Cell, Mode};
use super::machine::Machine;
use super::measure::Sample;
use super::noise::OTHERS_SHARE_MAX;
use super::stats::{Spread, ratios, rounded};
use super::targets::{Target, judge, keys};

/// All rounds of one cell.
pub struct Row {
    pub cell: Cell,
    pub ceiling: Vec<f64>,
    pub posthouse: Vec<Sample>,
    pub postfix: Vec<Sample>,
    /// Posthouse's and Postfix's sync calls per message.
    pub syncs: Option<(f64, f64)>,
}

impl Row {
    pub fn new(cell: Cell) -> Self {
        Self { cell, ceiling: Vec::new(), posthouse: Vec::new(), postfix: Vec::new(), syncs: None }
    }

    pub fn accept_ratio(&self) -> Option<Spread> {
        self.ratio(|sample| sample.accepted_per_s)
    }

    pub fn deliver_ratio(&self) -> Option<Spread> {
        self.ratio(|sample| sample.delivered_per_s)
    }

    pub fn cpu_share(&self) -> Option<Spread> {
        self.ratio(|sample| sample.cpu_ms)
    }

    pub fn ceiling_share(&self) -> Option<Spread> {
        ratios(&of(&self.posthouse, |sample| sample.accepted_per_s), &self.ceiling)
    }

    pub fn syncs_of_posthouse(&self) -> Option<Spread> {
        self.syncs.map(|(posthouse, _)| Spread { median: posthouse, min: posthouse, max: posthouse })
    }

    pub fn rss_of_posthouse(&self) -> Option<Spread> {
        Spread::of(self.posthouse.iter().map(|sample| sample.memory.rss_kib as f64 / 1024.0))
    }

    fn ratio(&self, measure: fn(&Sample) -> f64) -> Option<Spread> {
        ratios(&of(&self.posthouse, measure), &of(&self.postfix, measure))
    }

    /// Medians of a measure, ours and Postfix's, as text.
    fn both(&self, measure: fn(&Sample) -> f64, digits: usize) -> (String, String) {
        let text = |samples: &[Sample]| median(Spread::of(of(samples, measure)), digits);
        (text(&self.posthouse), text(&self.postfix))
    }

    fn json(&self) -> Value {
        let mode = match self.cell.mode {
            Mode::Keep => "many",
            Mode::New => "one",
        };
        let spread = |spread: Option<Spread>| spread.map_or(Value::Null, |spread| spread.json());
        let server = |samples: &[Sample], syncs: Option<f64>| {
            json!({
                "accepted_per_s": spread(Spread::of(of(samples, |s| s.accepted_per_s))),
                "delivered_per_s": spread(Spread::of(of(samples, |s| s.delivered_per_s))),
                "cpu_ms_per_message": spread(Spread::of(of(samples, |s| s.cpu_ms))),
                "pss_mib": spread(Spread::of(of(samples, |s| s.memory.pss_kib as f64 / 1024.0))),
                "rss_mib": spread(Spread::of(of(samples, |s| s.memory.rss_kib as f64 / 1024.0))),
                "others_cpu_share": spread(Spread::of(of(samples, |s| s.others))),
                "messages": samples.iter().map(|s| s.messages).collect::<Vec<_>>(),
                "syncs_per_message": syncs.map(rounded),
            })
        };
        json!({
            "size_kib": self.cell.size_kib,
            "connections": self.cell.connections,
            "messages_per_connection": mode,
            "ceiling_per_s": spread(Spread::of(self.ceiling.iter().copied())),
            "posthouse": server(&self.posthouse, self.syncs.map(|(posthouse, _)| posthouse)),
            "postfix": server(&self.postfix, self.syncs.map(|(_, postfix)| postfix)),
            "accept_ratio": spread(self.accept_ratio()),
            "deliver_ratio": spread(self.deliver_ratio()),
            "cpu_share": spread(self.cpu_share()),
            "ceiling_share": spread(self.ceiling_share()),
        })
    }
}

fn of(samples: &[Sample], measure: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(measure).collect()
}

/// The head and the lines of a table.
pub type Table = (Vec<String>, Vec<Vec<String>>);

/// Messages per second of every cell; ours before Postfix's.
pub fn rates(rows: &[Row]) -> Table {
    let columns =
        ["ceiling/s", "accepted/s", "Postfix", "ratio", "share of ceiling", "delivered/s", "Postfix", "ratio"];
    table(rows, &columns, |row| {
        let (accepted, accepted_postfix) = row.both(|s| s.accepted_per_s, 0);
        let (delivered, delivered_postfix) = row.both(|s| s.delivered_per_s, 0);
        vec![
            median(Spread::of(row.ceiling.iter().copied()), 0),
            accepted,
            accepted_postfix,
            spread(row.accept_ratio(), 1),
            median(row.ceiling_share(), 2),
            delivered,
            delivered_postfix,
            spread(row.deliver_ratio(), 1),
        ]
    })
}

/// What a message costs in every cell; ours before Postfix's.
pub fn costs(rows: &[Row]) -> Table {
    let columns = [
        "CPU ms/message",
        "Postfix",
        "share",
        "PSS MiB",
        "Postfix",
        "RSS MiB",
        "Postfix",
        "sync calls/message",
        "Postfix",
    ];
    table(rows, &columns, |row| {
        let (cpu, cpu_postfix) = row.both(|s| s.cpu_ms, 3);
        let (pss, pss_postfix) = row.both(|s| s.memory.pss_kib as f64 / 1024.0, 0);
        let (rss, rss_postfix) = row.both(|s| s.memory.rss_kib as f64 / 1024.0, 0);
        let syncs = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let (ours, postfix) = (row.syncs.map(|(ours, _)| ours), row.syncs.map(|(_, postfix)| postfix));
        let share = spread(row.cpu_share(), 3);
        vec![cpu, cpu_postfix, share, pss, pss_postfix, rss, rss_postfix, syncs(ours), syncs(postfix)]
    })
}

fn table(rows: &[Row], columns: &[&str], values: impl Fn(&Row) -> Vec<String>) -> Table {
    let head = ["KiB", "connections", "messages each"].iter().chain(columns).map(|name| (*name).to_owned());
    let line = |row: &Row| {
        let mode = if row.cell.mode == Mode::Keep { "many" } else { "one" };
        let mut line = vec![row.cell.size_kib.to_string(), row.cell.connections.to_string(), mode.to_owned()];
        line.extend(values(row));
        line
    };
    (head.collect(), rows.iter().map(line).collect())
}

/// What must be reached beside what was.
pub fn targets(rows: &[Row]) -> Table {
    let head = ["measure (10 KiB, many messages per connection unless said)", "must reach", "measured", ""];
    let line = |target: &Target| {
        let verdict = if target.reached() { "reached" } else { "missed" };
        let digits = if target.found.median < 1.0 { 3 } else { 1 };
        vec![target.what.to_owned(), target.bound(), spread(Some(target.found), digits), verdict.to_owned()]
    };
    (head.map(str::to_owned).into(), judge(rows).iter().map(line).collect())
}

/// Lines about rounds in which others were busy.
pub fn warnings(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let rounds = row.posthouse.iter().zip(&row.postfix).enumerate();
        for (round, (posthouse, postfix)) in rounds {
            let most = posthouse.others.max(postfix.others);
            if most > OTHERS_SHARE_MAX {
                let share = most * 100.0;
                lines.push(format!("{}, round {}: others used {share:.0} % of the CPU", row.cell, round + 1));
            }
        }
    }
    lines
}

/// Everything, for a program.
pub fn json(rows: &[Row], machine: &Machine) -> Value {
    let judged = judge(rows);
    let mut top: Map<String, Value> =
        keys(&judged).into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    top.insert("machine".to_owned(), machine.json());
    top.insert("warnings".to_owned(), json!(warnings(rows)));
    top.insert("targets".to_owned(), judged.iter().map(|target| (target.key.to_owned(), target.json())).collect());
    top.insert("cells".to_owned(), rows.iter().map(Row::json).collect());
    Value::Object(top)
}

/// The generated part of the page of benchmarks.
pub fn page(rows: &[Row], machine: &Machine) -> String {
    let tables = [targets(rows), rates(rows), costs(rows)].map(|table| markdown(&table));
    let mut text = format!("{}.\n\n{}", machine.text(), tables.join("\n"));
    let warnings = warnings(rows);
    if !warnings.is_empty() {
        text.push_str("\nMeasured beside others:\n\n");
        text.extend(warnings.iter().map(|warning| format!("- {warning}\n")));
    }
    text
}

/// Aligned for a terminal.
pub fn aligned((head, lines): &Table) -> String {
    let mut text = String::new();
    let width = |column: usize| {
        std::iter::once(head).chain(lines).filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    for line in std::iter::once(head).chain(lines) {
        for (column, value) in line.iter().enumerate() {
            let width = width(column);
            // Words to the left, numbers to the right.
            let is_number = lines
                .first()
                .and_then(|line| line.get(column))
                .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
            let value = if is_number { format!("{value:>width$}  ") } else { format!("{value:<width$}  ") };
            text.push_str(&value);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// As Markdown.
fn markdown((head, lines): &Table) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = row(head);
    text.push_str(&row(&vec!["---".to_owned(); head.len()]));
    text.extend(lines.iter().map(|line| row(line)));
    text
}

fn median(value: Option<Spread>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.digits$}", value.median))
}

fn spread(value: Option<Spread>, digits: usize) -> String {
    value.map_or("-".to_owned(), |v| format!("{:.digits$} ({:.digits$}-{:.digits$})", v.median, v.min, v.max))
}

#[cfg(test)]
mod tests {
    use super::super::group::Memory;
    use super::*;

    fn sample(accepted_per_s: f64, cpu_ms: f64, others: f64) -> Sample {
        let memory = Memory { pss_kib: 1024, rss_kib: 2048 };
        Sample { messages: 10, accepted_per_s, delivered_per_s: accepted_per_s / 2.0, cpu_ms, memory, others }
    }

    fn row() -> Row {
        Row {
            cell: Cell { size_kib: 10, connections: 100, mode: Mode::Keep },
            ceiling: vec![1000.0, 1000.0, 1000.0],
            posthouse: vec![sample(500.0, 0.1, 0.0), sample(600.0, 0.1, 0.0), sample(400.0, 0.1, 0.0)],
            postfix: vec![sample(50.0, 2.0, 0.0), sample(50.0, 2.0, 0.2), sample(50.0, 2.0, 0.0)],
            syncs: Some((0.02, 1.0)),
        }
    }

    #[test]
    fn keys_hold_the_median_of_the_rounds() {
        let value = json(&[row()], &Machine::default());
        assert_eq!(value["accept_ratio_100"], 10.0);
        assert_eq!(value["e2e_ratio_100"], 10.0);
        assert_eq!(value["ceiling_share_100"], 0.5);
        assert_eq!(value["syncs_per_message_100"], 0.02);
        assert_eq!(value["targets"]["accept_ratio_100"]["reached"], true);
        assert_eq!(value["cells"][0]["accept_ratio"]["min"], 8.0);
        assert_eq!(value["accept_ratio_1"], Value::Null, "a cell that was not measured has no key");
    }

    #[test]
    fn a_round_beside_others_is_named() {
        assert_eq!(warnings(&[row()]), ["10 KiB, 100 conn., many, round 2: others used 20 % of the CPU"]);
    }

    #[test]
    fn every_table_has_a_value_for_every_head() {
        for (head, lines) in [rates(&[row()]), costs(&[row()]), targets(&[row()])] {
            assert!(!lines.is_empty());
            assert!(lines.iter().all(|line| line.len() == head.len()));
        }
    }

    #[test]
    fn a_table_becomes_markdown() {
        let table = (vec!["a".to_owned(), "b".to_owned()], vec![vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(markdown(&table), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}
