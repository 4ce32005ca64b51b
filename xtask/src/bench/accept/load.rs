//! Postfix's load tools: `smtp-source` sends, `smtp-sink` takes and counts.

use std::io::Read;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cells::{Cell, Mode};
use super::group::Group;
use super::{free_port, wait_until};
use crate::bench::common::now;

/// The sink writes a record per message; reading it this often costs nothing and bounds the error of a delivery's end.
const COUNT_INTERVAL: Duration = Duration::from_millis(5);
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a further message for so long, mail is lost or deferred.
const STALL_MAX: Duration = Duration::from_secs(30);
/// A run of smtp-source that takes longer hangs.
const RUN_MAX: Duration = Duration::from_secs(180);
const SINK_SESSIONS_MAX: &str = "2000";

/// `smtp-sink -c`, counting.
pub struct Sink {
    pub port: u16,
    child: Child,
    count: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts it on a port of its own.
    pub fn start(group: &Group) -> Result<Self> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let program = ["smtp-sink", "-c", "-m", SINK_SESSIONS_MAX, "-u", "nobody", &address, SINK_SESSIONS_MAX];
        let mut child = group.spawn(&program, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        })?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let count = Arc::new(AtomicU64::new(0));
        let reader = std::thread::spawn({
            let count = Arc::clone(&count);
            move || follow(stdout, &count)
        });
        let sink = Self { port, child, count, reader: Some(reader) };
        if !wait_until(START_TIMEOUT, || super::greets(port)) {
            bail!("smtp-sink does not answer on {address}");
        }
        Ok(sink)
    }

    /// Messages taken since it started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many messages were taken since it started and returns when that was.
    pub fn wait_for(&self, total: u64) -> Result<Instant> {
        let mut last = (self.count(), now());
        while self.count() < total {
            if self.count() > last.0 {
                last = (self.count(), now());
            }
            if last.1.elapsed() > STALL_MAX {
                bail!("{} messages never reached the sink ({STALL_MAX:?} without one)", total - self.count());
            }
            std::thread::sleep(COUNT_INTERVAL);
        }
        Ok(now())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Its end closes the pipe, and that ends the reader.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn follow(mut stdout: ChildStdout, count: &AtomicU64) {
    let mut counter = Counter::default();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = stdout.read(&mut buffer) {
        if length == 0 {
            return;
        }
        if let Some(value) = counter.read(&buffer[..length]) {
            count.store(value, Ordering::Relaxed);
        }
        std::thread::sleep(COUNT_INTERVAL);
    }
}

/// Reads `sess=0 quit=0 mesg=12\r` again and again, cut anywhere.
#[derive(Debug, Default)]
struct Counter {
    rest: Vec<u8>,
}

impl Counter {
    /// The newest whole record's messages, if there is one.
    fn read(&mut self, bytes: &[u8]) -> Option<u64> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\r')?;
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        text.trim_end().rsplit_once("mesg=").and_then(|(_, value)| value.trim().parse().ok())
    }
}

/// Sends `messages` of the cell to the port and returns how long smtp-source ran.
pub fn send(group: &Group, cell: &Cell, messages: u64, port: u16) -> Result<Duration> {
    let (sessions, messages) = (cell.connections.to_string(), messages.to_string());
    let (size, address) = ((cell.size_kib * 1024).to_string(), format!("127.0.0.1:{port}"));
    let mut program = vec!["smtp-source", "-s", &sessions, "-m", &messages, "-l", &size];
    if cell.mode == Mode::Keep {
        program.push("-d");
    }
    program.extend(["-f", "a@src.test", "-t", "b@dst.test", &address]);
    let begin = now();
    let mut child = group.spawn(&program, |command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    })?;
    let pid = child.id();
    let (ended, watchdog) = std::sync::mpsc::sync_channel::<()>(1);
    let watchdog = std::thread::spawn(move || {
        let late = watchdog.recv_timeout(RUN_MAX).is_err();
        if late {
            Group::signal(pid, "-KILL");
        }
        late
    });
    let mut said = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        stderr.read_to_string(&mut said)?;
    }
    let status = child.wait()?;
    let time = begin.elapsed();
    // It only fails when the watchdog ended before.
    let _ = ended.send(());
    let late = watchdog.join().unwrap_or(true);
    if late {
        bail!("{} did not end in {RUN_MAX:?}: {said}", program.join(" "));
    }
    // It warns and goes on, or ends at once: either way not every message was accepted.
    if !status.success() || said.contains("fatal:") || said.contains("rejected") {
        bail!("{}: {status}; it says: {}", program.join(" "), said.trim());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sinks_counter_is_read_wherever_its_output_is_cut() {
        let text = b"sess=0 quit=0 mesg=1\rsess=0 quit=0 mesg=2\rsess=1 quit=1 mesg=12\r";
        for cut in 0..=text.len() {
            let mut counter = Counter::default();
            let first = counter.read(&text[..cut]);
            let last = counter.read(&text[cut..]).or(first);
            assert_eq!(last, Some(12), "cut at {cut}");
        }
    }

    #[test]
    fn a_record_that_is_not_whole_counts_nothing_yet() {
        let mut counter = Counter::default();
        assert_eq!(counter.read(b"sess=0 quit=0 mesg=1"), None);
        assert_eq!(counter.read(b"7"), None);
        assert_eq!(counter.read(b"\rsess"), Some(17));
    }
}
