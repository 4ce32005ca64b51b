//! Submission with TLS and a password, rules, the queue, real Dovecot by LMTP, read back over IMAP.

use testkit::dovecot::{Dovecot, Users};
use testkit::posthouse::{Posthouse, Site};
use testkit::smtp::{Client, queued_id};
use testkit::{eventually, imap};

use crate::documents::{self, HASH, PASSWORD, message};

/// A session on the submission listener: TLS, and logged in as alice.
pub fn submission(posthouse: &Posthouse) -> Client {
    let mut client = Client::connect(posthouse.address("submission"));
    client.say("EHLO client.test", 250);
    let (mut client, _) = client.start_tls("localhost");
    client.say("EHLO client.test", 250);
    let reply = client.auth_plain("alice@example.org", PASSWORD);
    assert_eq!(reply.code, 235, "{reply}");
    client
}

/// The one message that is in the INBOX.
#[track_caller]
fn one_message(dovecot: &Dovecot, user: &str) -> String {
    eventually(&format!("a message in the INBOX of {user}"), || {
        imap::inbox(dovecot.imap(), user, PASSWORD).into_iter().next()
    })
}

#[test]
fn submitted_mail_reaches_dovecot_which_logs_the_same_users_in() {
    let site = Site::new();
    let passwd = site.path().join("passwd");
    std::fs::write(&passwd, "").unwrap();
    let dovecot = Dovecot::start(&Users::File(&passwd));
    let platform = documents::platform(&format!("dovecot: {{ passwdFile: {} }}\n", passwd.display()));
    let text = [
        platform,
        documents::listener_mx(""),
        documents::listener_submission(),
        documents::domain("dovecot", ""),
        documents::user("alice", ""),
        documents::user("bob", "aliases: [info@example.org]\n"),
        documents::lmtp("dovecot", dovecot.lmtp()),
    ];
    let site = site.with("site.yaml", &text.concat());
    let posthouse = site.start();
    eventually("the passwd-file to hold bob", || {
        std::fs::read_to_string(&passwd).ok()?.contains("bob@example.org:").then_some(())
    });

    let mut client = submission(&posthouse);
    let text =
        "From: Alice <alice@example.org>\r\nTo: info@example.org\r\nSubject: hello\r\n\r\nHi.\r\n..dots\r\n.\r\n";
    let id = queued_id(&client.deliver("alice@example.org", &["info@example.org"], text));
    let found = one_message(&dovecot, "bob@example.org");
    assert!(found.contains(&id), "Received holds the id: {found}");
    assert!(found.contains("with ESMTPSA"), "Received says how it came: {found}");
    assert!(found.contains("TLSv1.3 TLS_"), "Received says by which TLS: {found}");
    assert!(found.contains("\r\nDate: "), "submission adds a Date: {found}");
    assert!(found.contains("\r\nMessage-ID: <"), "submission adds a Message-ID: {found}");
    assert!(found.starts_with("Return-Path: <alice@example.org>"), "{found}");
    assert!(found.ends_with("\r\n\r\nHi.\r\n..dots\r\n.\r\n"), "{found}");
}

#[test]
fn mail_from_elsewhere_reaches_dovecot_by_its_unix_socket() {
    let dovecot = Dovecot::start(&Users::Lines(&format!("alice@example.org:{{CRYPT}}{HASH}::::::\n")));
    let socket = documents::transport("dovecot", &format!("lmtp: {{ socket: {} }}\n", dovecot.lmtp_socket().display()));
    let site = Site::new().with("site.yaml", &(documents::base("dovecot") + &socket));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    let text = message("bob@elsewhere.test", "alice@example.org", "over-a-socket");
    queued_id(&client.deliver("bob@elsewhere.test", &["alice@example.org"], &text));
    assert!(one_message(&dovecot, "alice@example.org").contains("Subject: over-a-socket"));
}

#[test]
fn three_outcomes_of_one_lmtp_transaction_are_told_apart() {
    let users = format!(
        "alice@example.org:{{CRYPT}}{HASH}::::::\nbob@example.org:{{CRYPT}}{HASH}::::::\n\
         full@example.org:{{CRYPT}}{HASH}::::::userdb_quota_rule=*:bytes=10\n"
    );
    let dovecot = Dovecot::start(&Users::Lines(&users));
    let more = ["bob", "full", "ghost"].map(|name| documents::user(name, "")).concat();
    let text = documents::base("dovecot") + &more + &documents::lmtp("dovecot", dovecot.lmtp());
    let site = Site::new().with("site.yaml", &text);
    let posthouse = site.start();
    let mut client = submission(&posthouse);
    let text = message("alice@example.org", "bob@example.org", "three");
    let recipients = ["bob@example.org", "full@example.org", "ghost@example.org"];
    let id = queued_id(&client.deliver("alice@example.org", &recipients, &text));

    // 250: it is there, once.
    assert!(one_message(&dovecot, "bob@example.org").contains("Subject: three"));
    // 552 and 550: one report for both, as they failed in one attempt.
    let report = one_message(&dovecot, "alice@example.org");
    let fields = parse_report(&report);
    assert_eq!(fields["type"], "multipart/report; report-type=delivery-status");
    let mut failed: Vec<_> = fields["recipients"].as_array().unwrap().iter().map(recipient).collect();
    failed.sort_unstable();
    let expected = [
        ("full@example.org".to_owned(), "failed".to_owned(), "5.2.2".to_owned(), "552".to_owned()),
        ("ghost@example.org".to_owned(), "failed".to_owned(), "5.1.1".to_owned(), "550".to_owned()),
    ];
    assert_eq!(failed, expected);
    assert!(fields["returned"].as_str().unwrap().contains("Subject: three"), "{fields}");
    site.wait_until_empty();
    assert_eq!(imap::inbox(dovecot.imap(), "bob@example.org", PASSWORD).len(), 1);
    assert_eq!(
        imap::inbox(dovecot.imap(), "alice@example.org", PASSWORD).len(),
        1,
        "one report for the message and attempt"
    );
    assert!(report.contains(&id) || report.contains("three@client.test"), "the report names what it is about");
}

/// Recipient, action, status and the code of the diagnostic.
fn recipient(value: &serde_json::Value) -> (String, String, String, String) {
    let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let code = field("diagnostic-code").replace("smtp; ", "");
    (
        field("final-recipient").replace("rfc822; ", "").replace("rfc822;", ""),
        field("action"),
        field("status"),
        code.get(..3).unwrap_or_default().to_owned(),
    )
}

/// What Python's email package, a parser of somebody else, makes of a report.
pub fn parse_report(text: &str) -> serde_json::Value {
    const SCRIPT: &str = r#"
import sys, json, email, email.policy
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
assert not m.defects, m.defects
parts = list(m.iter_parts())
assert len(parts) == 3, parts
status = parts[1]
blocks = status.get_payload()
returned = parts[2]
returned = returned.get_payload()[0].as_string() if returned.get_content_type() == "message/rfc822" else returned.get_content()
if isinstance(returned, bytes): returned = returned.decode()
print(json.dumps({
  "type": m.get_content_type() + "; report-type=" + m["content-type"].params["report-type"],
  "from": str(m["from"]), "to": str(m["to"]), "auto": str(m["auto-submitted"]), "text": parts[0].get_content(),
  "message": {k.lower(): str(v) for k, v in blocks[0].items()},
  "recipients": [{k.lower(): str(v) for k, v in b.items()} for b in blocks[1:]],
  "returned": str(returned),
}))
"#;
    let mut child = std::process::Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the report does not parse:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}
