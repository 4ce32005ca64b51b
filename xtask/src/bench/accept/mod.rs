//! `cargo xtask bench accept`: Posthouse beside Postfix and beside the load tools' own ceiling, in one run.

pub mod cells;
pub mod group;
pub mod load;
mod machine;
mod measure;
mod noise;
mod peers;
mod report;
mod stats;
mod syncs;
mod targets;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::cells::Form;
use self::group::Group;
use self::load::Sink;
use self::machine::Machine;
use self::measure::Lab;
use self::peers::{Server, Who};
use self::report::Row;
use crate::bench::common::{self, now};
use crate::packages;
use crate::test::output;

const ROUNDS: usize = 3;
const SECONDS_QUICK: f64 = 3.5;
const SECONDS_FULL: f64 = 4.0;
const FOLDER_NAME: &str = "posthouse-bench-accept-";
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Only 10 KiB with many messages per connection; under four minutes. Leaves docs/benchmarks.md alone.
    #[arg(long)]
    quick: bool,
    /// Also writes everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures this binary instead of building one. Leaves docs/benchmarks.md alone.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where both servers keep their queues: a real disk.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
}

/// Builds, measures, prints, writes.
pub fn run(options: &Options) -> Result<()> {
    packages::install_for_benches()?;
    let above = fs::canonicalize(&options.folder).with_context(|| format!("{}", options.folder.display()))?;
    let alone = one_at_a_time()?;
    let folder = Folder::new(&above)?;
    let copy = common::binary(options.binary.as_deref(), &folder.0)?;
    let form = if options.quick { Form::Quick } else { Form::Full };
    let mut lab = set_up(&copy, &folder.0, form)?;
    let machine = Machine::learn(&copy, &folder.0, lab.source_group.kind())?;
    let rows = rounds(&mut lab, form, &folder.0)?;
    drop((lab, alone));
    print(&rows, &machine);
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report::json(&rows, &machine))?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    if form == Form::Full && options.binary.is_none() {
        common::write_section("accept", &report::page(&rows, &machine))?;
    }
    Ok(())
}

/// Two measurements at once would measure each other.
fn one_at_a_time() -> Result<File> {
    let path = std::env::temp_dir().join("posthouse-bench-accept.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("==> another `bench accept` runs on this machine: waiting for its end");
        file.lock().context("cannot lock")?;
    }
    Ok(file)
}

fn set_up(binary: &Path, folder: &Path, form: Form) -> Result<Lab> {
    let (sink_group, source_group) = (Group::new("sink"), Group::new("source"));
    let sink = Sink::start(&sink_group)?;
    let posthouse = Server::posthouse(binary, &folder.join("ph"), sink.port)?;
    let postfix = Server::postfix(&folder.join("pf"), sink.port)?;
    let seconds = if form == Form::Quick { SECONDS_QUICK } else { SECONDS_FULL };
    Ok(Lab::new((sink, sink_group, source_group), posthouse, postfix, seconds))
}

fn rounds(lab: &mut Lab, form: Form, folder: &Path) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = form.cells().into_iter().map(Row::new).collect();
    for round in 0..ROUNDS {
        for row in &mut rows {
            // Who goes first changes from round to round: whatever drifts hits both.
            let order = if round % 2 == 0 { [Who::Posthouse, Who::Postfix] } else { [Who::Postfix, Who::Posthouse] };
            let ceiling = lab.ceiling(&row.cell)?;
            row.ceiling.push(ceiling);
            for who in order {
                let sample = lab.measure(who, &row.cell)?;
                println!(
                    "round {}, {}: {who} accepted {:.0}/s, delivered {:.0}/s, {:.3} ms CPU ({} messages; ceiling {ceiling:.0}/s; others {:.0} %)",
                    round + 1,
                    row.cell,
                    sample.accepted_per_s,
                    sample.delivered_per_s,
                    sample.cpu_ms,
                    sample.messages,
                    sample.others * 100.0
                );
                match who {
                    Who::Posthouse => row.posthouse.push(sample),
                    Who::Postfix => row.postfix.push(sample),
                }
            }
        }
    }
    for row in &mut rows {
        let posthouse = syncs::per_message(lab, Who::Posthouse, &row.cell, folder)?;
        let postfix = syncs::per_message(lab, Who::Postfix, &row.cell, folder)?;
        println!("sync calls per message, {}: Posthouse {posthouse:.3}, Postfix {postfix:.3}", row.cell);
        row.syncs = Some((posthouse, postfix));
    }
    Ok(rows)
}

fn print(rows: &[Row], machine: &Machine) {
    println!("\n{}\n", machine.text());
    for table in [report::rates(rows), report::costs(rows), report::targets(rows)] {
        println!("{}", report::aligned(&table));
    }
    for warning in report::warnings(rows) {
        println!("warning: {warning}");
    }
    let judged = targets::judge(rows);
    let missed = judged.iter().filter(|target| !target.reached()).count();
    println!("{} targets measured, {missed} missed", judged.len());
}

/// A folder that goes when the measurement ends.
struct Folder(PathBuf);

impl Folder {
    fn new(above: &Path) -> Result<Self> {
        let root = output(Command::new("id").arg("-u"))?;
        if root.trim() != "0" {
            bail!("Postfix starts as root only: run this as root");
        }
        let kind = output(Command::new("stat").args(["-f", "-c", "%T"]).arg(above))?;
        if ["tmpfs", "ramfs"].contains(&kind.trim()) {
            bail!("{} is in memory, where a sync costs nothing: --folder names a folder on a disk", above.display());
        }
        // Nobody else measures now: whatever lies there was left by one that was killed.
        for entry in fs::read_dir(above)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(FOLDER_NAME) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let folder = above.join(format!("{FOLDER_NAME}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is a nuisance, not an error.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks again and again; true as soon as the answer is.
fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// An SMTP server is there.
fn greets(port: u16) -> bool {
    let ask = || -> Option<String> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), CONNECT_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line)
    };
    ask().is_some_and(|line| line.starts_with("220"))
}
