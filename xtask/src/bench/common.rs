//! What every measurement needs: the release build, a site on ports of its own, figures of a process, results.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{call, cargo, root};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// `sysconf(_SC_CLK_TCK)`: 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE: &str = "docs/benchmarks.md";

/// Builds what users run, or takes what is given, and puts a copy below `folder`: whoever builds meanwhile must not exchange
/// what is measured.
pub fn binary(given: Option<&Path>, folder: &Path) -> Result<PathBuf> {
    let binary = match given {
        Some(binary) => binary.to_owned(),
        None => {
            call(cargo().args(["build", "--release", "--locked", "-p", "posthouse"]))?;
            target_folder()?.join("release/posthouse")
        }
    };
    let copy = folder.join("posthouse");
    fs::copy(&binary, &copy).with_context(|| format!("cannot copy {}", binary.display()))?;
    Ok(copy)
}

/// Fails where the disk below a folder has less room.
pub fn need_space(folder: &Path, bytes: u64) -> Result<()> {
    let disk =
        rustix::fs::statvfs(folder).with_context(|| format!("cannot ask for the room of {}", folder.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < bytes {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        bail!(
            "{:.1} GiB are free in {}, {:.1} GiB are needed: set TMPDIR to a larger disk",
            gib(free),
            folder.display(),
            gib(bytes)
        );
    }
    Ok(())
}

/// Where cargo builds.
pub fn target_folder() -> Result<PathBuf> {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Ok(root()?.join("target")), |target| Ok(target.into()))
}

/// The time now, for what is measured with it.
#[allow(clippy::disallowed_methods, reason = "it measures time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks until something is there.
pub fn wait_for<T>(what: &str, at_most: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let begin = now();
    loop {
        if let Some(found) = ask() {
            return Ok(found);
        }
        if begin.elapsed() > at_most {
            bail!("waited {at_most:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder of documents and a state folder on the disk of the temporary folder; gone when dropped.
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// Empty folders.
    pub fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("posthouse-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("site"))?;
        Ok(Self { folder })
    }

    /// Writes one document file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.folder.join("site").join(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// The folder that holds all of it.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Starts the platform and waits until it is ready; says how long that took.
    pub fn start(&self, binary: &Path) -> Result<(Running, Duration)> {
        let state = self.state();
        for stale in ["run/admin.json", "run/listeners.json"] {
            let _ = fs::remove_file(state.join(stale));
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("posthouse.log"))?;
        let begin = now();
        let mut command = Command::new(binary);
        command.arg("run").arg(self.folder.join("site")).arg("--state").arg(&state);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut running = Running { child, state };
        loop {
            if running.is_ready() {
                return Ok((running, begin.elapsed()));
            }
            if running.child.try_wait()?.is_some() || begin.elapsed() > READY_TIMEOUT {
                let log = fs::read_to_string(self.folder.join("posthouse.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!("the platform did not become ready:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running platform; killed when dropped.
pub struct Running {
    child: Child,
    state: PathBuf,
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Address of a listener with one TCP socket.
    pub fn address(&self, listener: &str) -> Result<SocketAddr> {
        wait_for(&format!("listener {listener}"), READY_TIMEOUT, || {
            let text = fs::read_to_string(self.state.join("run/listeners.json")).ok()?;
            let all: Value = serde_json::from_str(&text).ok()?;
            all[listener][0].as_str()?.parse().ok()
        })
    }

    /// Status and body of a page of the admin port.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let text = fs::read_to_string(self.state.join("run/admin.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let mut stream = TcpStream::connect(value["address"].as_str()?).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
        Some((answer.get(9..12)?.parse().ok()?, body))
    }

    /// The sum of a metric over the label sets that hold all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.get("/metrics").map_or(0.0, |(_, text)| metric(&text, name, labels))
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> Result<()> {
        terminate(&mut self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM, and waits for the end.
pub fn terminate(child: &mut Child) -> Result<()> {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
    if !status.success() {
        bail!("kill: {status}");
    }
    wait_for("a process to end", END_TIMEOUT, || child.try_wait().ok().flatten()).map(drop)
}

/// A helper process; killed when dropped.
pub struct Helper(pub Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sum of a metric in the text of `/metrics`.
pub fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#') && line.split(['{', ' ']).next() == Some(name))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Resident memory of a process in bytes.
pub fn rss(pid: u32) -> Result<u64> {
    status_field(pid, "VmRSS:")
}

/// The most that a process had resident since it began, or since [`reset_peak_rss`], in bytes.
pub fn peak_rss(pid: u32) -> Result<u64> {
    status_field(pid, "VmHWM:")
}

/// From here on [`peak_rss`] counts anew (proc(5), `clear_refs`).
pub fn reset_peak_rss(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of resident memory")
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_kib(&status, field).with_context(|| format!("{field} of process {pid}"))
}

fn parse_kib(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// CPU seconds of a process, user and system, with its children that have ended.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_cpu_ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SECOND).context("/proc/PID/stat is not understood")
}

/// utime, stime, cutime and cstime: fields 14 to 17 (proc(5)).
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    // The name in brackets may hold anything, blanks and brackets too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// The middle of some figures.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The smallest of the figures that at least so many of a hundred do not exceed.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Only told.
    None,
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Key in the JSON.
    pub key: String,
    /// What it is, for people.
    pub what: String,
    /// In `unit`.
    pub value: f64,
    /// `MiB`, `s`, `/s`, `%`, ...
    pub unit: &'static str,
    /// What it must reach.
    pub target: Target,
}

impl Row {
    /// `None`: there is no target. A figure that is no number misses.
    pub fn is_reached(&self) -> Option<bool> {
        match self.target {
            Target::AtMost(limit) => Some(self.value <= limit),
            Target::AtLeast(limit) => Some(self.value >= limit),
            Target::None => None,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::AtMost(limit) => format!("<= {} {}", number(limit), self.unit).trim_end().to_owned(),
            Target::AtLeast(limit) => format!(">= {} {}", number(limit), self.unit).trim_end().to_owned(),
            Target::None => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.is_reached() {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        }
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == v.trunc() => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The figures of one command.
pub struct Results {
    name: &'static str,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
    notes: Vec<String>,
}

impl Results {
    /// None yet; `name` is that of the command.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds one and shows it.
    pub fn add(
        &mut self,
        key: impl Into<String>,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        let row = Row { key: key.into(), what: what.into(), value, unit, target };
        let value = format!("{} {}", number(row.value), row.unit);
        println!("{:<72} {value:>14}  {:<14} {}", row.what, row.target_text(), row.verdict());
        self.rows.push(row);
    }

    /// A sentence below the table: how it was measured.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn json(&self) -> Value {
        let mut all = json!({});
        for row in &self.rows {
            all[row.key.as_str()] = json!(row.value);
        }
        let missed: Vec<&str> =
            self.rows.iter().filter(|row| row.is_reached() == Some(false)).map(|row| row.key.as_str()).collect();
        all["missed"] = json!(missed);
        all
    }

    fn markdown(&self) -> String {
        let mut text = String::from("| measure | measured | must be | |\n|---|--:|--:|---|\n");
        for row in &self.rows {
            let (value, target, verdict) = (number(row.value), row.target_text(), row.verdict());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} | {value} {} | {target} | {verdict} |", row.what, row.unit);
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// Writes the JSON where it is wanted, and the table into the page of benchmarks. Fails where a target was missed.
    pub fn finish(&self, json: Option<&Path>) -> Result<()> {
        if let Some(file) = json {
            fs::write(file, format!("{:#}\n", self.json()))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        write_section(self.name, &self.markdown())?;
        let missed: Vec<&str> =
            self.rows.iter().filter(|row| row.is_reached() == Some(false)).map(|row| row.what.as_str()).collect();
        if !missed.is_empty() {
            bail!("missed: {}", missed.join("; "));
        }
        Ok(())
    }
}

/// Replaces what a command generated in docs/benchmarks.md, or adds it at the end.
pub fn write_section(name: &str, markdown: &str) -> Result<()> {
    let page = root()?.join(PAGE);
    let text = fs::read_to_string(&page).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    fs::write(&page, with_section(&text, name, markdown)).with_context(|| format!("cannot write {PAGE}"))
}

fn with_section(page: &str, name: &str, markdown: &str) -> String {
    let (begin, end) = (format!("<!-- bench {name} begin -->"), format!("<!-- bench {name} end -->"));
    let section = format!("{begin}\n{}\n{end}", markdown.trim_end());
    if let (Some(from), Some(to)) = (page.find(&begin), page.find(&end))
        && from < to
    {
        return format!("{}{section}{}", &page[..from], &page[to + end.len()..]);
    }
    format!("{}\n\n## `cargo xtask bench {name}`\n\n{section}\n", page.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((median(&values), percentile(&values, 99.0), percentile(&values, 100.0)), (50.0, 99.0, 100.0));
        assert_eq!(median(&[3.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn figures_of_a_process_are_read_whatever_its_name() {
        assert_eq!(parse_kib("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(parse_kib("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(parse_cpu_ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0"), Some(127));
        assert_eq!(parse_cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn a_metric_is_the_sum_over_its_labels() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\"} 4\nab 5\na{x=\"2\"} 6\n";
        assert_eq!(metric(text, "a", &["x=\"1\""]), 7.0);
        assert_eq!(metric(text, "ab", &[]), 5.0);
    }

    #[test]
    fn a_section_of_the_page_is_replaced_and_the_rest_stays() {
        let page = with_section("# Benchmarks\n", "x", "one\n");
        assert!(page.ends_with("<!-- bench x begin -->\none\n<!-- bench x end -->\n"), "{page}");
        let two = with_section(&with_section(&page, "y", "other"), "x", "two");
        assert!(two.contains("<!-- bench x begin -->\ntwo\n<!-- bench x end -->"), "{two}");
        assert!(two.contains("other") && !two.contains("one"), "{two}");
    }

    #[test]
    fn what_is_no_number_misses_its_target() {
        let row = |value, target| Row { key: "k".to_owned(), what: String::new(), value, unit: "", target };
        assert_eq!(row(f64::NAN, Target::AtLeast(1.0)).is_reached(), Some(false));
        assert_eq!(row(f64::NAN, Target::AtMost(1.0)).is_reached(), Some(false));
        assert_eq!(row(2.0, Target::AtLeast(2.0)).is_reached(), Some(true));
        assert_eq!(row(2.0, Target::None).is_reached(), None);
    }
}
