//! Who may not relay, and who may not pretend (hostile-input S14, S16).

use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};
use crate::mailboxes::submission;

fn site() -> Site {
    let text = [
        documents::base("disk"),
        documents::user("bob", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
    ];
    Site::new().with("site.yaml", &text.concat())
}

#[test]
fn nobody_relays_without_leave_however_the_address_is_written() {
    let site = site();
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<bob@elsewhere.test>", 250);
    let cases: &[(&str, &[u16])] = &[
        ("carol@world.test", &[550]),
        ("alice%world.test@example.org", &[550]),
        ("\"carol@world.test\"@example.org", &[550]),
        ("@example.org:carol@world.test", &[550]),
        ("@world.test:alice@elsewhere.test", &[550]),
        ("world.test!carol@example.org", &[550]),
        ("carol@[127.0.0.1]", &[550]),
        ("carol@[IPv6:::1]", &[550]),
        ("alice@example.org@world.test", &[501, 553]),
        ("alice@example.org.", &[501, 553]),
        ("alice@", &[501, 553]),
        ("carol@localhost", &[550]),
        ("alice@sub.example.org", &[550]),
        ("nobody@example.org", &[550]),
        ("<carol@world.test>", &[501, 553]),
        ("carol", &[501, 550, 553]),
    ];
    for (recipient, codes) in cases {
        // Errors are counted; this is about each probe alone.
        let reply = client.command(&format!("RCPT TO:<{recipient}>"));
        assert!(codes.contains(&reply.code), "{recipient}: {reply}");
    }
    // What is ours is taken in any case and spelling (RFC 5321 sections 2.4 and 4.5.1).
    for recipient in [
        "Alice@EXAMPLE.org",
        "postmaster",
        "Postmaster@example.org",
        "abuse@example.org",
        "@relay.test:alice@example.org",
    ] {
        client.say(&format!("RCPT TO:<{recipient}>"), 250);
    }
}

#[test]
fn a_session_from_loopback_is_not_local_unless_the_listener_says_so() {
    let site = Site::new();
    let text = [
        documents::base("disk"),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::listener_mx("loopbackIsLocal: true\n").replace("name: mx", "name: trusting"),
    ];
    let site = site.with("site.yaml", &text.concat());
    let posthouse = site.start();
    for (listener, code) in [("mx", 550), ("trusting", 250)] {
        let mut client = Client::connect(posthouse.address(listener));
        client.say("EHLO elsewhere.test", 250);
        client.say("MAIL FROM:<alice@example.org>", 250);
        client.say("RCPT TO:<carol@world.test>", code);
    }
}

#[test]
fn a_user_sends_only_as_the_addresses_that_are_theirs() {
    let site = site();
    let posthouse = site.start();
    let mut client = submission(&posthouse);
    client.say("MAIL FROM:<bob@example.org>", 250);
    let reply = client.command("RCPT TO:<bob@example.org>");
    assert!(matches!(reply.code, 550 | 553), "somebody else's envelope sender: {reply}");
    client.say("RSET", 250);
    let refused = client.deliver(
        "alice@example.org",
        &["bob@example.org"],
        &message("Bob <bob@example.org>", "bob@example.org", "forged"),
    );
    assert_eq!(refused.code, 550, "somebody else's From: {refused}");
    queued_id(&client.deliver(
        "alice@example.org",
        &["bob@example.org"],
        &message("alice@example.org", "bob@example.org", "own"),
    ));
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer_and_no_mail_is_taken() {
    let site = site();
    let posthouse = site.start();
    let mut texts = Vec::new();
    for (user, password) in
        [("alice@example.org", "wrong"), ("nobody@example.org", "wrong"), ("alice@world.test", "change-me")]
    {
        let mut client = Client::connect(posthouse.address("submission"));
        client.say("EHLO client.test", 250);
        client.say("AUTH PLAIN AGEAYg==", 530);
        let (mut client, _) = client.start_tls("localhost");
        client.say("EHLO client.test", 250);
        client.say("MAIL FROM:<alice@example.org>", 530);
        let reply = client.auth_plain(user, password);
        assert_eq!(reply.code, 535, "{reply}");
        texts.push(reply.text());
        client.say("MAIL FROM:<alice@example.org>", 530);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for every failure: {texts:?}");
}
