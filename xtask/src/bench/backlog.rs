//! `cargo xtask bench backlog`: fresh mail, start and memory with a million messages that are due later, against none.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::accept::cells::{Cell, Mode};
use super::accept::group::Group;
use super::accept::load::{Sink, send};
use super::common::{Results, Site, Target, binary, median, need_space, now, peak_rss, rss, wait_for};
use super::memory::{connect, expect};
use crate::test;

const MIB: f64 = (1 << 20) as f64;
const ROUNDS: usize = 3;
const ROUTES: u64 = 10_000;
/// Fresh mail of one round.
const FRESH: Cell = Cell { size_kib: 10, connections: 10, mode: Mode::Keep };
/// Database, its log and what else lies around: some 4 KiB for each message that waits.
const BYTES_PER_MESSAGE: u64 = 4 << 10;
/// The last of the text of the message that is multiplied: 1 KiB with its header section.
const BODY_BYTES: usize = 880;

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Messages of 1 KiB that wait
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    messages: u64,
    /// Fresh messages of 10 KiB of a round
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    fresh: u64,
    /// Measures this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one start and its fresh mail came to.
struct Round {
    ready: Duration,
    accepted: f64,
    delivered: f64,
    rss_ready: f64,
    rss_peak: f64,
}

/// Two sites, one with and one without a backlog, in turns.
pub fn run(options: &Options) -> Result<()> {
    need_space(&std::env::temp_dir(), options.messages * BYTES_PER_MESSAGE * 2 + (2 << 30))?;
    let group = Group::new("backlog");
    let sink = Sink::start(&group)?;
    let (empty, full) = (site("empty", sink.port)?, site("full", sink.port)?);
    let binary = binary(options.binary.as_deref(), empty.path())?;
    // The first start makes the database: not what is measured.
    empty.start(&binary)?.0.stop()?;
    fill(&full, &binary, options.messages)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Whoever comes second finds a warmer machine.
        for is_full in [round % 2 == 1, round % 2 == 0] {
            let site = if is_full { &full } else { &empty };
            let figures = measure(site, &binary, &group, &sink, options.fresh)?;
            let of = if is_full { "with" } else { "without" };
            println!(
                "    {of} backlog: ready {:?}, accepted {:.0}/s, delivered {:.0}/s, RSS {:.1} MiB, peak {:.1} MiB",
                figures.ready, figures.accepted, figures.delivered, figures.rss_ready, figures.rss_peak
            );
            if is_full { &mut with } else { &mut without }.push(figures);
        }
    }
    let waiting = waiting(&full)?;
    ensure!(waiting >= options.messages, "only {waiting} messages still wait: the backlog was tried while measuring");
    report(options, &without, &with)
}

fn report(options: &Options, without: &[Round], with: &[Round]) -> Result<()> {
    let mut results = Results::new("backlog");
    let of = |rounds: &[Round], value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let share = |value: fn(&Round) -> f64| 100.0 * of(with, value) / of(without, value);
    let n = options.messages;
    results.add("backlog_messages", "messages of 1 KiB that wait, on 10,000 routes", n as f64, "", Target::None);
    results.add(
        "backlog_accepted_per_s",
        "fresh mail accepted, none waiting",
        of(without, |r| r.accepted),
        "/s",
        Target::None,
    );
    results.add(
        "backlog_accept_percent",
        "accepted with the backlog, of that",
        share(|r| r.accepted),
        "%",
        Target::AtLeast(90.0),
    );
    results.add(
        "backlog_delivered_per_s",
        "fresh mail delivered, none waiting",
        of(without, |r| r.delivered),
        "/s",
        Target::None,
    );
    results.add(
        "backlog_deliver_percent",
        "delivered with the backlog, of that",
        share(|r| r.delivered),
        "%",
        Target::AtLeast(90.0),
    );
    let slowest = with.iter().map(|round| round.ready.as_secs_f64()).fold(0.0, f64::max);
    results.add("backlog_ready_s", "start to ready with the backlog, slowest", slowest, "s", Target::AtMost(2.0));
    let ready = of(with, |r| r.rss_ready) - of(without, |r| r.rss_ready);
    let peak = of(with, |r| r.rss_peak) - of(without, |r| r.rss_peak);
    results.add(
        "backlog_rss_ready_growth_mib",
        "RSS more than without, two seconds after ready",
        ready,
        "MiB",
        Target::AtMost(64.0),
    );
    results.add(
        "backlog_rss_peak_growth_mib",
        "peak RSS more than without, fresh mail included",
        peak,
        "MiB",
        Target::AtMost(64.0),
    );
    results.note(format!(
        "One message is accepted and deferred by the platform itself; its rows are multiplied in the stopped database by \
         `sqlite3`, with keys, ids and routes of their own, due in one to eleven hours. Then {ROUNDS} rounds with and \
         without in turns: start, {} fresh messages of 10 KiB over {} connections to another route (`smtp-source`, \
         `smtp-sink`), stop.",
        options.fresh, FRESH.connections
    ));
    results.finish(options.json.as_deref())
}

/// Mail for dst.test goes to the sink, all else to hosts that are down, a route for each domain.
fn site(name: &str, sink: u16) -> Result<Site> {
    let site = Site::new(&format!("backlog-{name}"))?;
    let rules = "[{ name: fresh, match: { recipientDomain: dst.test }, action: { relay: { transport: fresh } } }, \
                 { name: later, match: { source: 127.0.0.0/8 }, action: { relay: { transport: later } } }]";
    let text = [
        ("MailPlatform", "main", "{ hostname: mx.bench.test, postmaster: p@bench.test, relayTransport: fresh, policyRef: all, admin: { address: \"127.0.0.1:0\" } }".to_owned()),
        ("MailListener", "mx", "{ protocol: smtp, address: 127.0.0.1, port: 0, tls: { mode: \"off\" }, limits: { messagesMax: 0 } }".to_owned()),
        ("MailTransport", "fresh", format!("{{ relay: {{ hosts: [\"127.0.0.1:{sink}\"], tls: {{ mode: \"off\" }} }} }}")),
        ("MailTransport", "later", "{ relay: { hostTable: down, tls: { mode: \"off\" } }, retry: { delayFirst: 4h } }".to_owned()),
        ("MailTable", "down", "{ map: { \"*\": \"127.0.0.1:1\" } }".to_owned()),
        ("MailTransport", "boxes", "{ maildir: { path: \"mail/%d/%n\" } }".to_owned()),
        ("MailDomain", "bench", "{ domain: bench.test, delivery: { transport: boxes } }".to_owned()),
        ("MailUser", "p", "{ address: p@bench.test }".to_owned()),
        ("MailPolicy", "all", format!("{{ rules: {rules} }}")),
    ];
    let document = |(kind, name, spec): (&str, &str, String)| {
        format!("---\napiVersion: posthouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
    };
    site.write("site.yaml", &text.map(document).concat())?;
    Ok(site)
}

fn measure(site: &Site, binary: &Path, group: &Group, sink: &Sink, fresh: u64) -> Result<Round> {
    let (running, ready) = site.start(binary)?;
    // What start-up does behind readiness is part of the growth.
    std::thread::sleep(Duration::from_secs(2));
    let rss_ready = rss(running.pid())? as f64 / MIB;
    let port = running.address("mx")?.port();
    let (before, begin) = (sink.count(), now());
    let sending = send(group, &FRESH, fresh, port)?;
    let delivering = sink.wait_for(before + fresh)? - begin;
    let rss_peak = peak_rss(running.pid())? as f64 / MIB;
    running.stop()?;
    let rate = |time: Duration| fresh as f64 / time.as_secs_f64();
    Ok(Round { ready, accepted: rate(sending), delivered: rate(delivering), rss_ready, rss_peak })
}

fn database(site: &Site) -> PathBuf {
    site.state().join("queue/queue.sqlite")
}

fn sqlite(site: &Site, sql: &str) -> Result<String> {
    test::output(Command::new("sqlite3").arg("-bail").arg(database(site)).arg(sql))
}

/// Recipients that wait for their time.
fn waiting(site: &Site) -> Result<u64> {
    let text = sqlite(site, "SELECT count(*) FROM recipients WHERE state = 0")?;
    text.trim().parse().context("a count")
}

/// One message by the real way, then its rows a million times.
fn fill(site: &Site, binary: &Path, messages: u64) -> Result<()> {
    let (running, _) = site.start(binary)?;
    submit_one(running.address("mx")?)?;
    wait_for("the first message to be deferred", Duration::from_secs(60), || {
        (running.metric("posthouse_deliveries_total", &["transport=\"later\""]) >= 1.0).then_some(())
    })?;
    running.stop()?;
    ensure!(waiting(site)? == 1, "the first message does not wait");
    println!("==> multiplying one message to {messages}");
    let begin = now();
    let mut sql = String::from("PRAGMA synchronous=OFF; PRAGMA cache_size=-262144; BEGIN;\n");
    let columns = |table: &str| columns(site, table);
    multiply(&mut sql, &columns, messages)?;
    sql.push_str("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);\n");
    let script = site.path().join("fill.sql");
    fs::write(&script, &sql)?;
    sqlite(site, &format!(".read {}", script.display()))?;
    let waiting = waiting(site)?;
    ensure!(waiting == messages, "{waiting} messages wait, not {messages}");
    let size = fs::metadata(database(site))?.len() as f64 / MIB;
    println!("    {waiting} messages, {size:.0} MiB, in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn submit_one(address: std::net::SocketAddr) -> Result<()> {
    let mut client = connect(0, address)?;
    expect(&mut client, "220")?;
    let line = format!("{}\r\n", "x".repeat(86));
    let text = format!("From: a@src.test\r\nSubject: later\r\n\r\n{}.\r\n", line.repeat(BODY_BYTES / line.len()));
    for (said, code) in [
        ("EHLO client.bench.test\r\n", "250"),
        ("MAIL FROM:<a@src.test>\r\n", "250"),
        ("RCPT TO:<b@d0.later.test>\r\n", "250"),
        ("DATA\r\n", "354"),
        (&*text, "250"),
        ("QUIT\r\n", "221"),
    ] {
        client.write_all(said.as_bytes())?;
        expect(&mut client, code)?;
    }
    Ok(())
}

fn columns(site: &Site, table: &str) -> Result<Vec<String>> {
    let text = sqlite(site, &format!("SELECT name FROM pragma_table_info('{table}')"))?;
    let columns: Vec<String> = text.lines().map(str::to_owned).collect();
    ensure!(
        !columns.is_empty(),
        "there is no table {table} any more: the schema has changed, and this command with it must"
    );
    Ok(columns)
}

/// Rows of the one message `t`, for n = 1, 2, ...: keys and what must differ are made, all other columns are copied.
fn multiply(sql: &mut String, columns: &dyn Fn(&str) -> Result<Vec<String>>, messages: u64) -> Result<()> {
    let more = messages.saturating_sub(1);
    let numbers = format!("WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < {more})");
    // 26 characters: those of shard and time stay, so that the ids are real ones, in order.
    let id = |column: &str| format!("substr(t.{column}, 1, 14) || printf('%012d', k.n)");
    let routes = format!("(SELECT route FROM new_routes WHERE number = k.n % {ROUTES})");
    let due = "(CAST(strftime('%s', 'now') AS INTEGER) + 3600 + k.n % 36000) * 1000";
    let seq = |column: &str| format!("t.{column} + k.n");
    let key = |column: &str| format!("t.{column} + (k.n << 16)");
    // Writing to a String cannot fail.
    let _ = writeln!(
        sql,
        "INSERT OR IGNORE INTO routes (transport, name) WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r \
         WHERE n < {}) SELECT 'later', 'd' || n || '.later.test' FROM r;\n\
         CREATE TEMP TABLE new_routes (number INTEGER PRIMARY KEY, route INTEGER);\n\
         INSERT INTO new_routes SELECT CAST(substr(name, 2) AS INTEGER), route FROM routes WHERE transport = 'later';",
        ROUTES - 1
    );
    let tables: [(&str, Vec<(&str, String)>); 5] = [
        ("messages", vec![("seq", seq("seq")), ("id", id("id"))]),
        ("variants", vec![("vkey", key("vkey"))]),
        ("bodies", vec![("seq", seq("seq"))]),
        ("recipients", vec![("rkey", key("rkey")), ("route", routes), ("due", due.to_owned())]),
        ("events", vec![("message_id", id("message_id"))]),
    ];
    for (table, made) in tables {
        let columns = columns(table)?;
        for (name, _) in &made {
            ensure!(columns.iter().any(|column| column == name), "{table} has no column {name} any more");
        }
        let value = |column: &String| {
            let own = made.iter().find(|(name, _)| name == column);
            own.map_or_else(|| format!("t.{column}"), |(_, expression)| expression.clone())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        let _ = writeln!(
            sql,
            "CREATE TEMP TABLE of_{table} AS SELECT * FROM {table};\n\
             INSERT INTO {table} ({}) {numbers} SELECT {} FROM k CROSS JOIN of_{table} t;",
            columns.join(", "),
            values.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_filled_and_a_lost_one_is_told() {
        let columns = |table: &str| -> Result<Vec<String>> {
            let names: &[&str] = match table {
                "messages" => &["seq", "id", "origin"],
                "variants" => &["vkey"],
                "bodies" => &["seq", "body"],
                "recipients" => &["rkey", "route", "due"],
                _ => &["message_id", "n"],
            };
            Ok(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let mut sql = String::new();
        multiply(&mut sql, &columns, 10).unwrap();
        assert!(sql.contains("INSERT INTO messages (seq, id, origin)"), "{sql}");
        assert!(
            sql.contains("SELECT t.seq + k.n, substr(t.id, 1, 14) || printf('%012d', k.n), t.origin FROM k"),
            "{sql}"
        );
        assert!(sql.contains("WHERE n < 9"), "{sql}");
        let lost = |_: &str| Ok(vec!["seq".to_owned()]);
        let error = multiply(&mut String::new(), &lost, 10).unwrap_err();
        assert_eq!(error.to_string(), "messages has no column id any more");
    }
}
