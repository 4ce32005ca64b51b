//! Deliveries with the rights of another user: a helper process of this binary, started with that user's ids, does the
//! writing. It gets a task as one line of JSON and the text behind it on stdin, and answers in one line of JSON.
//!
//! The helper has no other files open, no environment, no supplementary groups, and works in `/`.

mod passwd;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use node::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub(crate) use self::passwd::{User, find};
use crate::body::BodyReader;
use crate::job::{Context, Job};
use crate::local::text::Counted;
use crate::local::{self, Done, Task};

/// The hidden subcommand that runs [`main`].
pub const SUBCOMMAND: &str = "deliver-as";

/// Octets of a task: a path and two addresses.
const TASK_OCTETS_MAX: u64 = 64 << 10;
/// Octets of an answer.
const ANSWER_OCTETS_MAX: u64 = 64 << 10;
/// What a helper gets at least, however late it is started.
const TIME_MIN: Duration = Duration::from_secs(1);

/// The helper: reads one task and its text, does it, answers.
///
/// The outcome is in the answer; the exit code is a failure only where no answer could be given.
pub fn main(stdin: impl Read, mut stdout: impl Write) -> ExitCode {
    let mut stdin = BufReader::new(stdin);
    let done = match read_task(&mut stdin) {
        Ok(task) => {
            let octets = task.octets;
            local::perform(&task, &Clock::system(), &mut Counted::new(stdin, octets))
        }
        Err(error) => Done::deferred(3, 5, format!("the helper got no task: {error}")),
    };
    let answered = serde_json::to_vec(&done).map_err(io::Error::from).and_then(|mut answer| {
        answer.push(b'\n');
        stdout.write_all(&answer)?;
        stdout.flush()
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_task(stdin: &mut impl BufRead) -> io::Result<Task> {
    let mut line = Vec::new();
    stdin.by_ref().take(TASK_OCTETS_MAX).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Who is to write: `None` is this process as it is. Fails, with words, where that user cannot be had.
pub(crate) async fn writer(name: Option<&str>) -> Result<Option<User>, String> {
    let Some(name) = name else { return Ok(None) };
    let passwd = tokio::fs::read_to_string("/etc/passwd").await.map_err(|error| format!("/etc/passwd: {error}"))?;
    let user = find(&passwd, name).ok_or_else(|| "the user of the transport is not known here".to_owned())?;
    let own = rustix::process::geteuid().as_raw();
    match (user.uid == own, own == 0) {
        // No helper is needed to be who we are.
        (true, _) => Ok(None),
        (false, true) => Ok(Some(user)),
        (false, false) => Err("writing as another user needs a platform that runs as root".into()),
    }
}

/// How helpers are started.
#[derive(Debug, Clone)]
pub(crate) struct Helper {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Helper {
    /// This binary, as it runs: not what an upgrade has put at its path since, and however private the folders above.
    pub(crate) fn this_binary() -> Self {
        let linked = PathBuf::from("/proc/self/exe");
        let program = if cfg!(target_os = "linux") { linked } else { std::env::current_exe().unwrap_or(linked) };
        Self { program, arguments: vec![SUBCOMMAND.into()] }
    }

    fn start(&self, user: &User) -> io::Result<(Child, ChildStdin, ChildStdout)> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            // Going from root to a uid, std clears the supplementary groups, too.
            .uid(user.uid)
            .gid(user.gid)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((child, stdin, stdout)),
            _ => Err(io::Error::other("the helper has no pipes")),
        }
    }
}

/// Has a helper do a task.
pub(crate) async fn perform(
    helper: &Helper,
    user: &User,
    context: &Context,
    job: &Job,
    task: &Task,
    head: Bytes,
) -> Done {
    let left = job.deadline.saturating_duration_since(context.node.clock().instant()).max(TIME_MIN);
    let text = local::pieces(job, head);
    match tokio::time::timeout(left, converse(helper, user, task, &text, job.body(context))).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Done::deferred(3, 0, error.to_string()),
        // The helper was killed with the future that held it.
        Err(_) => Done::deferred(3, 0, "the helper took too long"),
    }
}

/// Why there is no answer of a helper.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("the helper cannot be started: {0}")]
    Start(io::Error),
    #[error("the helper does not answer: {0}")]
    Answer(String),
    #[error(transparent)]
    Body(#[from] crate::body::BodyError),
}

pub(crate) async fn converse(
    helper: &Helper,
    user: &User,
    task: &Task,
    text: &[Bytes],
    body: BodyReader,
) -> Result<Done, HelperError> {
    let (mut child, stdin, stdout) = helper.start(user).map_err(HelperError::Start)?;
    let mut line = serde_json::to_vec(task).map_err(|error| HelperError::Answer(error.to_string()))?;
    line.push(b'\n');
    let mut answer = Vec::new();
    let mut stdout = stdout.take(ANSWER_OCTETS_MAX);
    let ((), read) =
        tokio::try_join!(async { send(stdin, line, text, body).await.map_err(HelperError::Body) }, async {
            Ok(stdout.read_to_end(&mut answer).await)
        },)?;
    let status = child.wait().await;
    let done = read.map_err(io::Error::other).and_then(|_| serde_json::from_slice(&answer).map_err(io::Error::from));
    done.map_err(|error| match status {
        Ok(status) if !status.success() => HelperError::Answer(status.to_string()),
        _ => HelperError::Answer(error.to_string()),
    })
}

/// A helper that reads no further has something to say: only a body that cannot be read is an error.
async fn send(
    mut stdin: ChildStdin,
    line: Vec<u8>,
    text: &[Bytes],
    mut body: BodyReader,
) -> Result<(), crate::body::BodyError> {
    if stdin.write_all(&line).await.is_err() {
        return Ok(());
    }
    for piece in text {
        if stdin.write_all(piece).await.is_err() {
            return Ok(());
        }
    }
    while let Some(chunk) = body.next().await? {
        if stdin.write_all(&chunk).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
