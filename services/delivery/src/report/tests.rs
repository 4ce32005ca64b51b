use message::dsn::{ParsedReport, parse_report};
use node::Peer;
use tonic::Status;

use super::*;
use crate::testing::Fakes;

const ABOUT: &str = "0000000000000g000000000001";

/// Services that do what they should.
fn fakes() -> Fakes {
    let fakes = Fakes::default();
    *fakes.answer.lock().unwrap() = Some(Ok(accepted()));
    *fakes.body.lock().unwrap() = Some(Ok(b"original text\r\n".to_vec()));
    fakes
}

impl Fakes {
    async fn submit(&self, report: queue::Report) -> Result<(), ReportOutcome> {
        let node = self.node(&std::env::temp_dir());
        let queue = QueueClient::new(node.wire(Peer::Queue));
        let policy = PolicyClient::new(node.wire(Peer::Policy));
        Reporter { node, queue, policy }.submit(report).await
    }

    /// The one message that was accepted.
    fn message(&self) -> (queue::Commit, ParsedReport) {
        let accepted = self.accepted.lock().unwrap();
        let [(commit, body)] = accepted.as_slice() else { panic!("{} messages", accepted.len()) };
        assert_eq!(commit.body_size_bytes, body.len() as u64);
        let whole = [&commit.variants[0].header[..], b"\r\n", body].concat();
        (commit.clone(), parse_report(&whole).unwrap())
    }
}

fn accepted() -> policy::answer::Answer {
    policy::answer::Answer::Accepted(policy::Accepted {
        destinations: vec![policy::Destination {
            address: "alice.box@example.org".into(),
            transport: "dovecot".into(),
            route: "dovecot".into(),
            delivered_to: "alice@example.org".into(),
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn refused(code: u32) -> policy::answer::Answer {
    policy::answer::Answer::Refuse(policy::Reply { code, enhanced_code: String::new(), text: "no".into() })
}

fn report() -> queue::Report {
    queue::Report {
        lease: None,
        key: Some(queue::ReportKey { message_id: ABOUT.into(), settle_number: 3 }),
        kind: queue::ReportKind::Failed.into(),
        message_id: ABOUT.into(),
        sender: "alice@example.org".into(),
        envid: "QQ1".into(),
        dsn_return: queue::DsnReturn::Full.into(),
        header: Bytes::from_static(b"Subject: original\r\n"),
        body_size_bytes: 15,
        received_at_ms: 1_800_000_000_000,
        recipients: vec![queue::ReportedRecipient {
            recipient: Some(queue::Recipient {
                address: "bob@example.net".into(),
                original: "rfc822;robert@example.net".into(),
                ..Default::default()
            }),
            outcome: Some(queue::Outcome {
                remote: "mx.example.net [192.0.2.1]:25".into(),
                reply: "550 5.1.1 no such user".into(),
                enhanced_code: "5.1.1".into(),
                kind: Some(queue::outcome::Kind::Failed(queue::Failed {})),
            }),
            last_attempt_at_ms: 1_800_000_100_000,
        }],
        smtp_utf8: false,
        expires_at_ms: 0,
    }
}

#[tokio::test]
async fn a_report_goes_where_policy_routes_its_sender_under_its_key() {
    let fakes = fakes();
    assert_eq!(fakes.submit(report()).await, Ok(()));

    let asked = fakes.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].session.as_ref().unwrap().internal && asked[0].sender.is_empty());
    assert_eq!(asked[0].recipients, ["alice@example.org"]);
    assert_eq!(*fakes.read.lock().unwrap(), [ABOUT]);

    let (commit, message) = fakes.message();
    assert_eq!(commit.report, report().key);
    assert_ne!(commit.message_id, ABOUT);
    assert!(commit.message_id.parse::<MessageId>().is_ok());
    let [variant] = commit.variants.as_slice() else { panic!("one variant") };
    assert_eq!(variant.sender, "", "a report has the null reverse-path");
    let [recipient] = variant.recipients.as_slice() else { panic!("one recipient") };
    assert_eq!(
        (&*recipient.address, &*recipient.transport, &*recipient.delivered_to, recipient.notify),
        ("alice.box@example.org", "dovecot", "alice@example.org", NOTIFY_NEVER)
    );
    let value = |name| ParsedReport::value(&message.recipients[0], name);
    assert_eq!(value("Original-Recipient"), Some("rfc822; robert@example.net"));
    assert_eq!(value("Action"), Some("failed"));
    assert_eq!(value("Status"), Some("5.1.1"));
    assert_eq!(value("Diagnostic-Code"), Some("smtp; 550 5.1.1 no such user"));
    assert_eq!(ParsedReport::value(&message.message, "Original-Envelope-Id"), Some("QQ1"));
    assert_eq!(ParsedReport::value(&message.header, "To"), Some("<alice@example.org>"));
    assert_eq!(ParsedReport::value(&message.header, "Received"), None);
    assert_eq!(ParsedReport::value(&message.header, "Message-ID"), Some(&*commit.header_message_id));
    assert_eq!(message.returned_type, "message/rfc822");
    assert_eq!(message.returned, b"Subject: original\r\n\r\noriginal text\r\n");
}

#[tokio::test]
async fn the_id_of_a_report_is_the_same_each_time_one_settle_is_reported_and_another_for_another_settle() {
    let fakes = fakes();
    let mut later = report();
    later.key.as_mut().unwrap().settle_number = 4;
    for report in [report(), report(), later] {
        assert_eq!(fakes.submit(report).await, Ok(()));
    }
    let accepted = fakes.accepted.lock().unwrap();
    let ids: Vec<&str> = accepted.iter().map(|(commit, _)| &*commit.message_id).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    assert_eq!(ids[0][..12], ABOUT[..12], "shard and time are those of the message");
}

#[tokio::test]
async fn trouble_keeps_a_report_due_and_only_a_refusal_for_ever_drops_it() {
    type Change = fn(&Fakes, &mut queue::Report);
    let cases: &[(&str, Change, bool)] = &[
        ("policy is away", |f, _| *f.answer.lock().unwrap() = Some(Err(Status::unavailable("store"))), false),
        ("policy is broken", |f, _| *f.answer.lock().unwrap() = Some(Err(Status::internal("bug"))), false),
        ("451", |f, _| *f.answer.lock().unwrap() = Some(Ok(refused(451))), false),
        ("no code", |f, _| *f.answer.lock().unwrap() = Some(Ok(refused(0))), false),
        ("550", |f, _| *f.answer.lock().unwrap() = Some(Ok(refused(550))), true),
        ("queue is full", |f, _| *f.accept_fails.lock().unwrap() = Some(Status::resource_exhausted("disk")), false),
        ("body is away", |f, _| *f.body.lock().unwrap() = Some(Err(Status::unavailable("store"))), false),
        ("null sender", |_, r| r.sender.clear(), true),
        ("no sender", |_, r| r.sender = "not an address".into(), true),
        ("no recipients", |_, r| r.recipients.clear(), true),
    ];
    for (name, change, dropped) in cases {
        let (fakes, mut report) = (fakes(), report());
        change(&fakes, &mut report);
        let outcome = fakes.submit(report).await.unwrap_err();
        assert_eq!(matches!(outcome, ReportOutcome::Dropped(_)), *dropped, "{name}: {outcome:?}");
        assert!(fakes.accepted.lock().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_body_comes_back_of_failures_that_asked_for_it_and_are_small() {
    type Change = fn(&mut queue::Report);
    let cases: &[(&str, Change, &str)] = &[
        ("full", |_| {}, "message/rfc822"),
        ("not said", |r| r.dsn_return = 0, "message/rfc822"),
        ("headers", |r| r.set_dsn_return(queue::DsnReturn::Headers), "text/rfc822-headers"),
        ("delayed", |r| r.set_kind(queue::ReportKind::Delayed), "text/rfc822-headers"),
        ("delivered", |r| r.set_kind(queue::ReportKind::Delivered), "text/rfc822-headers"),
        ("large", |r| r.body_size_bytes = RETURNED_BODY_OCTETS_MAX + 1, "text/rfc822-headers"),
    ];
    for (name, change, expected) in cases {
        let (fakes, mut report) = (fakes(), report());
        change(&mut report);
        fakes.submit(report).await.unwrap();
        assert_eq!(fakes.message().1.returned_type, *expected, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_is_larger_than_it_was_said_to_be_stays_bounded() {
    let fakes = fakes();
    *fakes.body.lock().unwrap() = Some(Ok(vec![b'x'; 100_000]));
    fakes.submit(report()).await.unwrap();
    assert_eq!(fakes.message().1.returned_type, "text/rfc822-headers");
}

#[tokio::test]
async fn a_delivered_report_says_how() {
    for (relayed, into_mailbox, expected) in
        [(false, true, "delivered"), (true, false, "relayed"), (false, false, "expanded")]
    {
        let (fakes, mut report) = (fakes(), report());
        report.set_kind(queue::ReportKind::Delivered);
        let delivered = queue::Delivered { relayed, r#final: into_mailbox };
        report.recipients[0].outcome.as_mut().unwrap().kind = Some(queue::outcome::Kind::Delivered(delivered));
        fakes.submit(report).await.unwrap();
        let (_, message) = fakes.message();
        assert_eq!(ParsedReport::value(&message.recipients[0], "Action"), Some(expected));
        assert_eq!(ParsedReport::value(&message.recipients[0], "Status"), Some("2.0.0"));
    }
}

#[tokio::test]
async fn eight_bit_content_and_an_international_sender_are_declared() {
    let (fakes, mut report) = (fakes(), report());
    report.sender = "\u{e4}lice@example.org".into();
    *fakes.body.lock().unwrap() = Some(Ok("gr\u{fc}n\r\n".into()));
    fakes.submit(report).await.unwrap();
    let (commit, message) = fakes.message();
    assert_eq!(commit.body_type(), queue::BodyType::BodyType8bitmime);
    assert!(commit.smtp_utf8);
    assert_eq!(ParsedReport::value(&message.header, "To"), Some("<\u{e4}lice@example.org>"));
}

#[tokio::test]
async fn python_reads_what_we_write() {
    let fakes = fakes();
    fakes.submit(report()).await.unwrap();
    let whole = {
        let accepted = fakes.accepted.lock().unwrap();
        [&accepted[0].0.variants[0].header[..], b"\r\n", &accepted[0].1].concat()
    };
    let script = r#"
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
assert not m.defects, m.defects
assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status"
text, status, original = m.get_payload()
assert "could not be delivered" in text.get_content(), text
message, recipient = status.get_payload()
assert message["Reporting-MTA"] == "dns; mx1.example.org", message
assert recipient["Final-Recipient"] == "rfc822; bob@example.net" and recipient["Action"] == "failed"
assert original.get_payload()[0]["Subject"] == "original"
assert original.get_payload()[0].get_payload() == "original text\r\n"
print("read")
"#;
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is needed");
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), &whole).unwrap();
    let output = python.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "read");
}
