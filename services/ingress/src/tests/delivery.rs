//! The way of a message.

use std::sync::atomic::Ordering;

use resources::snapshot::{Listener, Protocol};
use tonic::Status;

use super::fakes::Fault;
use super::*;

fn lmtp(name: &str) -> Listener {
    Listener { protocol: Protocol::Lmtp, ..listener(name) }
}

#[tokio::test]
async fn a_message_goes_into_the_queue_with_its_trace_and_its_envelope() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client.example.net", "250-").await;
    client.command("MAIL FROM:<sender@example.net> ENVID=e1 RET=HDRS BODY=8BITMIME", "250").await;
    client.command("RCPT TO:<alice@example.org> NOTIFY=FAILURE ORCPT=rfc822;a@b.org", "250").await;
    client.command("DATA", "354").await;
    client.send("Subject: one\r\nMessage-ID: <m@b>\r\n\r\nfirst\r\n..second\r\n.\r\n").await;
    let reply = client.expect("250 2.0.0 queued as ").await;
    client.command("QUIT", "221").await;
    client.expect_end().await;

    let stored = site.queue.only();
    assert_eq!(reply, format!("250 2.0.0 queued as {}", stored.commit.message_id));
    assert_eq!(stored.body, b"first\r\n.second\r\n");
    let header = stored.header();
    let start = "Received: from client.example.net ([127.0.0.1])\r\n\tby mx1.example.org with ESMTP\r\n\tid ";
    assert!(header.starts_with(&format!("{start}{}", stored.commit.message_id)), "{header}");
    assert!(header.contains("\r\n\tfor <alice@example.org>;\r\n"), "{header}");
    assert!(header.ends_with("+0000\r\nSubject: one\r\nMessage-ID: <m@b>\r\n"), "{header}");
    assert_eq!(stored.commit.header_message_id, "<m@b>");
    assert_eq!(stored.commit.body_type, i32::from(posthouse_proto::queue::v1::BodyType::BodyType8bitmime));
    let variant = &stored.commit.variants[0];
    assert_eq!((variant.sender.as_str(), variant.envid.as_str(), variant.dsn_return), ("sender@example.net", "e1", 2));
    let recipient = &variant.recipients[0];
    assert_eq!((recipient.original.as_str(), recipient.notify), ("rfc822;a@b.org", 4));
    assert_eq!((recipient.transport.as_str(), recipient.delivered_to.as_str()), ("box", "alice@example.org"));
    let origin = stored.commit.origin.unwrap();
    assert_eq!(
        (origin.listener.as_str(), origin.client.as_str(), origin.helo.as_str()),
        ("mx", "127.0.0.1", "client.example.net")
    );
}

#[tokio::test]
async fn several_recipients_do_not_tell_of_each_other_and_forwards_get_a_variant() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("HELO client", "250").await;
    client.message(&["forward@example.org", "bob@example.org"], "Subject: x\r\n\r\nx").await;
    let stored = site.queue.only();
    assert!(!stored.header().contains("\tfor "), "{}", stored.header());
    assert!(stored.header().contains(" with SMTP\r\n"), "{}", stored.header());
    let found: Vec<_> = stored
        .commit
        .variants
        .iter()
        .map(|v| (v.sender.as_str(), v.recipients.iter().map(|r| r.address.as_str()).collect::<Vec<_>>()))
        .collect();
    let expected = [
        ("sender@example.net", vec!["keep@example.org", "bob@example.org"]),
        ("srs@example.org", vec!["far@example.net"]),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn pipelined_recipients_are_one_question_to_policy() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    let group =
        "MAIL FROM:<s@a.org>\r\nRCPT TO:<one@a.org>\r\nRCPT TO:<unknown@a.org>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n";
    client.send(group).await;
    for expected in ["250", "250", "550 5.1.1 no such user", "250", "354"] {
        client.expect(expected).await;
    }
    client.send("\r\nx\r\n.\r\n").await;
    client.expect("250").await;
    let envelopes = site.policy.envelopes.lock().unwrap();
    assert_eq!(envelopes.len(), 1);
    assert_eq!(envelopes[0].recipients, ["one@a.org", "unknown@a.org", "postmaster"]);
    let session = envelopes[0].session.as_ref().unwrap();
    assert_eq!(
        (session.client_ip.as_str(), session.address_known, session.helo.as_str()),
        ("127.0.0.1", true, "client")
    );
    let recipients = &site.queue.only().commit.variants[0].recipients;
    assert_eq!(recipients.iter().map(|r| r.address.as_str()).collect::<Vec<_>>(), ["one@a.org", "postmaster"]);
}

#[tokio::test]
async fn trouble_of_ours_is_transient_and_the_session_lives_on() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    let unavailable = || Fault::Refuse(Status::unavailable("disk"));
    let cases: Vec<(Vec<Fault>, &str)> = vec![
        (vec![unavailable(), unavailable()], "451 4.3.0"),
        (vec![Fault::Refuse(Status::resource_exhausted("full"))], "452 4.3.1"),
        (vec![Fault::Refuse(Status::invalid_argument("bug"))], "451 4.3.0"),
        (vec![unavailable()], "250 2.0.0"),
        (vec![], "250 2.0.0"),
    ];
    for (faults, expected) in cases {
        site.queue.fail(faults);
        let reply = client.message(&["alice@example.org"], "Subject: x\r\n\r\nx").await;
        assert!(reply.starts_with(expected), "{expected}: {reply}");
    }
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<trouble@example.org>", "451 4.3.0").await;
    client.command("RCPT TO:<alice@example.org>", "250").await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more_and_the_message_is_there_once() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    site.queue.fail([Fault::LoseAnswer]);
    let small = client.message(&["alice@example.org"], "Subject: x\r\n\r\nx").await;
    assert!(small.starts_with("250 2.0.0"), "{small}");
    site.queue.fail([Fault::LoseAnswer]);
    let line = format!("{}\r\n", "x".repeat(998));
    let large = client.message(&["alice@example.org"], &format!("\r\n{}", line.repeat(1000))).await;
    assert!(large.starts_with("250 2.0.0"), "{large}");
    let stored = site.queue.stored.lock().unwrap();
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[1].body.len(), 1_000_002);
    assert_eq!(site.queue.streams.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_large_body_flows_into_the_queue_while_it_arrives() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    client.begin(&["alice@example.org"]).await;
    client.send("Subject: large\r\n\r\n").await;
    let block = format!("{}\r\n", "0123456789abcdef".repeat(62)).repeat(100);
    for _ in 0..20 {
        client.send(&block).await;
    }
    // Nothing of the end has been sent, and nearly all of the rest is there already.
    let sent = 20 * block.len();
    eventually(|| site.queue.arrived.load(Ordering::SeqCst) > sent - (256 << 10)).await;
    assert!(site.queue.stored.lock().unwrap().is_empty());
    client.send(".\r\n").await;
    client.expect("250 2.0.0").await;
    let stored = site.queue.only();
    assert!(stored.body == block.repeat(20).as_bytes());
    assert_eq!(stored.commit.body_size_bytes, sent as u64);
    assert!(site.queue.largest_chunk.load(Ordering::SeqCst) <= 64 << 10);
    assert_eq!(site.queue.streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_flow_early_when_the_budget_is_used_up() {
    let mut snapshot = snapshot(vec![listener("mx")]);
    snapshot.platform.ingress_memory_max_bytes = 10_000;
    let site = Site::start_with(snapshot).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    client.begin(&["alice@example.org"]).await;
    let block = format!("{}\r\n", "x".repeat(98)).repeat(500);
    client.send(format!("\r\n{block}")).await;
    eventually(|| site.queue.arrived.load(Ordering::SeqCst) > 0).await;
    client.send(".\r\n").await;
    client.expect("250 2.0.0").await;
    assert!(site.queue.only().body == block.as_bytes());
}

#[tokio::test]
async fn a_large_header_section_waits_for_the_budget_too() {
    let mut snapshot = snapshot(vec![listener("mx")]);
    snapshot.platform.ingress_memory_max_bytes = 10_000;
    let site = Site::start_with(snapshot).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    let field = format!("A: {}\r\n", "y".repeat(900));
    for (fields, expected) in [(200, "452 4.3.1"), (20, "250 2.0.0")] {
        let reply = client.message(&["alice@example.org"], &format!("{}\r\nx", field.repeat(fields))).await;
        assert!(reply.starts_with(expected), "{fields} fields: {reply}");
    }
}

#[tokio::test]
async fn a_queue_that_breaks_off_a_large_body_is_451_and_a_client_that_leaves_commits_nothing() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    let line = format!("{}\r\n", "x".repeat(998));
    site.queue.fail([Fault::Break(Status::resource_exhausted("full"))]);
    let reply = client.message(&["alice@example.org"], &format!("\r\n{}", line.repeat(1000))).await;
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    client.begin(&["alice@example.org"]).await;
    client.send(format!("\r\n{}", line.repeat(1000))).await;
    eventually(|| site.queue.arrived.load(Ordering::SeqCst) > 256 << 10).await;
    drop(client);
    eventually(|| site.queue.dropped.load(Ordering::SeqCst) == 1).await;
    assert!(site.queue.stored.lock().unwrap().is_empty());
}

#[tokio::test]
async fn header_sections_have_bounds() {
    let mut mx = listener("mx");
    mx.limits.header_max_bytes = 2000;
    mx.limits.header_fields_max = 20;
    mx.limits.received_fields_max = 3;
    let site = Site::start(vec![mx]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    let large = format!("A: {}\r\n\r\nx", "y".repeat(3000));
    for (text, expected) in [
        (large.as_str(), "552 5.3.4"),
        (&format!("{}\r\nx", "A: b\r\n".repeat(21)), "554 5.6.0"),
        (&format!("{}\r\nx", "Received: x\r\n".repeat(4)), "554 5.4.6"),
        (&format!("{}\r\nx", "Received: x\r\n".repeat(3)), "250 2.0.0"),
        ("\r\nno header", "250 2.0.0"),
        ("no header at all", "250 2.0.0"),
    ] {
        let reply = client.message(&["alice@example.org"], text).await;
        assert!(reply.starts_with(expected), "{expected}: {reply}");
    }
    assert_eq!(site.queue.stored.lock().unwrap().last().unwrap().body, b"no header at all\r\n");
}

#[tokio::test]
async fn what_policy_decides_of_the_header_is_the_reply() {
    let site = Site::start(vec![listener("mx"), lmtp("lmtp")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    for (text, expected) in [
        ("X-Refuse: all\r\n\r\nx", "550 5.7.1 From is not yours"),
        ("X-Refuse: trouble\r\n\r\nx", "451 4.3.0"),
        ("X-Refuse: first\r\n\r\nx", "550 5.7.1 not for you"),
        ("From: a@b\r\n\r\nx", "250 2.0.0"),
    ] {
        let reply = client.message(&["decide@example.org"], text).await;
        assert!(reply.starts_with(expected), "{expected}: {reply}");
    }
    let decisions = site.policy.decisions.lock().unwrap().pop().unwrap();
    assert_eq!(&*decisions.header, b"From: a@b\r\n");
    assert_eq!(decisions.answers.len(), 1);
    assert_eq!(site.queue.only().body, b"x\r\n");
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient() {
    let site = Site::start(vec![lmtp("lmtp")]).await;
    let mut client = site.connect("lmtp").await;
    client.command("LHLO client", "250-").await;
    client.begin(&["decide1@example.org", "two@example.org"]).await;
    client.send("X-Refuse: first\r\n\r\nx\r\n.\r\n").await;
    client.expect("550 5.7.1 not for you").await;
    client.expect("250 2.0.0 queued as ").await;
    client.begin(&["one@example.org", "two@example.org"]).await;
    client.send("\r\nx\r\n.\r\n").await;
    client.expect("250 2.0.0 queued as ").await;
    client.expect("250 2.0.0 queued as ").await;
    let stored = site.queue.stored.lock().unwrap();
    assert_eq!(stored[0].commit.variants[0].recipients.len(), 1);
    assert_eq!(stored[0].commit.variants[0].recipients[0].address, "two@example.org");
    assert!(stored[0].header().contains(" with LMTP\r\n"));
}

#[tokio::test]
async fn a_chunked_message_arrives_whole() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    client.command("MAIL FROM:<s@a.org>", "250").await;
    client.command("RCPT TO:<alice@example.org>", "250").await;
    client.send("BDAT 10\r\nSubject: x").await;
    client.expect("250").await;
    client.send("BDAT 9 LAST\r\n\r\n\r\n.\r\nz\r").await;
    let reply = client.reply().await;
    // A CR on its own at the end is refused as any other.
    assert!(reply.starts_with("550 5.5.2"), "{reply}");
    client.command("MAIL FROM:<s@a.org>", "250").await;
    client.command("RCPT TO:<alice@example.org>", "250").await;
    client.send("BDAT 10\r\nSubject: xBDAT 8 LAST\r\n\r\n\r\n.\r\nz").await;
    client.expect("250").await;
    client.expect("250 2.0.0").await;
    // The last line is ended, so that what follows a message never runs into it.
    assert_eq!(site.queue.only().body, b".\r\nz\r\n");
}
