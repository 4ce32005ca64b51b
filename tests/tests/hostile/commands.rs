//! S3, S8, S9, S10, S11, S22: commands that ask for too much, in the wrong order, or for something else than they seem to.
//!
//! S8: there are no PTR look-ups and no line protocols between the services. S11: a subject or display name by HTTP does not apply yet.

use testkit::eventually;

use crate::documents;
use crate::kit::{Raw, Script, Scripted, accepted, mail_of, relay_site, rss_kib, site, still_works};

const BEGIN: [(&str, &str); 3] =
    [("EHLO c.test", "250"), ("MAIL FROM:<c@d.test>", "250"), ("RCPT TO:<alice@example.org>", "250")];

#[test]
fn s3_bdat_counts_octets_and_never_hangs() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let cases: &[(&str, &[&str])] = &[
        // A dot line inside is text.
        ("BDAT 5 LAST\r\n\r\n.\r\nNOOP\r\n", &["250 2.0.0 queued", "250 2.0.0 ok"]),
        // Fewer octets announced than sent: the rest are commands, and those are none.
        ("BDAT 3 LAST\r\na\r\nbc\r\nNOOP\r\n", &["250 2.0.0 queued", "500 5.5.1", "250 2.0.0 ok"]),
        // More announced than meant: what follows is text.
        ("BDAT 9 LAST\r\na\r\nQUIT\r\nNOOP\r\n", &["250 2.0.0 queued", "250 2.0.0 ok"]),
        ("BDAT -1\r\n", &["501 5.5.4", "closed"]),
        ("BDAT 9223372036854775808\r\n", &["501 5.5.4", "closed"]),
        ("BDAT 99999999999999999999999 LAST\r\n", &["501 5.5.4", "closed"]),
        ("BDAT x\r\n", &["501 5.5.4", "closed"]),
        ("BDAT\r\n", &["501 5.5.4", "closed"]),
        // Nobody sends as much; the size limit speaks when it is reached, and nothing is set aside for it.
        ("BDAT 3\r\na\r\nDATA\r\n", &["250 2.0.0 3 octets", "503 5.5.1"]),
        (
            "BDAT 3\r\na\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
            &["250 2.0.0 3 octets", "250", "503 5.5.1", "250 2.0.0 ok"],
        ),
        ("BDAT 3 LAST\r\na\nbNOOP\r\n", &["550 5.5.2", "250 2.0.0 ok"]),
    ];
    for (sent, replies) in cases {
        let mut client = Raw::greeted(posthouse.address("mx"));
        for (line, expected) in BEGIN {
            client.check(line, expected);
        }
        client.send(sent);
        for expected in *replies {
            let reply = client.reply();
            assert!(reply.starts_with(expected), "{sent:?}: {reply}, not {expected}");
        }
    }
    // Out of place: 503, and its octets are never commands.
    for begun in 0..2 {
        let mut client = Raw::greeted(posthouse.address("mx"));
        for (line, expected) in &BEGIN[..begun] {
            client.check(line, expected);
        }
        client.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
        client.expect("503 5.5.1");
        client.expect("250 2.0.0 ok");
    }
    assert_eq!(accepted(&posthouse), 3);
    still_works(&site, &posthouse, "mx", "after-bdat");
}

fn open_auth() -> String {
    documents::listener_mx("auth: { optional: true, allowWithoutTls: true }\n")
}

#[test]
fn s8_no_line_break_and_no_separator_gets_into_a_name() {
    let site = site(&open_auth(), "");
    let posthouse = site.start();
    // NUL a LF b NUL secret; for LOGIN a LF b.
    for line in ["AUTH PLAIN AGEKYgBzZWNyZXQ=", "AUTH PLAIN AGENCmIAc2VjcmV0", "AUTH LOGIN YQpi"] {
        Raw::hello(posthouse.address("mx")).check(line, "501 5.5.2");
    }
    for line in ["EHLO a|b", "HELO a|b", "EHLO a\\nb", "EHLO a;b", "EHLO a b"] {
        Raw::greeted(posthouse.address("mx")).check(line, "501 5.5.4");
    }
    let mut client = Raw::greeted(posthouse.address("mx"));
    client.send("EHLO a\nb\r\nNOOP\r\n");
    client.expect("500 5.5.2");
    client.expect("500 5.5.1");
    client.expect("250 2.0.0 ok");
}

#[test]
fn s9_what_looks_like_an_expression_is_a_name() {
    let denied = documents::document(
        "MailTable",
        "denied",
        "sqlite:\n  path: ../denied.sqlite\n  query: \"SELECT 1 FROM denied WHERE address = '%u'\"\n",
    );
    let rules = "rules:\n\
         \x20 - match: { sender: { table: denied } }\n\
         \x20   action: { reject: { text: \"5.7.1 listed\" } }\n\
         \x20 - include: default\n";
    let more = documents::listener_mx("") + &denied + &documents::document("MailPolicy", "main", rules);
    let site = site(&more, "policyRef: main\n");
    let path = site.path().join("denied.sqlite");
    let sql = "create table denied (address text primary key); insert into denied values ('spam@evil.test')";
    assert!(std::process::Command::new("sqlite3").arg(&path).arg(sql).status().unwrap().success());
    let posthouse = site.start();
    let senders = [
        ("spam@evil.test", "550 5.7.1 listed"),
        ("\"'||(select 1)--\"@x.test", "250"),
        ("\"' or '1'='1\"@x.test", "250"),
        ("x'or'1'='1@x.test", "250"),
        ("\"'; drop table denied; --\"@x.test", "250"),
        ("${run{/bin/id}}@x.test", "250"),
    ];
    for (sender, expected) in senders.into_iter().chain([senders[0]]) {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check(&format!("MAIL FROM:<{sender}>"), "250");
        client.check("RCPT TO:<alice@example.org>", expected);
    }
    let mut client = Raw::hello(posthouse.address("mx"));
    // As the case has it, without quotes: no address at all.
    client.check("MAIL FROM:<'||(select 1)--@x>", "553 5.1.7");
    client.check("MAIL FROM:<c@d.test>", "250");
    client.check("RCPT TO:<${run{/bin/id}}@localhost>", "550 5.7.1");
    client.check("RCPT TO:<${run{/bin/id}}@example.org>", "550 5.1.1");
    client.check("RCPT TO:<{{request.user}}@example.org>", "550 5.1.1");
    client.check("RCPT TO:<%u@example.org>", "550");
}

#[test]
fn s10_decoders_are_bounded_in_what_they_take_and_keep() {
    let site = site(&open_auth(), "");
    let posthouse = site.start();
    let cases: &[(&str, &[&str])] = &[
        ("AUTH PLAIN AGEAc2Vjc\r\n", &["501 5.5.2"]),
        ("AUTH PLAIN AGEAc2VjcmV\r\n", &["501 5.5.2"]),
        ("AUTH PLAIN\r\n", &["334"]),
        ("MAIL FROM:<a@b> AUTH=\"\r\n", &["501 5.5.4"]),
        ("MAIL FROM:<a@b> AUTH=+\r\n", &["501 5.5.4"]),
        ("MAIL FROM:<a@b> AUTH=+4\r\n", &["501 5.5.4"]),
        ("MAIL FROM:<a@b> SIZE=99999999999999999999999\r\n", &["501 5.5.4"]),
    ];
    for (sent, replies) in cases {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.send(sent);
        for expected in *replies {
            let reply = client.reply();
            assert!(reply.starts_with(expected), "{sent:?}: {reply}");
        }
    }
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check("AUTH PLAIN", "334");
    client.check("AGEAc2Vjc", "501 5.5.2");
    // Lines of 100 KB, and one of 64 MB: nothing of them is kept.
    let before = rss_kib(&posthouse);
    for line in ["EHLO ", "MAIL FROM:<", "AUTH PLAIN ", ""] {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.send(format!("{line}{}\r\nNOOP\r\n", "x".repeat(100_000)));
        client.expect("500 5.5.2");
        client.expect("250 2.0.0 ok");
    }
    let mut client = Raw::hello(posthouse.address("mx"));
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        assert!(client.send(&megabyte));
    }
    client.send("\r\nNOOP\r\n");
    client.expect("500 5.5.2");
    client.expect("250 2.0.0 ok");
    let grown = rss_kib(&posthouse).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB for lines that are refused");
}

#[test]
fn s11_no_header_line_is_made_by_a_client_or_a_remote_server() {
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let refused = [
        ("MAIL FROM:<c@d.test> ENVID=x+0D+0ABcc:+20e@f.test", "501 5.5.4"),
        ("MAIL FROM:<c@d.test> ENVID=x\rBcc:", "500 5.5.2"),
        ("MAIL FROM:<\"c\nBcc: e@f.test\"@d.test>", "500 5.5.2"),
        ("EHLO a[b\x0bc", "500 5.5.2"),
    ];
    for (line, expected) in refused {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check(line, expected);
    }
    let mut client = Raw::hello(posthouse.address("local"));
    client.check("MAIL FROM:<alice@example.org>", "250");
    for orcpt in ["rfc822;+0D+0ABcc:", "rfc822;a+0Ab", "x+0Ay;z", "rfc822;a+00b"] {
        client.check(&format!("RCPT TO:<dave@world.test> ORCPT={orcpt}"), "501 5.5.4");
    }
    // A display name on sendmail's command line.
    let state = site.state();
    let state = state.to_str().unwrap();
    let input = b"Subject: named\n\nx\n";
    let named = "Eve\r\nBcc: mallory@evil.test\r\nX-Made: yes";
    let sent = site.cli_with_input(&["sendmail", "--state", state, "-F", named, "alice@example.org"], input);
    if sent.status.success() {
        let found = eventually("the named mail", || mail_of(&site, "alice").pop());
        let head = found.split("\n\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc:") || line.starts_with("X-Made:")), "{head}");
    }
    // What a remote server says goes into a report: no line of it is a header field of its own, none is too long.
    let long = "y".repeat(1500);
    let evil = format!(
        "550-5.1.1 no\x0bBcc: mallory@evil.test\x1b[2J\r\n550-5.1.1 {long}\r\n550 5.1.1 X-Made: yes\rX-Too: yes"
    );
    peer.play(Script { rcpt: evil.into_bytes(), ..Script::default() });
    client.check("RCPT TO:<dave@world.test> ORCPT=rfc822;dave+2B@world.test", "250");
    client.check("DATA", "354");
    client.send("From: <alice@example.org>\r\nSubject: evil\r\n\r\nx\r\n.\r\n");
    client.expect("250 2.0.0 queued");
    let report =
        eventually("the report", || mail_of(&site, "alice").into_iter().find(|text| text.contains("delivery-status")));
    for line in report.lines() {
        assert!(line.len() <= 998, "{} octets: {line:.200}", line.len());
        assert!(line.bytes().all(|byte| byte >= b' ' || byte == b'\t'), "{line:?}");
        assert!(!line.starts_with("Bcc:") && !line.starts_with("X-Made") && !line.starts_with("X-Too"), "{line}");
    }
}

#[test]
fn s22_a_group_of_commands_ends_where_it_must() {
    let site = site(&open_auth(), "");
    let posthouse = site.start();
    let cases: &[(&str, &[&str])] = &[
        (
            "MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\n",
            &["250", "250", "503 5.5.0", "closed"],
        ),
        ("AUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@b.test>\r\n", &["503 5.5.0", "closed"]),
        ("AUTH LOGIN\r\nYQ==\r\n", &["503 5.5.0", "closed"]),
        ("STARTTLS\r\nMAIL FROM:<a@b.test>\r\n", &["554 5.5.1", "closed"]),
        ("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n", &["503 5.5.0", "closed"]),
        ("NOOP\r\nMAIL FROM:<a@b.test>\r\n", &["503 5.5.0", "closed"]),
        ("DATA\r\nNOOP\r\n", &["503 5.5.0", "closed"]),
        ("QUIT\r\nMAIL FROM:<a@b.test>\r\n", &["221", "closed"]),
    ];
    for (sent, replies) in cases {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.send(sent);
        for expected in *replies {
            let reply = client.reply();
            assert!(reply.starts_with(expected), "{sent:?}: {reply}, not {expected}");
        }
    }
    // Nothing was offered to whoever said HELO.
    let mut client = Raw::greeted(posthouse.address("mx"));
    client.check("HELO c.test", "250");
    client.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.org>\r\n");
    client.expect("503 5.5.0");
    client.expect("closed");
    assert_eq!(accepted(&posthouse), 0);
}
