//! Sessions on the wire: what is offered, limits, line ends, LMTP, IPv6.

use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};

const DISK: &str = "maildir: { path: mail/%n }\n";

fn site(listener: &str) -> Site {
    let text = [
        documents::platform(""),
        listener.to_owned(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::user("bob", ""),
        documents::transport("disk", DISK),
    ];
    Site::new().with("site.yaml", &text.concat())
}

#[test]
fn the_extensions_are_offered_and_used() {
    let site = site(&documents::listener_mx(""));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    let hello = client.say("EHLO elsewhere.test", 250).text();
    for extension in
        ["PIPELINING", "SIZE ", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN", "STARTTLS", "LIMITS "]
    {
        assert!(hello.lines().any(|line| line.starts_with(extension)), "{extension}: {hello}");
    }
    assert!(!hello.contains("AUTH"), "no AUTH where none is configured: {hello}");
    // A whole transaction in one segment up to DATA, then a second one by BDAT.
    client.send("MAIL FROM:<b@elsewhere.test> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org> NOTIFY=NEVER\r\nDATA\r\n");
    for code in [250, 250, 250, 354] {
        client.expect(code);
    }
    client.send("Subject: pipelined\r\n\r\n\u{fc}\r\n.\r\n");
    queued_id(&client.expect(250));
    client.send("MAIL FROM:<b@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\nBDAT 10\r\nSubject: cBDAT 16 LAST\r\nhunked\r\n\r\n.\r\n.\r\n");
    for code in [250, 250, 250] {
        client.expect(code);
    }
    queued_id(&client.expect(250));
    let new = site.state().join("mail/alice/new");
    let texts = testkit::eventually("both messages", || {
        let texts: Vec<_> = std::fs::read_dir(&new)
            .ok()?
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        (texts.len() == 2).then_some(texts)
    });
    assert!(texts.iter().any(|text| text.contains("Subject: chunked\n\n.\n.")), "{texts:?}");
}

#[test]
fn a_message_with_bare_line_ends_is_refused_or_mended_as_the_listener_says() {
    let strict = documents::listener_mx("");
    let lenient = documents::listener_mx("lineEnds: normalise\n").replace("name: mx", "name: lenient");
    let site = site(&(strict + &lenient));
    let posthouse = site.start();
    let smuggled = "Subject: one\r\n\r\ntext\n.\r\nMAIL FROM:<x@evil.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: two\r\n\r\nsmuggled\r\n.\r\n";
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<b@elsewhere.test>", 250);
    client.say("RCPT TO:<alice@example.org>", 250);
    client.say("DATA", 354);
    client.send(smuggled);
    assert!(client.expect(550).text().starts_with("5.5.2"));
    client.say("NOOP", 250);

    let mut client = Client::connect(posthouse.address("lenient"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<b@elsewhere.test>", 250);
    client.say("RCPT TO:<alice@example.org>", 250);
    client.say("DATA", 354);
    client.send(smuggled);
    queued_id(&client.expect(250));
    client.say("NOOP", 250);
    assert_eq!(posthouse.metric("posthouse_messages_total", &["result=\"accepted\""]), 1.0, "one message, never two");
}

#[test]
fn a_client_that_pipelines_behind_starttls_gains_nothing() {
    let site = site(&documents::listener_mx(""));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.send("STARTTLS\r\nMAIL FROM:<b@elsewhere.test>\r\n");
    let reply = client.read().expect("an answer");
    assert!(matches!(reply.code, 554 | 503 | 501), "{reply}");
}

#[test]
fn nobody_logs_in_without_tls_and_implicit_tls_begins_at_the_first_byte() {
    let text = [
        documents::listener_mx("auth: { optional: true }\n"),
        documents::listener_submission(),
        documents::listener_submission().replace("name: submission", "name: tls").replace("required,", "implicit,"),
    ];
    let site = site(&text.concat());
    let posthouse = site.start();
    // alice@example.org with the right password.
    let auth = "AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAGNoYW5nZS1tZQ==";
    for (listener, code, start) in [("mx", 538, "5.7.11"), ("submission", 530, "5.7.0")] {
        let mut client = Client::connect(posthouse.address(listener));
        let hello = client.say("EHLO client.test", 250).text();
        assert!(hello.contains("STARTTLS") && !hello.contains("AUTH"), "{listener}: {hello}");
        let reply = client.say(auth, code);
        assert!(reply.text().starts_with(start), "{listener}: {reply}");
        client.say("AUTH LOGIN", code);
        let (mut client, _) = client.start_tls("localhost");
        let hello = client.say("EHLO client.test", 250).text();
        assert!(!hello.contains("STARTTLS") && hello.contains("AUTH PLAIN LOGIN"), "{listener}: {hello}");
        client.say(auth, 235);
    }
    let mut client = Client::connect_tls(posthouse.address("tls"));
    let hello = client.say("EHLO client.test", 250).text();
    assert!(!hello.contains("STARTTLS") && hello.contains("AUTH PLAIN LOGIN"), "{hello}");
    client.say("STARTTLS", 503);
    client.say("MAIL FROM:<alice@example.org>", 530);
    client.say(auth, 235);
    let text = message("alice@example.org", "bob@example.org", "implicit");
    queued_id(&client.deliver("alice@example.org", &["bob@example.org"], &text));
}

#[test]
fn limits_are_kept_and_the_session_lives_on_where_it_may() {
    let limits = "limits: { messageMax: 10Ki, recipientsMax: 2, headerMax: 2Ki, receivedFieldsMax: 3, sessionsPerSourceMax: 2, errorsMax: 3 }\n";
    let site = site(&documents::listener_mx(limits));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<b@elsewhere.test> SIZE=20000", 552);
    client.say("MAIL FROM:<b@elsewhere.test>", 250);
    client.say("RCPT TO:<alice@example.org>", 250);
    client.say("RCPT TO:<bob@example.org>", 250);
    client.say("RCPT TO:<postmaster@example.org>", 452);
    assert_eq!(client.data(&format!("Subject: large\r\n\r\n{}", "x\r\n".repeat(5000))).code, 552);
    drop(client);
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    let looping = "Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n".repeat(4);
    let reply =
        client.deliver("b@elsewhere.test", &["alice@example.org"], &format!("{looping}Subject: loop\r\n\r\nx\r\n"));
    assert!(reply.code == 554 && reply.text().starts_with("5.4.6"), "{reply}");
    let header = format!("X: {}\r\n", "y".repeat(500)).repeat(10);
    let reply = client.deliver("b@elsewhere.test", &["alice@example.org"], &format!("{header}\r\nx\r\n"));
    assert!(matches!(reply.code, 552 | 554), "{reply}");
    // A third session of this source, while two are there.
    let _second = Client::connect(posthouse.address("mx"));
    let mut third = Client::connect_silently(posthouse.address("mx"));
    third.expect(421);
    // Nonsense has an end.
    let mut codes = Vec::new();
    while codes.last() != Some(&421) {
        codes.push(client.command("NONSENSE").code);
    }
    assert!(codes.len() <= 3 && client.read().is_none(), "{codes:?}");
}

#[test]
fn lmtp_answers_each_recipient_and_ipv6_is_served() {
    let listener = "protocol: lmtp\naddress: \"::1\"\nport: 0\n";
    let site = site(&documents::document("MailListener", "local", listener));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("local"));
    client.say("EHLO elsewhere.test", 500);
    client.say("LHLO elsewhere.test", 250);
    client.say("MAIL FROM:<b@elsewhere.test>", 250);
    client.say("RCPT TO:<alice@example.org>", 250);
    client.say("RCPT TO:<nobody@example.org>", 550);
    client.say("RCPT TO:<bob@example.org>", 250);
    let first = client.data(&message("b@elsewhere.test", "alice@example.org", "lmtp"));
    let second = client.expect(250);
    assert_eq!(first.code, 250, "{first}");
    assert!(second.text().contains("queued as"), "{second}");
}

#[test]
fn what_is_not_smtp_is_closed() {
    let site = site(&documents::listener_mx(""));
    let posthouse = site.start();
    for first in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "CONNECT example.org:25 HTTP/1.1\r\n"] {
        let mut client = Client::connect(posthouse.address("mx"));
        client.send(first);
        while let Some(reply) = client.read() {
            assert!(reply.code >= 400, "{first}: {reply}");
        }
    }
    let mut early = Client::connect_silently(posthouse.address("mx"));
    early.send("EHLO elsewhere.test\r\n");
    let reply = early.read();
    // It may be fast enough to be greeted: then its EHLO was behind the greeting.
    assert!(reply.is_none_or(|reply| matches!(reply.code, 220 | 554 | 503 | 421)));
}

#[test]
fn an_idle_session_costs_at_most_16_kib_and_40_kib_with_tls() {
    const WARM_UP: usize = 50;
    const SESSIONS: usize = 400;
    let limits = "limits: { sessionsPerSourceMax: 2000 }\n";
    let site = site(&documents::listener_mx(limits));
    let posthouse = site.start();
    let address = posthouse.address("mx");
    let rss_kib = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", posthouse.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let idle = |tls: bool| {
        let mut client = Client::connect(address);
        client.say("EHLO elsewhere.test", 250);
        if tls {
            client = client.start_tls("localhost").0;
            client.say("EHLO elsewhere.test", 250);
        }
        client
    };
    for (tls, kib_max) in [(false, 16), (true, 40)] {
        // What is paid once (allocator, TLS tables, metrics) is not a session's.
        let _warm: Vec<_> = (0..WARM_UP).map(|_| idle(tls)).collect();
        let before = rss_kib();
        let _idle: Vec<_> = (0..SESSIONS).map(|_| idle(tls)).collect();
        let each = rss_kib().saturating_sub(before) / SESSIONS;
        println!("an idle session, TLS {tls}: {each} KiB");
        assert!(each <= kib_max, "{each} KiB a session, TLS: {tls}");
    }
}
