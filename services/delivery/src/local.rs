//! What maildir, mbox and program have in common: the paths, the text, and who writes.

pub(crate) mod path;
pub(crate) mod text;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use node::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::text::{Chunks, Source};
use crate::as_user::{self, Helper};
use crate::body::BodyReader;
use crate::job::{AttemptResult, BodySource, Context, Job, JobRecipient};
use crate::{maildir, mbox};

/// Chunks between the queue and a writer that blocks: enough that neither waits for each single one.
const CHUNKS_MAX: usize = 4;

/// One message for one mailbox. All there is to know: it also travels to a helper of another user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) form: Form,
    /// The maildir or the mbox file, absolute.
    pub(crate) path: PathBuf,
    /// Names the message among all others, the same at every attempt.
    pub(crate) name: String,
    /// Envelope sender; empty: null.
    pub(crate) sender: String,
    pub(crate) received_at_ms: i64,
    /// Octets of the text that follows.
    pub(crate) octets: u64,
}

/// Kinds of mailboxes in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    Maildir,
    Mbox,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) end: End,
    pub(crate) subject: u16,
    pub(crate) detail: u16,
    pub(crate) text: String,
}

/// The ends of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Delivered,
    Deferred,
    Failed,
}

impl Done {
    pub(crate) fn delivered(text: impl Into<String>) -> Self {
        Self { end: End::Delivered, subject: 0, detail: 0, text: text.into() }
    }

    pub(crate) fn deferred(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self { end: End::Deferred, subject, detail, text: text.into() }
    }

    pub(crate) fn failed(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self { end: End::Failed, subject, detail, text: text.into() }
    }

    /// Trouble with files is ours, so it is transient; a full mailbox is told from a full disk (RFC 3463 section 3.3).
    pub(crate) fn trouble(step: &str, error: &io::Error) -> Self {
        let (subject, detail) = match error.kind() {
            io::ErrorKind::QuotaExceeded => (2, 2),
            io::ErrorKind::StorageFull => (3, 1),
            _ => (3, 0),
        };
        Self::deferred(subject, detail, format!("{step}: {error}"))
    }
}

impl From<Done> for AttemptResult {
    fn from(done: Done) -> Self {
        match done.end {
            End::Delivered => Self::delivered(done.text),
            End::Deferred => Self::deferred(done.subject, done.detail, done.text),
            End::Failed => Self::failed(done.subject, done.detail, done.text),
        }
    }
}

/// Writes the text into the mailbox, with the rights of this process. Blocks.
pub(crate) fn perform(task: &Task, clock: &Clock, text: &mut dyn Source) -> Done {
    match task.form {
        Form::Maildir => maildir::store(task, text),
        Form::Mbox => mbox::append(task, clock, text, mbox::LOCK_WAIT_MAX),
    }
}

/// Delivers a job into mailboxes in files, one recipient after the other.
pub(crate) async fn deliver(
    context: &Context,
    job: &Job,
    form: Form,
    template: &str,
    as_user: Option<&str>,
) -> Vec<(u32, AttemptResult)> {
    let user = match as_user::writer(as_user).await {
        Ok(user) => user,
        Err(text) => return job.all(&AttemptResult::deferred(3, 5, text)),
    };
    let helper = Helper::this_binary();
    let mut results = Vec::with_capacity(job.recipients.len());
    for recipient in &job.recipients {
        let done = match prepare(context, job, recipient, form, template) {
            Err(done) => done,
            Ok((task, head)) => match &user {
                None => perform_here(context, job, task, head).await,
                Some(user) => as_user::perform(&helper, user, context, job, &task, head).await,
            },
        };
        results.push((recipient.number, done.into()));
    }
    results
}

fn prepare(
    context: &Context,
    job: &Job,
    recipient: &JobRecipient,
    form: Form,
    template: &str,
) -> Result<(Task, Bytes), Done> {
    let path = path::expand(template, &recipient.address).map_err(|error| Done::failed(1, 3, error.to_string()))?;
    let head = head(job, recipient)?;
    let received_at_ms = job.received_at.unix_ms();
    let host = context.node.snapshots().current().platform.hostname.as_str().replace(['/', ':', ',', '[', ']'], "_");
    let name = format!(
        "{}.M{}P{}R{}.{host}",
        received_at_ms.div_euclid(1000),
        received_at_ms.rem_euclid(1000),
        job.message_id,
        recipient.number
    );
    let task = Task {
        form,
        path: absolute(context.node.state_dir(), &path),
        name,
        sender: sender(job),
        received_at_ms,
        octets: head.len() as u64 + job.header.len() as u64 + 2 + job.body_size,
    };
    Ok((task, head))
}

/// The state folder may have been given relative to where the process started; helpers run elsewhere.
fn absolute(state_dir: &Path, path: &str) -> PathBuf {
    let path = state_dir.join(path);
    std::path::absolute(&path).unwrap_or(path)
}

/// The envelope sender as it is written to files and programs; empty: null.
pub(crate) fn sender(job: &Job) -> String {
    job.sender.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// What final delivery puts in front (RFC 5321 section 4.4), with CRLF line ends.
pub(crate) fn head(job: &Job, recipient: &JobRecipient) -> Result<Bytes, Done> {
    let address = recipient.address.to_string();
    let delivered_to = if recipient.delivered_to.is_empty() { &address } else { &recipient.delivered_to };
    // An address is typed and has no controls; what was only kept as text is not trusted to have none.
    let delivered_to: String = delivered_to.chars().filter(|c| !c.is_control()).collect();
    if has_been_delivered_to(&job.header, &delivered_to) {
        return Err(Done::failed(4, 6, "mail loop: the message has been delivered to this address before"));
    }
    Ok(Bytes::from(format!("Return-Path: <{}>\r\nDelivered-To: {delivered_to}\r\n", sender(job))))
}

/// S18: a message that comes back to where it was would go round for ever.
fn has_been_delivered_to(header: &[u8], address: &str) -> bool {
    const NAME: &[u8] = b"delivered-to:";
    header.split(|octet| *octet == b'\n').any(|line| {
        line.len() > NAME.len()
            && line[..NAME.len()].eq_ignore_ascii_case(NAME)
            && line[NAME.len()..].trim_ascii().eq_ignore_ascii_case(address.as_bytes())
    })
}

/// The whole text of a message but its body: what is put in front, header section, empty line.
pub(crate) fn pieces(job: &Job, head: Bytes) -> [Bytes; 3] {
    [head, job.header.clone(), Bytes::from_static(b"\r\n")]
}

async fn perform_here(context: &Context, job: &Job, task: Task, head: Bytes) -> Done {
    let octets = task.octets;
    let clock = context.node.clock().clone();
    let [head, header, empty] = pieces(job, head);
    if let BodySource::Inline(body) = &job.body {
        let mut text = Chunks::new([head, header, empty, body.clone()], None, octets);
        return joined(tokio::task::spawn_blocking(move || perform(&task, &clock, &mut text)).await);
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let mut text = Chunks::new([head, header, empty], Some(receiver), octets);
    let writer = tokio::task::spawn_blocking(move || perform(&task, &clock, &mut text));
    let fed = feed(job.body(context), sender).await;
    let done = joined(writer.await);
    match fed {
        // The writer says only that the text was cut short; this says why.
        Err(text) if done.end != End::Delivered => Done::deferred(3, 0, text),
        _ => done,
    }
}

/// Ends early where the writer has: it says why.
async fn feed(mut body: BodyReader, sender: mpsc::Sender<Bytes>) -> Result<(), String> {
    while let Some(chunk) = body.next().await.map_err(|error| error.to_string())? {
        if sender.send(chunk).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn joined(done: Result<Done, tokio::task::JoinError>) -> Done {
    done.unwrap_or_else(|error| Done::deferred(3, 0, format!("the writer ended early: {error}")))
}

#[cfg(test)]
mod tests;
