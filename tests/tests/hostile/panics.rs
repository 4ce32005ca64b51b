//! A panic ends the work that it struck, and nothing else: it is counted, and logged once with the id of its message.

use testkit::posthouse::Posthouse;
use testkit::{eventually, smtp};

use crate::documents;
use crate::kit::{Raw, accepted, mail_of, site, text};

fn panics(posthouse: &Posthouse) -> usize {
    posthouse.metric("posthouse_task_panics_total", &[]) as usize
}

/// Lines of the log about a panic.
fn logged(posthouse: &Posthouse) -> Vec<String> {
    posthouse.log().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
}

#[test]
fn s27_a_panic_in_a_session_ends_that_session_only_and_names_its_message() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.spawn_with(&[("POSTHOUSE_FAULT", "ingress.session=panic@2")]);
    posthouse.wait_ready();
    let address = posthouse.address("mx");
    let mut other = Raw::hello(address);
    let first = other.deliver("carol@d.test", "alice@example.org", &text("first"));
    // Half way through a transaction while the other one breaks off.
    other.check("MAIL FROM:<carol@d.test>", "250");
    let mut struck = Raw::hello(address);
    struck.begin("carol@d.test", "alice@example.org");
    struck.send(smtp::dot_stuffed(&text("struck")));
    struck.expect("421 4.3.0");
    struck.expect("closed");
    other.check("RCPT TO:<alice@example.org>", "250");
    other.check("DATA", "354");
    other.send(smtp::dot_stuffed(&text("second")));
    other.expect("250 2.0.0 queued");
    // As a client does that was told 421.
    let again = Raw::hello(address).deliver("carol@d.test", "alice@example.org", &text("struck"));
    eventually("three messages", || (mail_of(&site, "alice").len() == 3).then_some(()));
    assert_eq!((panics(&posthouse), accepted(&posthouse)), (1, 3));
    let lines = logged(&posthouse);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((line["listener"].as_str(), line["what"].as_str()), (Some("mx"), Some("asked for at ingress.session")));
    assert!(line["session"].is_u64() && line["location"].is_string(), "{line}");
    let id = line["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), first.len(), "a message id: {line}");
    assert!(id != first && id != again, "the message that was struck was never accepted");
    assert_eq!(posthouse.metric("posthouse_sessions", &["mx"]), 1.0, "the session is not counted any more");
}

#[test]
fn s27_a_panic_in_a_delivery_gives_the_message_back_and_it_arrives_later() {
    let quick = format!("maildir: {{ path: mail/%n }}\n{}", documents::QUICK_RETRY);
    let text_of_site = [
        documents::platform(""),
        documents::listener_mx(""),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", &quick),
    ];
    let site = testkit::posthouse::Site::new().with("site.yaml", &text_of_site.concat());
    let posthouse = site.spawn_with(&[("POSTHOUSE_FAULT", "delivery.attempt=panic@1")]);
    posthouse.wait_ready();
    let mut client = Raw::hello(posthouse.address("mx"));
    let id = client.deliver("carol@d.test", "alice@example.org", &text("struck"));
    client.deliver("carol@d.test", "alice@example.org", &text("after"));
    eventually("both", || (mail_of(&site, "alice").len() == 2).then_some(()));
    site.wait_until_empty();
    assert_eq!(panics(&posthouse), 1);
    let lines = logged(&posthouse);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains(&id) && lines[0].contains("asked for at delivery.attempt"), "{}", lines[0]);
}
