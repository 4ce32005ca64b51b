//! `posthouse queue export|import`: the mail of a platform as files, and back.
//!
//! Two files a message: `<id>.eml` is the text with the header section of its first variant; `<id>.json` is everything
//! else, and is written last: a message without it is not whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use posthouse_proto::queue::v1::accept_request::Step;
use posthouse_proto::queue::v1::{
    AcceptRequest, ChangeRequest, Commit, ExportRequest, Filter, Origin, Recipient, RecipientState, ShowRequest,
    ShowResponse, Variant,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::exit::{Code, Failure, Outcome};
use crate::output::count;
use crate::queue_list::{FilterArgs, for_each};
use crate::reach::{self, Reached, Which};

/// Octets of a chunk (contract of Accept).
const CHUNK_MAX_BYTES: usize = 64 << 10;
/// Chunks on their way: back-pressure comes after 256 KiB.
const CHUNKS_IN_FLIGHT: usize = 4;
/// The form of the envelope files.
const FORMAT: u32 = 1;

/// `queue export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder that is made, or is there
    dir: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
}

/// `queue import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Folder that `queue export` wrote
    dir: PathBuf,
}

/// The envelope file of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    format: u32,
    id: String,
    received_at_ms: i64,
    body_type: i32,
    smtp_utf8: bool,
    #[serde(default)]
    message_id: String,
    origin: ExportedOrigin,
    /// Octets of the header section in the .eml file, without the empty line.
    header_bytes: usize,
    variants: Vec<ExportedVariant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExportedOrigin {
    listener: String,
    client: String,
    helo: String,
    user: String,
    tls: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedVariant {
    sender: String,
    #[serde(default)]
    envid: String,
    #[serde(default)]
    dsn_return: i32,
    /// Base64: header sections may hold any octets. Not set: the one of the .eml file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    recipients: Vec<ExportedRecipient>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedRecipient {
    address: String,
    #[serde(default)]
    original: String,
    #[serde(default)]
    notify: u32,
    transport: String,
    route: String,
    #[serde(default)]
    delivered_to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
}

/// Writes every message that still has somewhere to go. The queue keeps them.
pub async fn export(which: &Which, args: &ExportArgs, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&args.dir)?;
    let mut ids = Vec::new();
    for_each(&mut reached, args.filter.filter()?, u64::MAX, |message| {
        ids.push(message.message_id);
        Ok(())
    })
    .await?;
    let mut written = 0;
    for id in &ids {
        let shown = match reached.queue.show(ShowRequest { message_id: id.clone() }).await {
            Ok(shown) => shown.into_inner(),
            // It was delivered since.
            Err(status) if status.code() == tonic::Code::NotFound => continue,
            Err(status) => return Err(status.into()),
        };
        let Some(exported) = exported(&shown) else { continue };
        write_text(&mut reached, id, &args.dir).await?;
        write_whole(&args.dir.join(format!("{id}.json")), &serde_json::to_vec_pretty(&exported)?)?;
        written += 1;
    }
    File::open(&args.dir)?.sync_all()?;
    writeln!(out, "exported {} to {}", count(written, "message"), args.dir.display())?;
    Ok(())
}

/// What is still to be delivered; `None` where nothing is.
fn exported(shown: &ShowResponse) -> Option<Exported> {
    let message = shown.message.as_ref()?;
    let origin = shown.origin.clone().unwrap_or_default();
    let first = shown.variants.first()?;
    let open = |summary: &&posthouse_proto::queue::v1::RecipientSummary| {
        !matches!(summary.state(), RecipientState::Delivered | RecipientState::Failed)
    };
    let variants: Vec<ExportedVariant> = (0u32..)
        .zip(&shown.variants)
        .map(|(number, variant)| ExportedVariant {
            sender: variant.sender.clone(),
            envid: variant.envid.clone(),
            dsn_return: variant.dsn_return,
            header: (variant.header != first.header).then(|| STANDARD.encode(&variant.header)),
            recipients: message
                .recipients
                .iter()
                .filter(|summary| summary.variant == number)
                .filter(open)
                .map(exported_recipient)
                .collect(),
        })
        .filter(|variant| !variant.recipients.is_empty())
        .collect();
    (!variants.is_empty()).then(|| Exported {
        format: FORMAT,
        id: message.message_id.clone(),
        received_at_ms: message.received_at_ms,
        body_type: shown.body_type,
        smtp_utf8: shown.smtp_utf8,
        message_id: shown.header_message_id.clone(),
        origin: ExportedOrigin {
            listener: origin.listener,
            client: origin.client,
            helo: origin.helo,
            user: origin.user,
            tls: origin.tls,
        },
        header_bytes: first.header.len(),
        variants,
    })
}

fn exported_recipient(summary: &posthouse_proto::queue::v1::RecipientSummary) -> ExportedRecipient {
    let recipient = summary.recipient.clone().unwrap_or_default();
    ExportedRecipient {
        address: recipient.address,
        original: recipient.original,
        notify: recipient.notify,
        transport: recipient.transport,
        route: recipient.route,
        delivered_to: recipient.delivered_to,
        held: (summary.state() == RecipientState::Held).then(|| summary.hold_reason.clone()),
    }
}

async fn write_text(reached: &mut Reached, id: &str, dir: &Path) -> Outcome {
    let path = dir.join(format!("{id}.eml"));
    let mut file = create(&path)?;
    let mut chunks = reached.queue.export(ExportRequest { message_id: id.to_owned(), variant: 0 }).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        file.write_all(&chunk.chunk)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Replaces a file in one step.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Takes every message of the folder that is not in the queue yet.
pub async fn import(which: &Which, args: &ImportArgs, out: &mut dyn Write) -> Outcome {
    let mut envelopes: Vec<PathBuf> = std::fs::read_dir(&args.dir)
        .with_context(|| format!("{} cannot be read", args.dir.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    envelopes.sort();
    let mut reached = reach::queue_or_new(which).await?;
    let mut messages = Vec::with_capacity(envelopes.len());
    for path in envelopes {
        messages.push((read_envelope(&path)?, path.with_extension("eml")));
    }
    // Between Accept and Hold a platform that runs would deliver it.
    if reached.runs && messages.iter().any(|(exported, _)| exported.is_held()) {
        let text = "there are held messages among them: stop the platform first, so that none of them gets out";
        return Err(Failure::new(Code::Unavailable, text));
    }
    let (mut taken, mut present) = (0, 0);
    for (exported, text) in &messages {
        if accept(&mut reached, exported, text).await? {
            present += 1;
        } else {
            taken += 1;
        }
    }
    writeln!(out, "imported {}; {present} were here already", count(taken, "message"))?;
    Ok(())
}

fn read_envelope(path: &Path) -> Result<Exported, Failure> {
    let wrong = |why: String| Failure::new(Code::Data, format!("{}: {why}", path.display()));
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let exported: Exported = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if exported.format != FORMAT {
        return Err(wrong(format!("form {} is not known here", exported.format)));
    }
    Ok(exported)
}

impl Exported {
    fn is_held(&self) -> bool {
        self.variants.iter().flat_map(|variant| &variant.recipients).any(|recipient| recipient.held.is_some())
    }
}

/// Gives one message to the queue; `true` when it was there. Holds come back with it.
async fn accept(reached: &mut Reached, exported: &Exported, text: &Path) -> Result<bool, Failure> {
    let place = || text.display().to_string();
    let mut file = BufReader::new(File::open(text).with_context(place)?);
    let header = read_header(&mut file, exported.header_bytes)
        .map_err(|error| Failure::new(Code::Data, format!("{}: {error}", place())))?;
    let (steps, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let commit = commit(exported, &header)?;
    let sender = tokio::task::spawn_blocking(move || send(&mut file, commit, &steps));
    let answer = reached.queue.accept(ReceiverStream::new(receiver)).await;
    sender.await.context("reading the message failed")?.with_context(place)?;
    let present = answer?.into_inner().already_present;
    let held = exported.variants.iter().flat_map(|variant| &variant.recipients);
    for (address, reason) in
        held.filter_map(|recipient| recipient.held.as_ref().map(|reason| (&recipient.address, reason)))
    {
        let filter = Filter { message_ids: vec![exported.id.clone()], recipient: address.clone(), ..Filter::default() };
        let request = ChangeRequest { filter: Some(filter), reason: reason.clone(), ..ChangeRequest::default() };
        reached.queue.hold(request).await?;
    }
    Ok(present)
}

/// The header section; the empty line behind it is read too.
fn read_header(file: &mut impl Read, header_bytes: usize) -> io::Result<Bytes> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the header section is not as long as the envelope says");
    let mut header = Vec::new();
    file.take(header_bytes as u64 + 2).read_to_end(&mut header)?;
    if header.len() != header_bytes + 2 || !header.ends_with(b"\r\n") {
        return Err(wrong());
    }
    header.truncate(header_bytes);
    if !header.is_empty() && !header.ends_with(b"\r\n") {
        return Err(wrong());
    }
    Ok(header.into())
}

fn send(file: &mut impl Read, mut commit: Commit, steps: &mpsc::Sender<AcceptRequest>) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_MAX_BYTES);
        file.take(CHUNK_MAX_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        commit.body_size_bytes += chunk.len() as u64;
        // The queue answers early when it knows the message or is in trouble: its answer says which.
        if steps.blocking_send(AcceptRequest { step: Some(Step::Chunk(chunk.into())) }).is_err() {
            return Ok(());
        }
    }
    let _ = steps.blocking_send(AcceptRequest { step: Some(Step::Commit(commit)) });
    Ok(())
}

fn commit(exported: &Exported, header: &Bytes) -> Result<Commit, Failure> {
    let variants = exported.variants.iter().map(|variant| {
        let header = match &variant.header {
            None => header.clone(),
            Some(text) => STANDARD
                .decode(text)
                .map_err(|error| Failure::new(Code::Data, format!("{}: header: {error}", exported.id)))?
                .into(),
        };
        Ok(Variant {
            header,
            sender: variant.sender.clone(),
            envid: variant.envid.clone(),
            dsn_return: variant.dsn_return,
            recipients: variant.recipients.iter().map(recipient).collect(),
        })
    });
    let origin = &exported.origin;
    Ok(Commit {
        message_id: exported.id.clone(),
        variants: variants.collect::<Result<_, Failure>>()?,
        body_size_bytes: 0,
        received_at_ms: exported.received_at_ms,
        body_type: exported.body_type,
        smtp_utf8: exported.smtp_utf8,
        origin: Some(Origin {
            listener: origin.listener.clone(),
            client: origin.client.clone(),
            helo: origin.helo.clone(),
            user: origin.user.clone(),
            tls: origin.tls.clone(),
        }),
        report: None,
        header_message_id: exported.message_id.clone(),
    })
}

fn recipient(exported: &ExportedRecipient) -> Recipient {
    Recipient {
        address: exported.address.clone(),
        original: exported.original.clone(),
        notify: exported.notify,
        transport: exported.transport.clone(),
        route: exported.route.clone(),
        delivered_to: exported.delivered_to.clone(),
    }
}

#[cfg(test)]
mod tests {
    use posthouse_proto::queue::v1::{MessageSummary, RecipientSummary};

    use super::*;

    fn shown() -> ShowResponse {
        let summary = |address: &str, variant, state: RecipientState| RecipientSummary {
            recipient: Some(Recipient {
                address: address.to_owned(),
                transport: "mx".to_owned(),
                route: "r".to_owned(),
                notify: 4,
                ..Recipient::default()
            }),
            state: state.into(),
            variant,
            hold_reason: if state == RecipientState::Held { "look".to_owned() } else { String::new() },
            ..RecipientSummary::default()
        };
        let variant = |header: &'static [u8], sender: &str| Variant {
            header: Bytes::from_static(header),
            sender: sender.to_owned(),
            ..Variant::default()
        };
        ShowResponse {
            message: Some(MessageSummary {
                message_id: "0".repeat(26),
                received_at_ms: 42,
                recipients: vec![
                    summary("done@x", 0, RecipientState::Delivered),
                    summary("a@x", 0, RecipientState::Waiting),
                    summary("b@x", 1, RecipientState::Held),
                    summary("gone@x", 2, RecipientState::Failed),
                ],
                ..MessageSummary::default()
            }),
            variants: vec![variant(b"A: 1\r\n", "s@x"), variant(b"A: \xff\r\n", ""), variant(b"A: 1\r\n", "t@x")],
            smtp_utf8: true,
            ..ShowResponse::default()
        }
    }

    #[test]
    fn what_is_exported_comes_back_as_it_was_and_what_is_done_stays_behind() {
        let exported = exported(&shown()).unwrap();
        let text = serde_json::to_string(&exported).unwrap();
        let back: Exported = serde_json::from_str(&text).unwrap();
        assert_eq!(back, exported);
        let commit = commit(&back, &Bytes::from_static(b"A: 1\r\n")).unwrap();
        let variants: Vec<_> = commit
            .variants
            .iter()
            .map(|v| {
                (&v.header[..], v.sender.as_str(), v.recipients.iter().map(|r| r.address.as_str()).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(variants, [(&b"A: 1\r\n"[..], "s@x", vec!["a@x"]), (&b"A: \xff\r\n"[..], "", vec!["b@x"])]);
        assert_eq!((commit.received_at_ms, commit.smtp_utf8), (42, true));
        assert_eq!(back.variants[1].recipients[0].held.as_deref(), Some("look"));
        let mut done = shown();
        done.message.as_mut().unwrap().recipients.truncate(1);
        assert!(super::exported(&done).is_none());
    }

    #[test]
    fn a_text_is_cut_where_its_envelope_says() {
        let read = |text: &'static [u8], header_bytes| {
            let mut rest = text;
            read_header(&mut rest, header_bytes).ok().map(|header| (header, rest))
        };
        assert_eq!(read(b"A: 1\r\n\r\nbody", 6), Some((Bytes::from_static(b"A: 1\r\n"), &b"body"[..])));
        assert_eq!(read(b"\r\nbody", 0), Some((Bytes::new(), &b"body"[..])));
        for (text, header_bytes) in [(&b"A: 1\r\n\r\nbody"[..], 5), (b"A: 1\r\n", 6), (b"A: 1\r\n\r\nbody", 100)] {
            assert_eq!(read(text, header_bytes), None);
        }
    }

    #[test]
    fn a_body_goes_in_chunks_and_its_size_is_counted() {
        let body = vec![b'x'; CHUNK_MAX_BYTES + 1];
        let (steps, mut receiver) = mpsc::channel(10);
        send(&mut &body[..], Commit::default(), &steps).unwrap();
        let mut sizes = Vec::new();
        let committed = loop {
            match receiver.try_recv().unwrap().step.unwrap() {
                Step::Chunk(chunk) => sizes.push(chunk.len()),
                Step::Commit(commit) => break commit,
                Step::Abort(_) => unreachable!(),
            }
        };
        assert_eq!(sizes, [CHUNK_MAX_BYTES, 1]);
        assert_eq!(committed.body_size_bytes, CHUNK_MAX_BYTES as u64 + 1);
    }
}
