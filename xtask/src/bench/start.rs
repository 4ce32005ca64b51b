//! `cargo xtask bench start`: size, time to ready, idle memory.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{call, cargo, root};

const ROUNDS: usize = 5;
const READY_TARGET_MS: u128 = 200;
const RSS_TARGET_KIB: u64 = 40 * 1024;
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Binary size, time from exec to `/readyz` 200 on the second and later starts, RSS one second later.
pub fn run() -> Result<()> {
    call(cargo().args(["build", "--release", "--locked", "-p", "posthouse"]))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Ok(root()?.join("target")), |t| anyhow::Ok(t.into()))?;
    let binary = target.join("release/posthouse");
    let folder = std::env::temp_dir().join(format!("posthouse-bench-{}", std::process::id()));
    let site = folder.join("site");
    fs::create_dir_all(&site)?;
    // The example, on ports that nobody else can have.
    for entry in fs::read_dir(root()?.join("examples/small-site"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let text = text.replace("port: 2525", "port: 0").replace("port: 2587", "port: 0").replace(":9090", ":0");
        fs::write(site.join(path.file_name().context("a file name")?), text)?;
    }
    let state = folder.join("state");
    // The first start makes the certificate and the database: not what is measured.
    once(&binary, &site, &state)?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(once(&binary, &site, &state)?);
    }
    fs::remove_dir_all(&folder)?;
    rounds.sort_unstable();
    let (ready, _) = rounds[ROUNDS / 2];
    let rss = rounds.iter().map(|(_, rss)| *rss).max().unwrap_or(0);
    println!("binary size      {:>8.1} MiB", fs::metadata(&binary)?.len() as f64 / f64::from(1 << 20));
    println!("start to ready   {:>8} ms   (median of {ROUNDS}; must be <= {READY_TARGET_MS})", ready.as_millis());
    println!(
        "RSS idle         {:>8.1} MiB  (largest of {ROUNDS}; must be <= {})",
        rss as f64 / 1024.0,
        RSS_TARGET_KIB / 1024
    );
    if ready.as_millis() > READY_TARGET_MS || rss > RSS_TARGET_KIB {
        bail!("a target was missed");
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "it measures time")]
fn once(binary: &Path, site: &Path, state: &Path) -> Result<(Duration, u64)> {
    let admin = state.join("run/admin.json");
    if admin.exists() {
        fs::remove_file(&admin)?;
    }
    let begin = Instant::now();
    let mut command = Command::new(binary);
    command.arg("run").arg(site).arg("--state").arg(state);
    let mut child = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    while !ready(&admin) {
        if begin.elapsed() > READY_TIMEOUT {
            bail!("not ready after {READY_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let time = begin.elapsed();
    // What start-up leaves behind settles.
    std::thread::sleep(Duration::from_secs(1));
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let rss = rss.trim().trim_end_matches(" kB").parse().context("VmRSS is a number")?;
    run_quietly("kill", &["-TERM", &child.0.id().to_string()])?;
    child.0.wait()?;
    Ok((time, rss))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended in the good case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ready(admin: &Path) -> bool {
    let ask = || -> Option<bool> {
        let text = fs::read_to_string(admin).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let mut stream = TcpStream::connect(value["address"].as_str()?).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn run_quietly(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(())
}
