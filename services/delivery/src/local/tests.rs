use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use posthouse_proto::queue::v1 as queue;
use resources::snapshot::{Program, Transport, TransportKind};
use tonic::Status;

use super::*;
use crate::job::Outcome;
use crate::program;
use crate::testing::Fakes;

const HEADER: &[u8] = b"Received: from somewhere\r\nSubject: x\r\n";

fn job(context: &Context, kind: TransportKind, body: Option<&'static [u8]>, body_size: usize, to: &[&str]) -> Job {
    let transport = Transport {
        name: "local".into(),
        kind,
        schedule: schedule::Schedule {
            delay_first: Duration::from_secs(300),
            delay_max: Duration::from_secs(14_400),
            age_max: Duration::from_secs(432_000),
            warn_after: None,
        },
        route_concurrency_max: 1,
        recipients_max: 10,
        attempt_timeout: Duration::from_secs(60),
    };
    let recipients = to.iter().zip(0..).map(|(address, number)| queue::DueRecipient {
        number,
        recipient: Some(queue::Recipient { address: (*address).to_owned(), ..Default::default() }),
        attempts: 0,
    });
    let delivery = queue::Delivery {
        message_id: "0000000000000g000000000001".into(),
        transport: "local".into(),
        route: "local".into(),
        sender: "Bob@example.net".into(),
        header: Bytes::from_static(HEADER),
        body: Bytes::from_static(body.unwrap_or_default()),
        body_inline: body.is_some(),
        body_size_bytes: body_size as u64,
        received_at_ms: 1_800_000_000_005,
        recipients: recipients.collect(),
        ..Default::default()
    };
    let deadline = context.node.clock().instant() + Duration::from_secs(60);
    let (job, refused) = crate::wire::job(delivery, Arc::new(transport), deadline);
    assert!(refused.is_empty(), "{refused:?}");
    job
}

fn into_maildir() -> TransportKind {
    TransportKind::Maildir { path: "mail/%d/%n".into(), as_user: None }
}

fn codes(results: &[(u32, AttemptResult)]) -> Vec<(u32, String)> {
    results.iter().map(|(number, result)| (*number, result.enhanced.to_string())).collect()
}

/// Text of the files in `new`.
fn stored(state: &Path, mailbox: &str) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(state.join(mailbox).join("new")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[tokio::test]
async fn each_recipient_has_its_own_file_and_its_own_result() {
    let state = tempfile::tempdir().unwrap();
    let context = crate::context(&Fakes::default().node(state.path()));
    let body = Some(&b"body\r\n"[..]);
    let recipients = ["Alice@example.org", "\"../../x\"@example.org", "\".\"@example.org", "carol@example.org"];
    let mut job = job(&context, into_maildir(), body, 6, &recipients);
    job.recipients[3].delivered_to = "carol.forward@example.org".into();

    let results = maildir::deliver(&context, &job).await;
    let expected = [(0, "2.0.0"), (1, "5.1.3"), (2, "5.1.3"), (3, "2.0.0")];
    assert_eq!(codes(&results), expected.map(|(number, code)| (number, code.to_owned())));
    assert_eq!(results[0].1.outcome, Outcome::Delivered { relayed: false, final_: true });

    let [(path, text)] = stored(state.path(), "mail/example.org/alice").try_into().unwrap();
    let expected = "Return-Path: <Bob@example.net>\nDelivered-To: Alice@example.org\nReceived: from somewhere\nSubject: x\n\nbody\n";
    assert_eq!(text, expected);
    let name = format!("1800000000.M5P0000000000000g000000000001R0.mx1.example.org,S={}", expected.len());
    assert_eq!(path.file_name().unwrap().to_str(), Some(name.as_str()));
    let [(_, text)] = stored(state.path(), "mail/example.org/carol").try_into().unwrap();
    assert!(text.contains("Delivered-To: carol.forward@example.org\n"), "{text}");
    let mut found: Vec<_> =
        fs::read_dir(state.path().join("mail/example.org")).unwrap().map(|e| e.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["alice", "carol"]);
}

#[tokio::test]
async fn a_body_of_the_queue_is_streamed_into_the_file() {
    let state = tempfile::tempdir().unwrap();
    let body = "line\r\n".repeat(200_000);
    let fakes = Fakes { chunk_octets: Some(65_537), ..Fakes::default() };
    *fakes.body.lock().unwrap() = Some(Ok(body.clone().into_bytes()));
    let context = crate::context(&fakes.node(state.path()));
    let job = job(&context, into_maildir(), None, body.len(), &["alice@example.org"]);
    let results = maildir::deliver(&context, &job).await;
    assert_eq!(codes(&results), [(0, "2.0.0".to_owned())], "{results:?}");
    let [(_, text)] = stored(state.path(), "mail/example.org/alice").try_into().unwrap();
    assert!(text.split_once("\n\n").unwrap().1 == body.replace("\r\n", "\n"));

    // The result got lost: the same attempt once more makes no second file.
    maildir::deliver(&context, &job).await;
    assert_eq!(stored(state.path(), "mail/example.org/alice").len(), 1);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_whole_is_not_delivered() {
    for (body, size, expected) in [
        (Err(Status::unavailable("store")), 6, "body cannot be read"),
        (Ok(b"body\r\n".to_vec()), 7, "came only in part"),
        (Ok(b"body\r\n".to_vec()), 5, "longer than it should be"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let fakes = Fakes::default();
        *fakes.body.lock().unwrap() = Some(body);
        let context = crate::context(&fakes.node(state.path()));
        for kind in [into_maildir(), TransportKind::Mbox { path: "box/%n".into(), as_user: None }] {
            let job = job(&context, kind, None, size, &["alice@example.org"]);
            let results = match job.transport.kind {
                TransportKind::Mbox { .. } => mbox::deliver(&context, &job).await,
                _ => maildir::deliver(&context, &job).await,
            };
            assert_eq!(codes(&results), [(0, "4.3.0".to_owned())]);
            assert!(results[0].1.reply.contains(expected), "{results:?}");
        }
        assert!(stored(state.path(), "mail/example.org/alice").is_empty());
        assert_eq!(fs::read(state.path().join("box/alice")).unwrap(), b"");
    }
}

#[tokio::test]
async fn mbox_and_program_get_the_same_text() {
    let state = tempfile::tempdir().unwrap();
    let context = crate::context(&Fakes::default().node(state.path()));
    let body = Some(&b"From me\r\n"[..]);
    let text =
        "Return-Path: <Bob@example.net>\nDelivered-To: alice@example.org\nReceived: from somewhere\nSubject: x\n\n";

    let kind = TransportKind::Mbox { path: "box/%u".into(), as_user: None };
    let results = mbox::deliver(&context, &job(&context, kind, body, 9, &["alice@example.org"])).await;
    assert_eq!(codes(&results), [(0, "2.0.0".to_owned())]);
    assert_eq!(
        fs::read_to_string(state.path().join("box/alice@example.org")).unwrap(),
        format!("From Bob@example.net Fri Jan 15 08:00:00 2027\n{text}>From me\n\n")
    );

    let argv = ["/bin/sh", "-c", "echo \"$@\" $SENDER $RECIPIENT $MESSAGE_ID; cat", "sh", "--from=%s", "%u", "%i"];
    let kind = TransportKind::Program(Program {
        argv: argv.map(String::from).into(),
        as_user: None,
        timeout: Duration::from_secs(30),
        output_max_bytes: 4096,
        environment: Vec::new(),
        variables: BTreeMap::new(),
    });
    let job = job(&context, kind, body, 9, &["alice@example.org", "-alice@example.org"]);
    let results = program::deliver(&context, &job).await;
    assert_eq!(codes(&results), [(0, "2.0.0".to_owned()), (1, "5.1.3".to_owned())]);
    let id = &job.message_id;
    assert_eq!(
        results[0].1.reply,
        format!("--from=Bob@example.net alice@example.org {id} Bob@example.net alice@example.org {id}\n{text}From me")
    );
}

#[tokio::test]
async fn a_message_that_was_here_before_has_gone_round() {
    let state = tempfile::tempdir().unwrap();
    let context = crate::context(&Fakes::default().node(state.path()));
    let mut job = job(&context, into_maildir(), Some(b""), 0, &["alice@example.org", "bob@example.org"]);
    job.header = Bytes::from_static(b"DELIVERED-TO:  Alice@example.org \r\nX-Delivered-To: bob@example.org\r\n");
    let results = maildir::deliver(&context, &job).await;
    assert_eq!(codes(&results), [(0, "5.4.6".to_owned()), (1, "2.0.0".to_owned())]);
}

#[tokio::test]
async fn a_user_that_cannot_be_had_defers() {
    let state = tempfile::tempdir().unwrap();
    let context = crate::context(&Fakes::default().node(state.path()));
    let kind = TransportKind::Maildir { path: "mail/%n".into(), as_user: Some("no-such-user".into()) };
    let job = job(&context, kind, Some(b""), 0, &["alice@example.org"]);
    assert_eq!(codes(&maildir::deliver(&context, &job).await), [(0, "4.3.5".to_owned())]);
    assert!(!state.path().join("mail").exists());
}

#[test]
fn a_full_mailbox_is_told_from_a_full_disk_and_both_are_transient() {
    let trouble = |kind| AttemptResult::from(Done::trouble("write", &io::Error::from(kind)));
    for (kind, code) in [
        (io::ErrorKind::QuotaExceeded, "4.2.2"),
        (io::ErrorKind::StorageFull, "4.3.1"),
        (io::ErrorKind::PermissionDenied, "4.3.0"),
        (io::ErrorKind::ReadOnlyFilesystem, "4.3.0"),
    ] {
        let result = trouble(kind);
        assert_eq!((result.outcome, result.enhanced.to_string().as_str()), (Outcome::Deferred, code));
    }
}
