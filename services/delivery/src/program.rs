//! Programs: a message on stdin, an exit code that decides. No shell is involved: each argument is one argument.
//!
//! The environment is PATH, SENDER, RECIPIENT and MESSAGE_ID, with `asUser` HOME and USER, the variables of ours that the
//! transport names, and those that it sets. The working directory is `/`. What the program starts in the background is
//! its own affair until the time-out, which ends its whole process group.

mod exit;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use resources::snapshot::{self, TransportKind};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use types::Address;

use crate::as_user::{self, User};
use crate::body::{BodyError, BodyReader};
use crate::job::{AttemptResult, Context, Job, JobRecipient};
use crate::local::text::LocalForm;
use crate::local::{self, Done};

/// Between SIGTERM and SIGKILL at a time-out.
const TERMINATE_GRACE: Duration = Duration::from_secs(2);
/// Wait for the last output once the program has ended: what it left in the background may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Where a program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Delivers to every recipient of the job.
pub(crate) async fn deliver(context: &Context, job: &Job) -> Vec<(u32, AttemptResult)> {
    let TransportKind::Program(program) = &job.transport.kind else {
        return job.all(&AttemptResult::deferred(3, 5, "the transport is no program any more"));
    };
    let user = match as_user::writer(program.as_user.as_deref()).await {
        Ok(user) => user,
        Err(text) => return job.all(&AttemptResult::deferred(3, 5, text)),
    };
    let mut results = Vec::with_capacity(job.recipients.len());
    for recipient in &job.recipients {
        let left = job.deadline.saturating_duration_since(context.node.clock().instant());
        let result = match prepare(job, recipient, program) {
            Err(done) => done.into(),
            // What would be ended at once is not begun.
            Ok(_) if left.is_zero() => AttemptResult::deferred(3, 0, "those before it took all of the attempt's time"),
            Ok(call) => run(program, &call, user.as_ref(), job.body(context), left.min(program.timeout)).await,
        };
        results.push((recipient.number, result));
    }
    results
}

/// One start of a program.
struct Call {
    argv: Vec<String>,
    variables: [(&'static str, String); 3],
    text: [Bytes; 3],
    body_size: u64,
}

fn prepare(job: &Job, recipient: &JobRecipient, program: &snapshot::Program) -> Result<Call, Done> {
    let sender = local::sender(job);
    let argv = program
        .argv
        .iter()
        .map(|template| argument(template, &recipient.address, &sender, &job.message_id))
        .collect::<Result<Vec<_>, Done>>()?;
    let head = local::head(job, recipient)?;
    Ok(Call {
        argv,
        variables: [
            ("SENDER", sender),
            ("RECIPIENT", recipient.address.to_string()),
            ("MESSAGE_ID", job.message_id.clone()),
        ],
        text: local::pieces(job, head),
        body_size: job.body_size,
    })
}

/// Fills `%u`, `%n`, `%d`, `%s` and `%i` in. The value stays literal text within its argument.
///
/// An argument must not become an option because of who writes to whom: where a value would put a `-` in front, the
/// recipient (or the sender) is refused. `--sender=%s` takes every sender.
fn argument(template: &str, recipient: &Address, sender: &str, message_id: &str) -> Result<String, Done> {
    let key = recipient.key();
    let local = recipient.local().to_lowercase();
    let mut out = String::with_capacity(template.len() + key.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let value = match after.bytes().next() {
            Some(b'u') => key.as_str(),
            Some(b'n') => local.as_str(),
            Some(b'd') => recipient.domain().as_str(),
            Some(b's') => sender,
            Some(b'i') => message_id,
            Some(b'%') => "%",
            _ => {
                out.push('%');
                rest = after;
                continue;
            }
        };
        if out.is_empty() && value.starts_with('-') {
            let (detail, who) = if value == sender { (7, "sender") } else { (3, "recipient") };
            return Err(Done::failed(
                1,
                detail,
                format!("the {who} begins with a hyphen, which the program could take for an option"),
            ));
        }
        out.push_str(value);
        rest = &after[1..];
    }
    out.push_str(rest);
    match out.contains('\0') {
        // No address holds one; exec would refuse it.
        true => Err(Done::failed(1, 3, "an argument would hold a NUL")),
        false => Ok(out),
    }
}

async fn run(
    program: &snapshot::Program,
    call: &Call,
    user: Option<&User>,
    body: BodyReader,
    timeout: Duration,
) -> AttemptResult {
    let mut running = match start(program, call, user) {
        Ok(running) => running,
        Err(error) => return AttemptResult::deferred(3, 5, format!("the program cannot be started: {error}")),
    };
    let output = Arc::new(Mutex::new(Vec::new()));
    let reader = tokio::spawn(collect(running.output, program.output_max_bytes, Arc::clone(&output)));
    let ended = tokio::time::timeout(timeout, attend(&mut running.child, &mut running.stdin, call, body)).await;
    let result = match ended {
        Ok(Ok(status)) => {
            running.group.forget();
            let _ = tokio::time::timeout(OUTPUT_GRACE, reader).await;
            let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
            return exit::judge(status, &output);
        }
        Ok(Err(trouble)) => AttemptResult::deferred(3, 0, trouble.to_string()),
        Err(_) => {
            let seconds = timeout.as_secs_f64();
            AttemptResult::deferred(3, 0, format!("the program did not end within {seconds:.0} s"))
        }
    };
    running.group.end(&mut running.child).await;
    reader.abort();
    result
}

struct Running {
    /// First: where an attempt is dropped, the program ends before it can see the end of its stdin.
    group: Group,
    child: Child,
    stdin: Option<ChildStdin>,
    output: pipe::Receiver,
}

fn start(program: &snapshot::Program, call: &Call, user: Option<&User>) -> io::Result<Running> {
    let Some((name, arguments)) = call.argv.split_first() else {
        return Err(io::Error::other("the transport names no program"));
    };
    let (output, stdout) = io::pipe()?;
    let stderr = stdout.try_clone()?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(call.variables.iter().map(|(name, value)| (*name, value.as_str())))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr);
    if let Some(user) = user {
        // Going from root to a uid, std clears the supplementary groups, too.
        command.uid(user.uid).gid(user.gid);
        if let Some((name, home)) = &user.account {
            command.env("USER", name).env("HOME", home);
        }
    }
    for name in &program.environment {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(&program.variables);
    let mut child = command.spawn()?;
    let group = Group::of(&child);
    let stdin = child.stdin.take();
    Ok(Running { group, child, stdin, output: pipe::Receiver::from_owned_fd(OwnedFd::from(output))? })
}

/// Why nothing is known of a program's end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the message came only in part")]
    Cut,
    #[error("the program is lost: {0}")]
    Wait(io::Error),
}

/// Feeds the program until it has ended. A program need not read all; but a text that breaks off must not look whole,
/// so then stdin stays open, and the caller ends the program.
async fn attend(
    child: &mut Child,
    stdin: &mut Option<ChildStdin>,
    call: &Call,
    body: BodyReader,
) -> Result<ExitStatus, Trouble> {
    if let Some(stdin) = stdin {
        tokio::select! {
            status = child.wait() => return status.map_err(Trouble::Wait),
            fed = feed(stdin, call, body) => fed?,
        }
    }
    drop(stdin.take());
    child.wait().await.map_err(Trouble::Wait)
}

/// A program that stops to read is none of our trouble: its exit code decides.
async fn feed(stdin: &mut ChildStdin, call: &Call, mut body: BodyReader) -> Result<(), Trouble> {
    let mut form = LocalForm::new(Vec::new());
    for piece in &call.text {
        if !send(stdin, &mut form, piece).await {
            return Ok(());
        }
    }
    let mut left = call.body_size;
    while let Some(chunk) = body.next().await? {
        left = left.checked_sub(chunk.len() as u64).ok_or(Trouble::Cut)?;
        if !send(stdin, &mut form, &chunk).await {
            return Ok(());
        }
    }
    if left > 0 {
        return Err(Trouble::Cut);
    }
    // Writing to memory cannot fail.
    if let Ok((rest, _)) = form.finish() {
        let _ = stdin.write_all(&rest).await;
    }
    Ok(())
}

/// Whether the program still reads.
async fn send(stdin: &mut ChildStdin, form: &mut LocalForm<Vec<u8>>, chunk: &[u8]) -> bool {
    if form.write_all(chunk).is_err() {
        return false;
    }
    let sent = stdin.write_all(form.get_mut()).await.is_ok();
    form.get_mut().clear();
    sent
}

/// Reads all, so that the program never waits; keeps the first octets.
async fn collect(mut output: pipe::Receiver, octets_max: usize, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = octets_max.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// The process group of a program. It does not outlive this, unless it was forgotten.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) }
    }

    /// The leader has ended by itself.
    fn forget(&mut self) {
        self.leader = None;
    }

    /// Ends the group: it is asked, then it is not asked. The leader is not waited for before, so the number is its own.
    async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(TERMINATE_GRACE, child.wait()).await;
        // The number stays that of the group while anybody of it lives; an empty group answers ESRCH.
        self.signal(Signal::KILL);
        self.leader = None;
        if ended.is_err() {
            let _ = child.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests;
