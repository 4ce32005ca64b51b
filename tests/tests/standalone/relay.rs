//! On to other servers: smart host, MX, and peers that refuse, hang and hang up. And what their senders are told.

use std::net::{Ipv4Addr, SocketAddr};

use testkit::dns::{FakeDns, Trouble};
use testkit::eventually;
use testkit::peer::{Act, Peer};
use testkit::posthouse::{Posthouse, Site};
use testkit::smtp::queued_id;

use crate::documents::{self, QUICK_RETRY, message};
use crate::mailboxes::{parse_report, submission};

/// A platform whose users write to the world by one smart host; alice's own mail goes into a maildir.
fn site(peer: &Peer, more: &str) -> Site {
    let text = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(""),
        documents::listener_submission(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::relay_policy("out"),
        documents::smart_host("out", peer.address(), &format!("{QUICK_RETRY}{more}")),
    ];
    Site::new().with("site.yaml", &text.concat())
}

fn submit(posthouse: &Posthouse, recipients: &[&str], subject: &str) -> String {
    let text = message("alice@example.org", recipients[0], subject);
    queued_id(&submission(posthouse).deliver("alice@example.org", recipients, &text))
}

/// Texts in alice's maildir.
fn mail_of_alice(site: &Site) -> Vec<String> {
    let new = site.state().join("mail/alice/new");
    let Ok(entries) = std::fs::read_dir(new) else { return Vec::new() };
    entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_is_refused_for_now_or_never_answered_is_sent_again_and_arrives_once() {
    let acts = [
        Act::Greeting("421 4.3.2 not now"),
        Act::Mail("451 4.3.0 not now"),
        Act::Recipients("450 4.2.1 not now"),
        Act::Data("452 4.3.1 not now"),
        Act::DropAfterData,
    ];
    let peer = Peer::start(&acts);
    let site = site(&peer, "");
    let posthouse = site.start();
    let id = submit(&posthouse, &["carol@world.test"], "again");
    let received = peer.wait_for(1);
    assert_eq!(received[0].recipients.len(), 1);
    assert!(received[0].recipients[0].starts_with("TO:<carol@world.test>"), "{received:?}");
    let text = &received[0].text;
    assert!(text.contains(&id) && text.ends_with("Hello.\r\n.A line with a dot.\r\n"), "{id}: {text}");
    site.wait_until_empty();
    assert_eq!(peer.received().len(), 1);
    assert!(peer.connections() >= 3, "a refused greeting and a dropped connection want new ones");
    assert!(mail_of_alice(&site).is_empty(), "nobody is told of what went well in the end");
}

#[test]
fn a_peer_that_never_answers_is_given_up_for_this_attempt() {
    let peer = Peer::start(&[Act::Hang]);
    let site = site(&peer, "limits: { attemptTimeout: 2s }\n");
    let posthouse = site.start();
    submit(&posthouse, &["carol@world.test"], "hang");
    assert!(peer.wait_for(1)[0].text.contains("Subject: hang"));
    site.wait_until_empty();
}

#[test]
fn a_refusal_for_good_is_reported_to_the_sender() {
    let peer = Peer::start(&[Act::Recipients("550 5.1.1 no such user")]);
    let site = site(&peer, "");
    let posthouse = site.start();
    submit(&posthouse, &["carol@world.test"], "bounce");
    let text = eventually("the report", || mail_of_alice(&site).pop());
    let report = parse_report(&text);
    assert!(text.starts_with("Return-Path: <>\n"), "a report has no sender: {text}");
    assert_eq!(report["auto"], "auto-replied");
    assert_eq!(report["message"]["reporting-mta"], "dns; mx.example.org");
    let recipient = &report["recipients"][0];
    assert_eq!(recipient["action"], "failed");
    assert_eq!(recipient["status"], "5.1.1");
    assert_eq!(recipient["diagnostic-code"], "smtp; 550 5.1.1 no such user");
    assert!(recipient["final-recipient"].as_str().unwrap().ends_with("carol@world.test"));
    assert!(report["returned"].as_str().unwrap().contains("Subject: bounce"));
    site.wait_until_empty();
}

#[test]
fn notify_never_and_the_null_sender_are_never_reported_to() {
    let refuse = Act::Data("554 5.7.1 no");
    let peer = Peer::start(&[refuse.clone(), refuse.clone(), refuse]);
    let site = site(&peer, "");
    let posthouse = site.start();
    let mut client = submission(&posthouse);
    client.say("MAIL FROM:<alice@example.org> RET=HDRS ENVID=e1", 250);
    client.say("RCPT TO:<carol@world.test> NOTIFY=NEVER", 250);
    queued_id(&client.data(&message("alice@example.org", "carol@world.test", "never")));
    site.wait_until_empty();
    assert!(mail_of_alice(&site).is_empty());
    client.say("MAIL FROM:<alice@example.org> RET=HDRS ENVID=e2", 250);
    client.say("RCPT TO:<carol@world.test> NOTIFY=FAILURE ORCPT=rfc822;carol@old.test", 250);
    queued_id(&client.data(&message("alice@example.org", "carol@world.test", "failure")));
    let report = parse_report(&eventually("the report", || mail_of_alice(&site).pop()));
    assert_eq!(report["message"]["original-envelope-id"], "e2");
    assert_eq!(report["recipients"][0]["original-recipient"], "rfc822; carol@old.test");
    site.wait_until_empty();
}

#[test]
fn success_is_reported_where_it_was_asked_for_and_the_next_host_cannot() {
    let peer = Peer::start(&[]);
    let site = site(&peer, "");
    let posthouse = site.start();
    let mut client = submission(&posthouse);
    client.say("MAIL FROM:<alice@example.org>", 250);
    client.say("RCPT TO:<carol@world.test> NOTIFY=SUCCESS", 250);
    queued_id(&client.data(&message("alice@example.org", "carol@world.test", "success")));
    let report = parse_report(&eventually("the report", || mail_of_alice(&site).pop()));
    assert_eq!(report["recipients"][0]["action"], "relayed", "the peer offers no DSN");
    assert_eq!(peer.received().len(), 1);
    site.wait_until_empty();
}

#[test]
fn mail_goes_to_the_mx_of_its_domain() {
    let dns = FakeDns::start();
    let best = testkit::own_loopback_address();
    let worst = testkit::own_loopback_address();
    let peer = Peer::start_on(SocketAddr::from((best, 0)), &[]);
    let port = peer.address().port();
    dns.mx("world.test", 10, "a.world.test").mx("world.test", 20, "b.world.test");
    dns.host("a.world.test", best.into()).host("b.world.test", worst.into());
    // Nobody listens on the better of the two here: the next one is tried.
    dns.mx("second.test", 10, "b.world.test").mx("second.test", 20, "a.world.test");
    // No MX at all: the name's own address (RFC 5321 section 5.1).
    dns.host("plain.test", best.into());
    // RFC 7505.
    dns.mx("null.test", 0, ".");
    dns.host("metadata.test", Ipv4Addr::new(169, 254, 169, 254).into());
    dns.trouble("servfail.test", Trouble::ServFail);
    let text = [
        documents::platform(&format!("dns: {{ servers: [\"{}\"], cache: false }}\n", dns.address())),
        documents::listener_submission(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        // Loopback is refused unless written otherwise: the peers of this test are there.
        documents::transport(
            "mx",
            &format!("relay:\n  mx: {{ port: {port}, refuse: [169.254.0.0/16] }}\n{QUICK_RETRY}"),
        ),
    ];
    let site = Site::new().with("site.yaml", &text.concat());
    let posthouse = site.start();
    for domain in ["world.test", "second.test", "plain.test"] {
        submit(&posthouse, &[&format!("carol@{domain}")], domain);
    }
    let mut subjects: Vec<_> = peer.wait_for(3).iter().map(|message| message.recipients[0].clone()).collect();
    subjects.sort();
    let expected = ["TO:<carol@plain.test>", "TO:<carol@second.test>", "TO:<carol@world.test>"];
    assert_eq!(subjects, expected);
    for (domain, status) in [("null.test", "5.1.10"), ("nowhere.test", "5.1.2")] {
        let before = mail_of_alice(&site).len();
        submit(&posthouse, &[&format!("carol@{domain}")], domain);
        eventually("the report", || (mail_of_alice(&site).len() > before).then_some(()));
        let reports: Vec<_> = mail_of_alice(&site).iter().map(|text| parse_report(text)).collect();
        let about =
            |report: &&serde_json::Value| report["returned"].as_str().unwrap().contains(&format!("Subject: {domain}"));
        let report = reports.iter().find(about).expect("a report about it");
        assert_eq!(report["recipients"][0]["status"], status, "{domain}: {report}");
    }
    // A refused address is never connected to, and the sender hears of it.
    let before = mail_of_alice(&site).len();
    submit(&posthouse, &["carol@metadata.test"], "metadata.test");
    eventually("the report", || (mail_of_alice(&site).len() > before).then_some(()));
    site.wait_until_empty();
    // A name server in trouble says nothing about the domain: the mail waits.
    submit(&posthouse, &["carol@servfail.test"], "servfail.test");
    eventually("an attempt", || {
        (posthouse.metric("posthouse_deliveries_total", &["result=\"deferred\""]) >= 1.0).then_some(())
    });
    assert_eq!(site.queued().len(), 1);
}
