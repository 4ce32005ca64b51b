//! S6, S14, S15, S23: addresses that are commands, routes, or too long; and who is told of it.

use crate::documents;
use crate::kit::{Raw, Script, Scripted, accepted, mail_of, relay_site, site, still_works};

#[test]
fn s6_no_address_is_a_command_of_a_shell() {
    let site = site(&documents::listener_mx("limits: { errorsMax: 1000 }\n"), "");
    let posthouse = site.start();
    let marks = site.path().join("marks");
    let mut client = Raw::hello(posthouse.address("mx"));
    let touch = format!("touch {}", marks.display());
    let paths = [
        "<;sleep 66;>".to_owned(),
        "<`id`@x>".to_owned(),
        "<$(id)@x>".to_owned(),
        "<|cmd@x>".to_owned(),
        "<|cmd>".to_owned(),
        "<;id;@x>".to_owned(),
        "<a@x;id>".to_owned(),
        "<a@$(id)>".to_owned(),
        "<a@`id`>".to_owned(),
        "<\"|cmd\"@x>".to_owned(),
        "<\"`id`\"@x>".to_owned(),
        "<\"$(id)\"@x>".to_owned(),
        "<\"a$(id)\"@example.org>".to_owned(),
        "<@a,@b:|cmd@x>".to_owned(),
        format!("<\"|{touch}\"@example.org>"),
        format!("<\"`{touch}`\"@example.org>"),
    ];
    for path in &paths {
        client.check(&format!("MAIL FROM:{path}"), "553 5.1.7");
    }
    // A sender that is taken is not made valid by what is filled in for it.
    client.check("MAIL FROM:<>", "250");
    for path in &paths {
        client.check(&format!("RCPT TO:{path}"), "553 5.1.3");
    }
    assert!(!marks.exists());
    assert_eq!(accepted(&posthouse), 0);
}

#[test]
fn s6_what_is_left_of_an_odd_address_reaches_a_program_as_one_argument() {
    let out = tempfile();
    let program = format!("program:\n  argv: [/usr/bin/tee, \"{out}/%n\"]\n  timeout: 10s\n{}", documents::QUICK_RETRY);
    let text = [
        documents::platform(""),
        documents::listener_mx(""),
        documents::domain("tee", "catchAll: alice@example.org\nsubAddress: { delimiters: \"+\", keepDetail: true }\n"),
        documents::user("alice", ""),
        documents::transport("tee", &program),
    ];
    let site = testkit::posthouse::Site::new().with("site.yaml", &text.concat());
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("mx"));
    // Quoted, legal, and nothing but characters: no shell looks at them.
    for detail in ["; touch x;", "a b", "& id &", "> f"] {
        client.deliver("carol@d.test", &format!("\"alice+{detail}\"@example.org"), &crate::kit::text("argv"));
    }
    // A path that would leave its folder, where %n is part of one.
    client.deliver("carol@d.test", "\"alice+/../../escaped\"@example.org", &crate::kit::text("argv"));
    testkit::eventually("deliveries", || (posthouse.metric("posthouse_deliveries_total", &[]) >= 4.0).then_some(()));
    let made: Vec<String> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(made.iter().all(|name| name.starts_with("alice")), "{made:?}");
    let _ = std::fs::remove_dir_all(out);
}

/// A folder that ends with the test above.
fn tempfile() -> String {
    let path = std::env::temp_dir().join(format!("posthouse-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path.display().to_string()
}

#[test]
fn s14_nobody_relays_however_the_address_is_written() {
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let cases: &[(&str, &[&str])] = &[
        ("user%world.test@example.org", &["550 5.7.1", "550 5.1.1"]),
        ("alice%world.test@example.org", &["550 5.7.1", "550 5.1.1"]),
        ("\"user@world.test\"@example.org", &["550 5.7.1", "550 5.1.1"]),
        ("@example.org:user@world.test", &["550 5.7.1"]),
        ("@example.org,@a.test:user@world.test", &["550 5.7.1"]),
        ("world.test!user@example.org", &["550 5.7.1", "550 5.1.1"]),
        ("user@[127.0.0.1]", &["550 5.7.1"]),
        ("user@[IPv6:::1]", &["550 5.7.1"]),
        ("user@[127.0.0.1]:25", &["501", "553"]),
        ("user@example.org@world.test", &["501", "553"]),
        ("user@world.test@example.org", &["501", "553"]),
        ("alice@", &["501", "553"]),
        ("alice@.", &["501", "553"]),
        ("alice@example.org.", &["501", "553"]),
        ("alice@example.org:25", &["501", "553"]),
        ("alice@example.org ", &["501", "553"]),
        ("user@WORLD.test", &["550 5.7.1"]),
        ("user@b\u{fc}cher.example", &["553 5.6.7", "550 5.7.1"]),
        ("user@xn--bcher-kva.example", &["550 5.7.1"]),
        ("alice@sub.example.org", &["550 5.7.1"]),
        ("alice@example.org.world.test", &["550 5.7.1"]),
        ("alice@localhost", &["550 5.7.1"]),
        ("alice", &["501", "553"]),
        ("root", &["501", "553"]),
    ];
    for (recipient, allowed) in cases {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check("MAIL FROM:<carol@elsewhere.test>", "250");
        let reply = client.say(&format!("RCPT TO:<{recipient}>"));
        assert!(allowed.iter().any(|allowed| reply.starts_with(allowed)), "{recipient}: {reply}");
    }
    // A sender of ours is no leave, and neither is the null one.
    for sender in ["alice@example.org", "postmaster@example.org", ""] {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check(&format!("MAIL FROM:<{sender}>"), "250");
        client.check("RCPT TO:<user@world.test>", "550 5.7.1");
    }
    // What is ours is taken in any case.
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check("MAIL FROM:<carol@elsewhere.test>", "250");
    for recipient in ["ALICE@Example.ORG", "postmaster", "@a.test:alice@example.org"] {
        client.check(&format!("RCPT TO:<{recipient}>"), "250");
    }
    assert!(peer.seen().is_empty(), "nothing went out");
}

#[test]
fn s15_addresses_have_bounds_and_utf8_is_agreed_on() {
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let (local_64, local_65) = ("l".repeat(64), "l".repeat(65));
    let label = "d".repeat(63);
    let domain_255 = [label.as_str(); 4].join(".");
    let domain_256 = format!("{domain_255}d");
    // 64 + @ + 192: brackets make 259.
    let path_257 = format!("{local_64}@{}", [&label[..], &label, &label].join("."));
    assert!(path_257.len() > 254);
    let cases: &[(&str, &[&str])] = &[
        (&format!("{local_64}@example.org"), &["550 5.1.1"]),
        (&format!("{local_65}@example.org"), &["501", "553"]),
        (&format!("a@{domain_255}"), &["501", "553"]),
        (&format!("a@{domain_256}"), &["501", "553"]),
        (&format!("a@{}.test", "d".repeat(64)), &["501", "553"]),
        (&path_257, &["501", "553"]),
        ("\"\"@example.org", &["501", "553"]),
        ("\"@example.org", &["501", "553"]),
        // Legal, if rare: nobody here has them.
        ("\"a b\"@example.org", &["550 5.1.1"]),
        ("\"a\\\"b\"@example.org", &["550 5.1.1"]),
        ("\"a\\\\\"@example.org", &["550 5.1.1"]),
        ("\"alice\"@example.org", &["250"]),
        ("a b@example.org", &["501", "553"]),
        ("a..b@example.org", &["501", "553"]),
        (".a@example.org", &["501", "553"]),
        ("\u{fc}@example.org", &["553 5.6.7"]),
        ("a\0b@example.org", &["500", "501", "553"]),
        ("\"a\0b\"@example.org", &["500", "501", "553"]),
        ("a\x7fb@example.org", &["500", "501", "553"]),
    ];
    for (recipient, allowed) in cases {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check("MAIL FROM:<carol@elsewhere.test>", "250");
        let reply = client.say(&format!("RCPT TO:<{recipient}>"));
        assert!(allowed.iter().any(|allowed| reply.starts_with(allowed)), "{recipient:?}: {reply}");
    }
    let mut client = Raw::hello(posthouse.address("mx"));
    client.send(b"MAIL FROM:<\xff\xfe@example.org> SMTPUTF8\r\n");
    client.expect("500 5.5.2");
    client.check("MAIL FROM:<\u{fc}@elsewhere.test>", "553 5.6.7");
    client.check("MAIL FROM:<\u{fc}@elsewhere.test> SMTPUTF8", "250");
    client.check("RCPT TO:<\u{fc}@example.org>", "550 5.1.1");
    // The next host does not speak it: the mail comes back, and not as a guess at another address.
    let mut client = Raw::hello(posthouse.address("local"));
    client.check("MAIL FROM:<alice@example.org> SMTPUTF8", "250");
    client.check("RCPT TO:<\u{fc}@world.test>", "250");
    client.check("DATA", "354");
    client.send("Subject: utf8\r\n\r\nx\r\n.\r\n");
    client.expect("250 2.0.0 queued");
    let report = testkit::eventually("the report", || mail_of(&site, "alice").pop());
    assert!(report.contains("5.6.7"), "{report}");
    assert_eq!(peer.messages(), 0);
}

#[test]
fn s23_nobody_is_written_to_for_what_a_stranger_sent() {
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "");
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check("MAIL FROM:<victim@world.test>", "250");
    client.check("RCPT TO:<nobody@example.org>", "550 5.1.1");
    client.check("DATA", "554 5.5.1");
    client.check("RSET", "250");
    // Refused for its content: at the end of the data.
    for (text, expected) in [
        ("Subject: s\r\n\r\na\nb\r\n.\r\n".to_owned(), "550 5.5.2"),
        (format!("{}\r\n\r\nx\r\n.\r\n", "Received: by a; b\r\n".repeat(60)), "554 5.4.6"),
        (format!("{}\r\nx\r\n.\r\n", "X: y\r\n".repeat(1100)), "554 5.6.0"),
    ] {
        client.begin("victim@world.test", "alice@example.org");
        client.send(text);
        client.expect(expected);
    }
    assert_eq!(accepted(&posthouse), 0);
    assert!(site.queued().is_empty(), "no report is owed either");
    still_works(&site, &posthouse, "mx", "after-backscatter");
    site.wait_until_empty();
    assert!(peer.seen().is_empty(), "nobody was written to");
}
