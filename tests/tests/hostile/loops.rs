//! S18: mail that goes round, grows, or bounces for ever.
//!
//! Auto-replies are not sent by the platform: two that answer each other end by their Received fields. The null MX and the
//! addresses that an MX may not have are met by real DNS answers.

use std::fmt::Write;
use std::net::Ipv4Addr;

use testkit::dns::FakeDns;
use testkit::eventually;

use crate::documents;
use crate::kit::{Raw, Script, Scripted, mail_of, relay_site, site};

#[test]
fn s18_fifty_received_fields_pass_and_one_more_is_a_loop() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let received = "Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n";
    for (fields, expected) in [(50, "250 2.0.0 queued"), (51, "554 5.4.6"), (500, "554 5.4.6")] {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.begin("carol@d.test", "alice@example.org");
        client.send(format!("{}Subject: s\r\n\r\nx\r\n.\r\n", received.repeat(fields)));
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{fields}: {reply}");
    }
}

#[test]
fn s18_mail_that_was_delivered_to_the_address_before_is_a_loop() {
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("local"));
    client.deliver(
        "bob@example.org",
        "alice@example.org",
        "Delivered-To: alice@example.org\r\nSubject: s\r\n\r\nx\r\n",
    );
    let report = eventually("the report", || mail_of(&site, "bob").pop());
    assert!(report.contains("5.4.6"), "{report}");
    assert!(mail_of(&site, "alice").is_empty());
    site.wait_until_empty();
}

/// Aliases in a table: a chain of `length` that ends at alice.
fn chain(name: &str, length: usize) -> String {
    let mut map = String::new();
    for n in 0..length {
        let next =
            if n + 1 == length { "alice@example.org".to_owned() } else { format!("{name}{}@example.org", n + 1) };
        let _ = writeln!(map, "  {name}{n}@example.org: {next}");
    }
    map
}

#[test]
fn s18_aliases_that_go_round_or_grow_are_bounded() {
    let mut map = String::from("map:\n");
    map += "  a@example.org: b@example.org\n  b@example.org: a@example.org\n";
    map += "  self@example.org: [self@example.org, b@example.org]\n";
    map += &chain("ten", 10);
    map += &chain("eleven", 11);
    map += &chain("many", 1000);
    let members =
        |from: usize, to: usize| (from..to).map(|n| format!("m{n}@world.test")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(map, "  wide@example.org: [{}]", members(0, 10_000));
    let _ = writeln!(map, "  list@example.org: [{}]", members(0, 999));
    // Lists of lists: 2^20 ways to the same member.
    for n in 0..9 {
        let _ = writeln!(map, "  tree{n}@example.org: [tree{0}@example.org, twin{0}@example.org]", n + 1);
        let _ = writeln!(map, "  twin{n}@example.org: [tree{0}@example.org, twin{0}@example.org]", n + 1);
    }
    map += "  tree9@example.org: alice@example.org\n  twin9@example.org: alice@example.org\n";
    let text = [
        documents::platform(""),
        documents::listener_mx("limits: { errorsMax: 100 }\n"),
        documents::domain("disk", "aliasTable: aliases\n"),
        documents::user("alice", ""),
        documents::user("bob", "forwards: [carol@example.org]\n"),
        documents::user("carol", "forwards: [bob@example.org]\n"),
        documents::document("MailTable", "aliases", &map),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
    ];
    let site = testkit::posthouse::Site::new().with("site.yaml", &text.concat());
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check("MAIL FROM:<c@d.test>", "250");
    for (recipient, expected) in [
        ("a", "554 5.4.6"),
        ("b", "554 5.4.6"),
        ("bob", "554 5.4.6"),
        ("ten0", "250"),
        ("eleven0", "554 5.4.6"),
        ("many0", "554 5.4.6"),
        ("wide", "554 5.4.6"),
        ("list", "250"),
        ("tree0", "250"),
    ] {
        client.check(&format!("RCPT TO:<{recipient}@example.org>"), expected);
    }
}

#[test]
fn s18_a_report_that_bounces_is_the_end_of_it() {
    let refuse = Script { rcpt: b"550 5.1.1 nobody".to_vec(), ..Script::default() };
    let peer = Scripted::start(refuse);
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("local"));
    // The message bounces, its report goes to the same peer and bounces too.
    client.deliver("carol@elsewhere.test", "dave@world.test", &crate::kit::text("storm"));
    // One that has no sender from the start.
    client.deliver("", "dave@world.test", &crate::kit::text("null"));
    eventually("both refusals and that of the report", || {
        (posthouse.metric("posthouse_deliveries_total", &["result=\"failed\""]) >= 3.0).then_some(())
    });
    site.wait_until_empty();
    assert_eq!(posthouse.metric("posthouse_deliveries_total", &["result=\"failed\""]), 3.0);
    let senders = peer.seen().concat();
    let senders = String::from_utf8_lossy(&senders).matches("MAIL FROM:<>").count();
    assert_eq!(senders, 2, "the report, and the message that had no sender");
    assert!(mail_of(&site, "alice").is_empty(), "nor is the postmaster's mailbox filled");
}

#[test]
fn s18_hosts_that_no_mail_can_go_to_are_never_connected_to() {
    let dns = FakeDns::start();
    let here = testkit::own_loopback_address();
    let peer = Scripted::start(Script::default());
    dns.mx("null.test", 0, ".");
    dns.mx("local.test", 10, "localhost").host("localhost", Ipv4Addr::LOCALHOST.into());
    dns.mx("me.test", 10, "mx.me.test").host("mx.me.test", here.into());
    dns.mx("us.test", 10, "mx.example.org").host("mx.example.org", Ipv4Addr::new(192, 0, 2, 25).into());
    for (name, address) in [
        ("ten.test", [10, 0, 0, 1]),
        ("metadata.test", [169, 254, 169, 254]),
        ("home.test", [192, 168, 1, 1]),
        ("zero.test", [0, 0, 0, 0]),
        ("shared.test", [100, 64, 0, 1]),
        ("multi.test", [224, 0, 0, 1]),
    ] {
        dns.mx(name, 10, &format!("mx.{name}")).host(&format!("mx.{name}"), Ipv4Addr::from(address).into());
    }
    dns.mx("mapped.test", 10, "mx.mapped.test").host("mx.mapped.test", "::ffff:127.0.0.1".parse().unwrap());
    dns.mx("six.test", 10, "mx.six.test").host("mx.six.test", "fd00::1".parse().unwrap());
    let rules = "rules:\n  - match: { source: local, not: { recipientDomain: example.org } }\n    action: { relay: {} }\n  - include: default\n";
    let mx = format!("relay:\n  mx: {{ port: {} }}\n{}", peer.address().port(), documents::QUICK_RETRY);
    let more = documents::listener_mx("loopbackIsLocal: true\n")
        + &documents::document("MailPolicy", "main", rules)
        + &documents::transport("mx", &mx);
    let site = site(&more, &format!("policyRef: main\ndns: {{ servers: [\"{}\"], cache: false }}\n", dns.address()));
    let posthouse = site.start();
    let cases = [
        ("null.test", "5.1.10"),
        ("local.test", "5.1.10"),
        ("me.test", "5.1.10"),
        ("us.test", "5.4.6"),
        ("ten.test", "5.4.4"),
        ("metadata.test", "5.4.4"),
        ("home.test", "5.4.4"),
        ("zero.test", "5.1.10"),
        ("shared.test", "5.4.4"),
        ("multi.test", "5.4.4"),
        ("mapped.test", "5.1.10"),
        ("six.test", "5.4.4"),
    ];
    let mut client = Raw::hello(posthouse.address("mx"));
    for (domain, _) in cases {
        client.deliver("alice@example.org", &format!("x@{domain}"), &crate::kit::text(domain));
    }
    eventually("a report for each", || (mail_of(&site, "alice").len() == cases.len()).then_some(()));
    let reports = mail_of(&site, "alice");
    for (domain, status) in cases {
        let report = reports.iter().find(|report| report.contains(&format!("x@{domain}"))).expect(domain);
        assert!(report.contains(&format!("Status: {status}")), "{domain} is {status}: {report}");
    }
    assert!(peer.seen().is_empty(), "nobody was connected to");
    site.wait_until_empty();
}
