//! The real binary, over a folder of documents that the test writes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::eventually;

/// The binary that this build made: it stands beside the tests.
///
/// # Panics
/// When it was not built.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().find(|folder| folder.join("posthouse").is_file());
    target
        .map(|folder| folder.join("posthouse"))
        .expect("the binary is missing: `cargo xtask test` builds it, as does `cargo build`")
}

/// A folder of documents and a state folder, both gone with the test.
pub struct Site {
    folder: TempDir,
    state: Option<PathBuf>,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// Empty folders.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("posthouse-test-").expect("a temporary folder");
        fs::create_dir(folder.path().join("site")).expect("a folder for documents");
        Self { folder, state: None }
    }

    /// The state lies here instead: a mounted folder, for example.
    #[must_use]
    pub fn with_state(mut self, state: PathBuf) -> Self {
        self.state = Some(state);
        self
    }

    /// Writes one document file.
    #[must_use]
    pub fn with(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Replaces one document file in one step, as an editor or a deployment does.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join(format!("{name}.new"));
        fs::write(&new, text).expect("the document is written");
        fs::rename(new, self.documents().join(name)).expect("the document is put in place");
    }

    /// Where the documents are.
    pub fn documents(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.folder.path().join("state"))
    }

    /// For other files of the test.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command of the binary to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_with_input(arguments, b"")
    }

    /// Runs a command of the binary to its end with something on stdin.
    pub fn cli_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that does not read its input closes the pipe: that is its right.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("the command ends")
    }

    /// The messages that `posthouse queue list --json` shows, of a running platform or a stopped one.
    ///
    /// # Panics
    /// When the command fails or prints something else.
    #[track_caller]
    pub fn queued(&self) -> Vec<serde_json::Value> {
        let state = self.state();
        let output = self.cli(&["queue", "list", "--json", "--state", state.to_str().expect("a path of text")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    /// Waits until nothing is in the queue, reports that are owed included.
    #[track_caller]
    pub fn wait_until_empty(&self) {
        eventually("the queue to be empty", || self.queued().is_empty().then_some(()));
    }

    /// Starts the platform and waits until it is ready.
    pub fn start(&self) -> Posthouse {
        let posthouse = self.spawn();
        posthouse.wait_ready();
        posthouse
    }

    /// Starts the platform without waiting.
    pub fn spawn(&self) -> Posthouse {
        self.spawn_with(&[])
    }

    /// Starts the platform with these variables in its environment, without waiting.
    pub fn spawn_with(&self, variables: &[(&str, &str)]) -> Posthouse {
        // Addresses of an earlier run must not be taken for those of this one.
        let _ = fs::remove_file(self.state().join("run/listeners.json"));
        let _ = fs::remove_file(self.state().join("run/admin.json"));
        let log_path = self.path().join("posthouse.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path).expect("a log file");
        let child = Command::new(binary())
            .arg("run")
            .arg(self.documents())
            .arg("--state")
            .arg(self.state())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is opened twice"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Posthouse { child, state: self.state(), log: log_path, ended: None }
    }
}

/// A running platform; killed when dropped.
pub struct Posthouse {
    child: Child,
    state: PathBuf,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Posthouse {
    /// Waits until `/readyz` says 200.
    pub fn wait_ready(&self) {
        let log = self.log.clone();
        let ready = || {
            let (status, _) = self.get_if_up("/readyz")?;
            (status == 200).then_some(())
        };
        let start = std::panic::AssertUnwindSafe(|| eventually("the platform to be ready", ready));
        if std::panic::catch_unwind(start).is_err() {
            panic!("the platform is not ready:\n{}", tail(&log));
        }
    }

    /// Waits until `/readyz` says 200, or until it has ended.
    pub fn ready_or_end(&mut self) -> Option<ExitStatus> {
        eventually("the platform to be ready or to end", || {
            if let Some(status) = self.child.try_wait().ok()? {
                self.ended = Some(status);
                return Some(Some(status));
            }
            let (status, _) = self.get_if_up("/readyz")?;
            (status == 200).then_some(None)
        })
    }

    /// Address of a listener with one TCP socket.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let path = self.state.join("run/listeners.json");
        eventually(&format!("listener {listener}"), || {
            let text = fs::read_to_string(&path).ok()?;
            let all: serde_json::Value = serde_json::from_str(&text).ok()?;
            all[listener][0].as_str()?.parse().ok()
        })
    }

    fn admin(&self) -> Option<SocketAddr> {
        let text = fs::read_to_string(self.state.join("run/admin.json")).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        value["address"].as_str()?.parse().ok()
    }

    fn get_if_up(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin()?, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.get(9..12)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
        Some((status, body))
    }

    /// Asks the admin port.
    pub fn get(&self, path: &str) -> (u16, String) {
        eventually("the admin port", || self.get_if_up(path))
    }

    /// The sum of a metric over all label sets that hold every one of `labels` (as in `result="accepted"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the platform is there to be signalled");
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let status = eventually("the platform to end", || self.child.try_wait().ok().flatten());
        self.ended = Some(status);
        status
    }

    /// Everything it has logged and printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Posthouse {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the platform\n{}", tail(&self.log));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}
