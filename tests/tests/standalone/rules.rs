//! Rules and the directory from YAML to where the mail arrives.

use testkit::eventually;
use testkit::peer::{Peer, Received};
use testkit::posthouse::{Posthouse, Site};
use testkit::smtp::{Client, Reply, queued_id};

use crate::documents::{self, QUICK_RETRY, message};
use crate::mailboxes::submission;

const RULES: &str = "rules:\n\
    \x20 - name: who says this is suspicious\n\
    \x20   match: { helo: '*.dialup.test' }\n\
    \x20   action: { tag: suspicious }\n\
    \x20 - name: suspicious mail from the world\n\
    \x20   match: { tagged: suspicious, not: { sender: { table: friends } } }\n\
    \x20   action: { reject: { code: 554, text: '5.7.1 not from there' } }\n\
    \x20 - name: the world comes back later\n\
    \x20   match: { tagged: from-world, sender: '*@later.test' }\n\
    \x20   action: { defer: { code: 451, text: '4.7.1 come back later' } }\n\
    \x20 - name: bounces have a mailbox of their own\n\
    \x20   match: { authenticated: any, recipientDomain: '*.lists.test' }\n\
    \x20   action: { rewriteSender: bounces@example.org }\n\
    \x20 - name: lists\n\
    \x20   match: { recipient: team@example.org }\n\
    \x20   action: { aliases: { table: lists } }\n\
    \x20 - include: default\n";

/// example.org (example.net is the same) without details, kept.test with them, and two hosts for the world.
fn site(world: &Peer, rest: &Peer, details: &Peer) -> Site {
    let hosts = format!("map: {{ world.test: \"{}\", '*': \"{}\" }}\n", world.address(), rest.address());
    let relay = format!("relay:\n  hostTable: hosts\n  tls: {{ mode: off }}\n{QUICK_RETRY}");
    let kept =
        "domain: kept.test\ndelivery: { transport: details }\nsubAddress: { delimiters: '+-', keepDetail: true }\n";
    let text = [
        documents::platform("policyRef: main\nrelayTransport: out\n"),
        documents::listener_mx("tags: [from-world]\n"),
        documents::listener_submission(),
        documents::domain("disk", "aliases: [example.net]\ncatchAll: alice@example.org\n"),
        documents::document("MailDomain", "kept-test", kept),
        documents::user("alice", ""),
        documents::user("bob", "forwards: [bob@world.test]\nkeepCopy: true\n"),
        documents::user("carol", "forwards: [carol@other.test]\n"),
        documents::document("MailUser", "dora", "address: dora@kept.test\n"),
        documents::transport("disk", "maildir: { path: mail/%u }\n"),
        documents::transport("details", &format!("lmtp: {{ address: \"{}\" }}\n{QUICK_RETRY}", details.address())),
        documents::transport("out", &relay),
        documents::document("MailTable", "hosts", &hosts),
        documents::document("MailTable", "friends", "list: ['*@friend.test']\n"),
        documents::document("MailTable", "lists", "map: { team@example.org: [alice, bob, eve@world.test] }\n"),
        documents::document("MailPolicy", "main", RULES),
    ];
    Site::new().with("site.yaml", &text.concat())
}

/// Who is written to at the peer, and by whom.
fn envelopes(received: &[Received]) -> Vec<(String, String)> {
    let path = |text: &str| text.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    let mut all: Vec<_> = received
        .iter()
        .flat_map(|message| message.recipients.iter().map(|recipient| (path(&message.mail), path(recipient))))
        .collect();
    all.sort_unstable();
    all
}

/// Waits until a mailbox holds exactly the messages with these subjects.
#[track_caller]
fn wait_for_mail(site: &Site, mailbox: &str, subjects: &[&str]) {
    let new = site.state().join("mail").join(mailbox).join("new");
    eventually(&format!("{subjects:?} for {mailbox}"), || {
        let texts: Vec<_> = std::fs::read_dir(&new)
            .ok()?
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        let holds = |subject: &&str| texts.iter().any(|text| text.contains(&format!("\nSubject: {subject}\n")));
        (texts.len() == subjects.len() && subjects.iter().all(holds)).then_some(())
    });
}

fn answer(posthouse: &Posthouse, helo: &str, sender: &str, recipient: &str) -> Reply {
    let mut client = Client::connect(posthouse.address("mx"));
    client.say(&format!("EHLO {helo}"), 250);
    client.say(&format!("MAIL FROM:<{sender}>"), 250);
    client.command(&format!("RCPT TO:<{recipient}>"))
}

#[test]
fn helo_tags_senders_and_tables_decide_as_the_policy_says() {
    let peers = [(); 3].map(|()| Peer::start(&[]));
    let site = site(&peers[0], &peers[1], &peers[2]);
    let posthouse = site.start();
    for (helo, sender, expected) in [
        ("mx.dialup.test", "x@evil.test", "554 5.7.1 not from there"),
        ("MX.Dialup.Test", "x@friend.test", "250 2.1.5 recipient ok"),
        ("mx.evil.test", "x@evil.test", "250 2.1.5 recipient ok"),
        ("mx.evil.test", "x@later.test", "451 4.7.1 come back later"),
        ("mx.evil.test", "", "250 2.1.5 recipient ok"),
    ] {
        let reply = answer(&posthouse, helo, sender, "alice@example.org");
        assert_eq!(reply.to_string(), expected, "{helo} {sender}");
    }
    // The same code tells why.
    let documents = site.documents();
    let arguments = [
        &["explain", documents.to_str().unwrap(), "--listener", "mx", "--client-ip", "192.0.2.1"][..],
        &["--helo", "mx.dialup.test", "--from", "x@evil.test", "--to", "alice@example.org"],
    ];
    let output = site.cli(&arguments.concat());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["who says this is suspicious", "tags [from-world, suspicious] hold", "554 5.7.1 not from there"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn catch_alls_domain_aliases_details_and_forwards_lead_where_they_say() {
    let (world, rest, details) = (Peer::start(&[]), Peer::start(&[]), Peer::start(&[]));
    let site = site(&world, &rest, &details);
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    let cases: [(&str, &[&str]); 8] = [
        ("alias", &["Alice@Example.NET"]),
        ("detail", &["alice+shop@example.org"]),
        ("nobody", &["whoever@example.net"]),
        ("copy", &["bob@example.org"]),
        ("moved", &["carol+x@example.net"]),
        ("kept", &["dora+a@kept.test"]),
        ("kept-too", &["dora-b@kept.test"]),
        // Alice twice, and once more by the list: one copy.
        ("list", &["team@example.org", "alice@example.org", "whoever@example.org"]),
    ];
    for (subject, recipients) in cases {
        let text = message("s@elsewhere.test", recipients[0], subject);
        queued_id(&client.deliver("s@elsewhere.test", recipients, &text));
    }
    wait_for_mail(&site, "alice@example.org", &["alias", "detail", "nobody", "list"]);
    wait_for_mail(&site, "bob@example.org", &["copy", "list"]);
    site.wait_until_empty();
    let from = |recipient: &str| ("s@elsewhere.test".to_owned(), recipient.to_owned());
    assert_eq!(
        envelopes(&world.received()),
        [from("bob@world.test"), from("bob@world.test"), from("eve@world.test")],
        "by the host table"
    );
    assert_eq!(envelopes(&rest.received()), [from("carol@other.test")], "by the host table's star");
    assert_eq!(envelopes(&details.received()), [from("dora+a@kept.test"), from("dora-b@kept.test")]);
    assert!(!site.state().join("mail/carol@example.org").exists(), "keepCopy is off by default");
}

#[test]
fn a_sender_is_rewritten_for_those_recipients_that_the_rule_names() {
    let (world, rest, details) = (Peer::start(&[]), Peer::start(&[]), Peer::start(&[]));
    let site = site(&world, &rest, &details);
    let posthouse = site.start();
    let text = message("alice@example.org", "all@a.lists.test", "rewritten");
    let recipients = ["all@a.lists.test", "eve@world.test"];
    queued_id(&submission(&posthouse).deliver("alice@example.org", &recipients, &text));
    let pair = |sender: &str, recipient: &str| (sender.to_owned(), recipient.to_owned());
    assert_eq!(envelopes(&rest.wait_for(1)), [pair("bounces@example.org", "all@a.lists.test")]);
    assert_eq!(envelopes(&world.wait_for(1)), [pair("alice@example.org", "eve@world.test")]);
}
