use super::*;

const BEGUN: [&str; 2] = ["EHLO c.example", "MAIL FROM:<a@b>\nRCPT TO:<c@d>"];

#[test]
fn a_message_comes_in_with_its_envelope() {
    check(
        &config(),
        &["EHLO c.example", "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nRCPT TO:<e@f>\nDATA", "Subject: x\n\n..dot\n.", "QUIT"],
        "250, 250 2.1.0, 250 2.1.5, 250 2.1.5, 354, 250 2.0.0, 221 2.0.0",
        "<a@b> to c@d e@f; begin; text Subject: x\\r\\n\\r\\n.dot\\r\\n; end.",
    );
    check(
        &config(),
        &["HELO c.example", "MAIL FROM: <>", "RCPT TO:<Postmaster>", "DATA", "x\n."],
        "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0",
        "<> to postmaster; begin; text x\\r\\n; end",
    );
    check(
        &config(),
        &[
            "EHLO c.example",
            "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA",
            "one\n.\nMAIL FROM:<a@b>\nRCPT TO:<e@f>\nDATA",
            "two\n.",
        ],
        "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0",
        "<a@b> to c@d; begin; text one\\r\\n; end; <a@b> to e@f; begin; text two\\r\\n; end",
    );
}

#[test]
fn the_answer_of_the_shell_is_the_reply() {
    let answer = |text: &str, reply: &str, end: &str| {
        let text = format!("{text}\n.");
        let replies = format!("250, 250 2.1.0, 250 2.1.5, 354, {reply}");
        let events = format!("<a@b> to c@d; begin; text {}; end{end}", text[..text.len() - 1].replace('\n', "\\r\\n"));
        check(&config(), &[BEGUN[0], BEGUN[1], "DATA", &text], &replies, &events);
    };
    answer("ham", "250 2.0.0", "");
    answer("spam", "550 5.7.1", "");
    answer("busy", "451 4.3.0", "");
    answer("closing", "421 4.3.2", ".");
}

#[test]
fn recipients_are_answered_one_by_one_and_in_order() {
    check(
        &config(),
        &[
            BEGUN[0],
            "MAIL FROM:<a@b>\nRCPT TO:<unknown@d>\nRCPT TO:<c@d>\nRCPT TO:<bad>\nRCPT TO:<later@d>\nRCPT TO:<e@f>\nDATA",
            "x\n.",
        ],
        "250, 250 2.1.0, 550 5.1.1, 250 2.1.5, 553 5.1.3, 451 4.7.1, 250 2.1.5, 354, 250 2.0.0",
        "<a@b> to unknown@d c@d later@d e@f; begin; text x\\r\\n; end",
    );
    check(
        &config(),
        &[BEGUN[0], "MAIL FROM:<a@b>\nRCPT TO:<unknown@d>\nDATA", "RCPT TO:<c@d>", "DATA", "x\n."],
        "250, 250 2.1.0, 550 5.1.1, 554 5.5.1, 250 2.1.5, 354, 250 2.0.0",
        "<a@b> to unknown@d c@d; begin; text x\\r\\n; end",
    );
    check(
        &config(),
        &[BEGUN[0], "MAIL FROM:<a@b>\nRCPT TO:<c@d>", "RCPT TO:<closing@d>\nDATA"],
        "250, 250 2.1.0, 250 2.1.5, 421 4.7.0",
        "<a@b> to c@d closing@d.",
    );
}

#[test]
fn commands_have_an_order() {
    for (groups, replies, events) in [
        (&["MAIL FROM:<a@b>"][..], "503 5.5.1", ""),
        (&["RCPT TO:<a@b>"], "503 5.5.1", ""),
        (&["DATA"], "503 5.5.1", ""),
        (&["EHLO c", "RCPT TO:<a@b>"], "250, 503 5.5.1", ""),
        (&["EHLO c", "DATA"], "250, 503 5.5.1", ""),
        (&["EHLO c", "MAIL FROM:<a@b>", "DATA"], "250, 250 2.1.0, 503 5.5.1", ""),
        (&["EHLO c", "MAIL FROM:<a@b>\nMAIL FROM:<c@d>"], "250, 250 2.1.0, 503 5.5.1", ""),
        (&["EHLO c", "MAIL FROM:<a@b>\nRSET\nRCPT TO:<c@d>"], "250, 250 2.1.0, 250 2.0.0, 503 5.5.1", ""),
        (&["EHLO c", "MAIL FROM:<a@b>", "EHLO c", "RCPT TO:<c@d>"], "250, 250 2.1.0, 250, 503 5.5.1", ""),
        (&["EHLO c", "MAIL FROM:<a@b>", "HELO c", "MAIL FROM:<a@b>"], "250, 250 2.1.0, 250, 250 2.1.0", ""),
        (&["EHLO c", "MAIL FROM:<a@b>", "STARTTLS"], "250, 250 2.1.0, 503 5.5.1", ""),
        (&["LHLO c"], "500 5.5.1", ""),
        (&["EHLO"], "501 5.5.4", ""),
    ] {
        check(&config(), groups, replies, events);
    }
}

#[test]
fn commands_without_effect_are_answered() {
    check(
        &config(),
        &["NOOP", "VRFY alice", "VRFY", "EXPN list", "HELP", "RSET", "ETRN x", "", "QUIT"],
        "250 2.0.0, 252 2.0.0, 501 5.5.4, 502 5.5.1, 214 2.0.0, 250 2.0.0, 500 5.5.1, 500 5.5.2, 221 2.0.0",
        ".",
    );
}

#[test]
fn parameters_are_kept_or_refused() {
    for (line, reply) in [
        ("MAIL FROM:<a@b> SIZE=2000 BODY=8BITMIME RET=HDRS ENVID=x", "250 2.1.0"),
        ("MAIL FROM:<a@b> SIZE=2001", "552 5.3.4"),
        ("MAIL FROM:<a@b> SIZE=99999999999999999999", "552 5.3.4"),
        ("MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.5.4"),
        ("MAIL FROM:<ü@b>", "553 5.6.7"),
        ("MAIL FROM:<ü@b> SMTPUTF8", "250 2.1.0"),
    ] {
        check(&config(), &["EHLO c", line], &format!("250, {reply}"), "");
    }
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<a@b>\nRCPT TO:<ü@b>\nRCPT TO:<c@d>"],
        "250, 250 2.1.0, 553 5.6.7, 250 2.1.5",
        "<a@b> to c@d",
    );
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<a@b> SMTPUTF8\nRCPT TO:<ü@b>"],
        "250, 250 2.1.0, 250 2.1.5",
        "<a@b> to ü@b",
    );
    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b> SIZE=7 ENVID=e+2Bf AUTH=<>\r\nRCPT TO:<c@d> NOTIFY=DELAY ORCPT=rfc822;x+40y\r\n");
    let transaction = shell.session.transaction().unwrap();
    assert_eq!(transaction.sender.size, Some(7));
    assert_eq!(transaction.sender.envid.as_deref(), Some("e+f"));
    assert_eq!(transaction.sender.auth.as_deref(), Some("<>"));
    assert_eq!(transaction.recipients[0].notify, Some(Notify::DELAY));
    assert_eq!(transaction.recipients[0].orcpt.as_deref(), Some("rfc822;x@y"));
}

#[test]
fn chunks_come_by_bdat_with_a_reply_each() {
    check(
        &config(),
        &[BEGUN[0], BEGUN[1], "raw:BDAT 5\r\nab\r\n.BDAT 4\r\n\r\nc\r", "raw:BDAT 1 LAST\r\n\nQUIT\r\n"],
        "250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 250 2.0.0, 250 2.0.0, 221 2.0.0",
        "<a@b> to c@d; begin; text ab\\r\\n.\\r\\nc\\r\\n; end.",
    );
    check(
        &config(),
        &[
            BEGUN[0],
            "raw:MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\na\r\nMAIL FROM:<a@b>\r\nRCPT TO:<e@f>\r\nBDAT 0 LAST\r\n",
        ],
        "250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 250 2.1.0, 250 2.1.5, 250 2.0.0",
        "<a@b> to c@d; begin; text a\\r\\n; end; <a@b> to e@f; begin; end",
    );
    check(
        &config(),
        &[BEGUN[0], BEGUN[1], "raw:BDAT 3\r\na\r\n", "BDAT 0 LAST"],
        "250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 250 2.0.0",
        "<a@b> to c@d; begin; text a\\r\\n; end",
    );
    for (last, replies, events) in [
        ("RSET\nMAIL FROM:<a@b>", "250 2.0.0, 250 2.1.0", "abandon Reset"),
        ("EHLO c", "250", "abandon Reset"),
        ("MAIL FROM:<a@b>", "503 5.5.1", ""),
        ("RCPT TO:<a@b>", "503 5.5.1", ""),
        ("QUIT", "221 2.0.0", "abandon Closed."),
    ] {
        let events = if events.is_empty() { String::new() } else { format!("; {events}") };
        check(
            &config(),
            &[BEGUN[0], BEGUN[1], "raw:BDAT 3\r\na\r\n", last],
            &format!("250, 250 2.1.0, 250 2.1.5, 250 2.0.0, {replies}"),
            // Text of an abandoned message is not looked at.
            &format!("<a@b> to c@d; begin{}{events}", if events.contains("abandon") { "" } else { "; text a\\r\\n" }),
        );
    }
}

#[test]
fn lmtp_answers_every_accepted_recipient() {
    let begun = "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nRCPT TO:<unknown@d>\nRCPT TO:<full@d>\nRCPT TO:<c@d>";
    let accepted = "250, 250 2.1.0, 250 2.1.5, 550 5.1.1, 250 2.1.5, 250 2.1.5";
    let envelope = "<a@b> to c@d unknown@d full@d c@d; begin";
    check(
        &lmtp(),
        &["LHLO c", begun, "DATA", "x\n."],
        &format!("{accepted}, 354, 250 2.0.0, 552 5.2.2, 250 2.0.0"),
        &format!("{envelope}; text x\\r\\n; end"),
    );
    check(
        &lmtp(),
        &["LHLO c", begun, "DATA", "spam\n."],
        &format!("{accepted}, 354, 550 5.7.1, 550 5.7.1, 550 5.7.1"),
        &format!("{envelope}; text spam\\r\\n; end"),
    );
    check(
        &lmtp(),
        &["LHLO c", begun, "DATA", "raw:x\ny\r\n.\r\nNOOP\r\n"],
        &format!("{accepted}, 354, 550 5.5.2, 550 5.5.2, 550 5.5.2, 250 2.0.0"),
        &format!("{envelope}; abandon LineEnds"),
    );
    check(
        &lmtp(),
        &["LHLO c", begun, "raw:BDAT 3\r\nx\r\nBDAT 0 LAST\r\n"],
        &format!("{accepted}, 250 2.0.0, 250 2.0.0, 552 5.2.2, 250 2.0.0"),
        &format!("{envelope}; text x\\r\\n; end"),
    );
    check(&lmtp(), &["EHLO c", "HELO c", "LHLO c"], "500 5.5.1, 500 5.5.1, 250", "");
    check(
        &lmtp(),
        &["LHLO c", "MAIL FROM:<a@b>\nRCPT TO:<unknown@d>\nDATA"],
        "250, 250 2.1.0, 550 5.1.1, 503 5.5.1",
        "<a@b> to unknown@d",
    );
}

#[test]
fn a_missing_answer_is_a_transient_refusal() {
    let mut shell = Shell::new(lmtp());
    shell.feed(b"LHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b>\r\n");
    shell.input.extend_from_slice(b"RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n");
    let step = shell.session.advance(&mut shell.input, &mut shell.out, shell.now);
    assert!(matches!(step, Step::Event(Event::Envelope { .. })));
    assert_eq!(shell.session.advance(&mut shell.input, &mut shell.out, shell.now), Step::Read, "an answer is owed");
    shell.session.answer_envelope(vec![Ok(())], &mut shell.out);
    assert_eq!(codes(std::str::from_utf8(&shell.out).unwrap()), ["250 2.1.5", "451 4.3.0"]);
    shell.out.clear();
    shell.feed(b"RCPT TO:<e@f>\r\nDATA\r\n");
    shell.input.extend_from_slice(b"x\r\n.\r\n");
    while shell.session.advance(&mut shell.input, &mut shell.out, shell.now) != Step::Event(Event::End) {}
    let answer = MessageAnswer::Each(vec![Reply::enhanced(250, 2, 0, 0, "kept")]);
    shell.session.answer_message(answer, &mut shell.out, shell.now);
    assert_eq!(codes(std::str::from_utf8(&shell.out).unwrap()), ["250 2.0.0", "451 4.3.0"]);
}

#[test]
fn a_message_may_be_refused_before_its_end() {
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<nospace@b>\nRCPT TO:<c@d>\nDATA", "NOOP"],
        "250, 250 2.1.0, 250 2.1.5, 452 4.3.1, 250 2.0.0",
        "<nospace@b> to c@d; begin",
    );
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<midway@b>\nRCPT TO:<c@d>\nDATA", "x\ny\n.\nNOOP"],
        "250, 250 2.1.0, 250 2.1.5, 354, 554 5.4.6, 250 2.0.0",
        "<midway@b> to c@d; begin",
    );
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<nospace@b>\nRCPT TO:<c@d>", "raw:BDAT 3\r\nx\r\nBDAT 3 LAST\r\ny\r\nNOOP\r\n"],
        "250, 250 2.1.0, 250 2.1.5, 452 4.3.1, 503 5.5.1, 250 2.0.0",
        "<nospace@b> to c@d; begin",
    );
}

/// The reply to EHLO without its codes.
fn extensions(config: SessionConfig, groups: &[&str]) -> Vec<String> {
    let seen = play(&config, groups, Cut::Nowhere);
    let tail = seen.replies.rsplit("250-mx.example\r\n").next().unwrap();
    tail.split_terminator("\r\n").map(|line| line[4..].to_owned()).collect()
}

#[test]
fn ehlo_offers_what_this_state_has() {
    let always = ["PIPELINING", "SIZE 2000", "LIMITS RCPTMAX=3 MAILMAX=3", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN"];
    let auth = "AUTH PLAIN LOGIN";
    let login = "AUTH PLAIN AGEAc2VjcmV0";
    let off = SessionConfig { tls: TlsOffer::Off, ..config() };
    let active = SessionConfig { tls: TlsOffer::Active, ..config() };
    let no_auth = SessionConfig {
        tls: TlsOffer::Active,
        auth: AuthOffer { offered: false, required: false, without_tls: true },
        ..config()
    };
    for (config, groups, offered) in [
        (config(), &["EHLO c"][..], &["STARTTLS"][..]),
        (tls_required(), &["EHLO c"], &["STARTTLS"]),
        (clear_auth(), &["EHLO c"], &["STARTTLS", auth]),
        (clear_auth(), &["EHLO c", login, "EHLO c"], &["STARTTLS"]),
        (config(), &["EHLO c", "STARTTLS", "EHLO c"], &[auth]),
        (off, &["EHLO c"], &[]),
        (active, &["EHLO c"], &[auth]),
        (no_auth, &["EHLO c"], &[]),
        (lmtp(), &["LHLO c"], &["STARTTLS"]),
    ] {
        let mut found = extensions(config.clone(), groups);
        assert_eq!(found.pop().as_deref(), Some("ENHANCEDSTATUSCODES"));
        let (mut expected, mut sorted) = ([&always[..], offered].concat(), found.clone());
        expected.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{groups:?} {:?}", config.tls);
    }
    let mut unbound = config();
    unbound.limits.messages_max = 0;
    unbound.limits.recipients_max = 0;
    assert!(!extensions(unbound, &["EHLO c"]).iter().any(|line| line.starts_with("LIMITS")));
    let seen = play(&config(), &["HELO c"], Cut::Nowhere);
    assert!(seen.replies.ends_with("250 mx.example\r\n"));
}

#[test]
fn starttls_forgets_what_was_said_in_the_clear() {
    check(&config(), &["EHLO c", "STARTTLS", "MAIL FROM:<a@b>"], "250, 220 2.0.0, 503 5.5.1", "tls");
    check(&config(), &["EHLO c", "STARTTLS", "EHLO c", "STARTTLS"], "250, 220 2.0.0, 250, 503 5.5.1", "tls");
    check(&config(), &["EHLO c", "STARTTLS x"], "250, 501 5.5.4", "");
    check(&SessionConfig { tls: TlsOffer::Off, ..config() }, &["EHLO c", "STARTTLS"], "250, 502 5.5.1", "");
    let mut shell = Shell::new(clear_auth());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"AUTH PLAIN AGEAc2VjcmV0\r\n");
    assert_eq!((shell.session.helo(), shell.session.user(), shell.session.received_with()), ("c", Some("a"), "ESMTPA"));
    shell.feed(b"STARTTLS\r\n");
    assert_eq!((shell.session.helo(), shell.session.user(), shell.session.tls_active()), ("", None, true));
    shell.feed(b"EHLO d\r\n");
    assert_eq!((shell.session.helo(), shell.session.received_with()), ("d", "ESMTPS"));
}

#[test]
fn where_tls_is_required_nothing_else_is_heard() {
    check(
        &tls_required(),
        &["EHLO c", "NOOP", "MAIL FROM:<a@b>", "AUTH PLAIN AGEAYg==", "HELO c", "VRFY x", "QUIT"],
        "250, 250 2.0.0, 530 5.7.0, 530 5.7.0, 530 5.7.0, 530 5.7.0, 221 2.0.0",
        ".",
    );
    check(
        &tls_required(),
        &["EHLO c", "STARTTLS", "EHLO c", "MAIL FROM:<a@b>"],
        "250, 220 2.0.0, 250, 250 2.1.0",
        "tls",
    );
    check(&tls_required(), &["EHLO c", "raw:BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"], "250, 530 5.7.0, 250 2.0.0", "");
}

#[test]
fn a_user_authenticates_by_plain_or_login() {
    // AGEAc2VjcmV0: NUL a NUL secret. YQ==: a. c2VjcmV0: secret.
    for (groups, replies, events) in [
        (&["AUTH PLAIN AGEAc2VjcmV0"][..], "235 2.7.0", "auth PLAIN /a/secret"),
        (&["AUTH PLAIN", "AGEAc2VjcmV0"], "334, 235 2.7.0", "auth PLAIN /a/secret"),
        (&["auth plain egBhAHNlY3JldA=="], "235 2.7.0", "auth PLAIN z/a/secret"),
        (&["AUTH LOGIN", "YQ==", "c2VjcmV0"], "334, 334, 235 2.7.0", "auth LOGIN /a/secret"),
        (&["AUTH LOGIN YQ==", "c2VjcmV0"], "334, 235 2.7.0", "auth LOGIN /a/secret"),
        (&["AUTH PLAIN", "*", "NOOP"], "334, 501 5.7.0, 250 2.0.0", ""),
        (&["AUTH LOGIN", "YQ==", "*", "NOOP"], "334, 334, 501 5.7.0, 250 2.0.0", ""),
        (&["AUTH PLAIN =", "NOOP"], "501 5.5.2, 250 2.0.0", ""),
        (&["AUTH LOGIN ="], "501 5.5.2", ""),
        (&["AUTH LOGIN", ""], "334, 501 5.5.2", ""),
        (&["AUTH LOGIN", "YQ==", ""], "334, 334, 501 5.5.2", ""),
        (&["AUTH LOGIN", "YQ==", "YQBi"], "334, 334, 501 5.5.2", ""),
        (&["AUTH CRAM-MD5"], "504 5.5.4", ""),
        (&["AUTH"], "501 5.5.4", ""),
        (&["AUTH PLAIN AGEAd3Jvbmc="], "535 5.7.8", "auth PLAIN /a/wrong"),
        (&["AUTH PLAIN AGEAZG93bg=="], "454 4.7.0", "auth PLAIN /a/down"),
        (&["AUTH PLAIN AGEAc2VjcmV0", "AUTH PLAIN AGEAc2VjcmV0"], "235 2.7.0, 503 5.5.1", "auth PLAIN /a/secret"),
        (&["MAIL FROM:<a@b>", "AUTH PLAIN AGEAc2VjcmV0"], "250 2.1.0, 503 5.5.1", ""),
    ] {
        let groups = [&["EHLO c"], groups].concat();
        check(&clear_auth(), &groups, &format!("250, {replies}"), events);
    }
}

#[test]
fn authentication_waits_for_ehlo_and_tls() {
    check(&config(), &["EHLO c", "AUTH PLAIN AGEAc2VjcmV0"], "250, 538 5.7.11", "");
    check(&clear_auth(), &["AUTH PLAIN AGEAc2VjcmV0"], "503 5.5.1", "");
    check(&clear_auth(), &["HELO c", "AUTH PLAIN AGEAc2VjcmV0"], "250, 503 5.5.1", "");
    let off = SessionConfig { auth: AuthOffer { offered: false, required: false, without_tls: true }, ..config() };
    check(&off, &["EHLO c", "AUTH PLAIN AGEAc2VjcmV0"], "250, 502 5.5.1", "");
    check(
        &submission(),
        &["EHLO c", "MAIL FROM:<a@b>", "AUTH PLAIN AGEAc2VjcmV0", "MAIL FROM:<a@b>"],
        "250, 530 5.7.0, 235 2.7.0, 250 2.1.0",
        "auth PLAIN /a/secret",
    );
}

#[test]
fn secrets_are_masked_while_a_response_is_awaited() {
    let mut shell = Shell::new(clear_auth());
    for (line, masked) in [("EHLO c", false), ("AUTH LOGIN", true), ("YQ==", true), ("c2VjcmV0", false)] {
        shell.feed(format!("{line}\r\n").as_bytes());
        assert_eq!(shell.session.masks_input(), masked, "{line}");
    }
    let event = Event::Authenticate {
        mechanism: Mechanism::Plain,
        authorization_id: String::new(),
        user: "alice".into(),
        password: b"secret".to_vec(),
    };
    let shown = format!("{event:?}");
    assert!(!shown.contains("alice") && !shown.contains("secret"), "{shown}");
}

#[test]
fn received_names_the_protocol() {
    let mut utf8 = Shell::new(SessionConfig { tls: TlsOffer::Active, ..config() });
    utf8.feed(b"EHLO c\r\n");
    utf8.feed(b"MAIL FROM:<a@b> SMTPUTF8\r\n");
    assert_eq!(utf8.session.received_with(), "UTF8SMTPS");
    for (config, hello, expected) in
        [(config(), "HELO c", "SMTP"), (config(), "EHLO c", "ESMTP"), (lmtp(), "LHLO c", "LMTP")]
    {
        let mut shell = Shell::new(config);
        shell.feed(format!("{hello}\r\n").as_bytes());
        assert_eq!(shell.session.received_with(), expected);
    }
}

#[test]
fn everything_that_is_counted_has_a_limit() {
    let too_many = "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nRCPT TO:<e@f>\nRCPT TO:<g@h>\nRCPT TO:<i@j>\nRCPT TO:<k@l>\nDATA";
    check(
        &config(),
        &["EHLO c", too_many, "x\n."],
        "250, 250 2.1.0, 250 2.1.5, 250 2.1.5, 250 2.1.5, 452 4.5.3, 452 4.5.3, 354, 250 2.0.0",
        "<a@b> to c@d e@f g@h; begin; text x\\r\\n; end",
    );
    let message = ["MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA", "x\n."];
    let fourth = [&["EHLO c"][..], &message, &message, &message, &["MAIL FROM:<a@b>"]].concat();
    let one = ", 250 2.1.0, 250 2.1.5, 354, 250 2.0.0";
    let seen = "<a@b> to c@d; begin; text x\\r\\n; end";
    check(&config(), &fourth, &format!("250{}, 421 4.7.0", one.repeat(3)), &format!("{}.", [seen; 3].join("; ")));
    check(&config(), &["BAD"; 7], &format!("{}, 421 4.7.0", ["500 5.5.1"; 6].join(", ")), ".");
    check(&config(), &["NOOP"; 14], &format!("{}, 421 4.7.0", ["250 2.0.0"; 12].join(", ")), ".");
    let mut five = config();
    five.limits.errors_max = 0;
    five.limits.commands_max = 0;
    check(&five, &["NOOP", "BAD"], "250 2.0.0, 500 5.5.1", "");
}

#[test]
fn failed_authentications_have_a_limit() {
    let wrong = "AUTH PLAIN AGEAd3Jvbmc=";
    check(
        &clear_auth(),
        &["EHLO c", wrong, wrong, wrong],
        "250, 535 5.7.8, 535 5.7.8, 421 4.7.0",
        "auth PLAIN /a/wrong; auth PLAIN /a/wrong.",
    );
}

#[test]
fn refused_recipients_are_errors_until_a_message_is_taken() {
    let three = "MAIL FROM:<a@b>\nRCPT TO:<unknown@d>\nRCPT TO:<unknown@d>\nRCPT TO:<unknown@d>\nRCPT TO:<c@d>\nDATA";
    let replies = "250 2.1.0, 550 5.1.1, 550 5.1.1, 550 5.1.1, 250 2.1.5, 354";
    let seen = "<a@b> to unknown@d unknown@d unknown@d c@d; begin; text x\\r\\n; end";
    check(
        &config(),
        &["EHLO c", three, "x\n.", three, "x\n."],
        &format!("250, {replies}, 250 2.0.0, {replies}, 250 2.0.0"),
        &format!("{seen}; {seen}"),
    );
    let harvest = ["MAIL FROM:<a@b>", "RCPT TO:<unknown@d>\nRCPT TO:<unknown@d>"];
    check(
        &config(),
        &["EHLO c", harvest[0], harvest[1], harvest[1], harvest[1], harvest[1]],
        &format!("250, 250 2.1.0, {}, 421 4.7.0", ["550 5.1.1"; 6].join(", ")),
        &format!("<a@b> to {}.", ["unknown@d"; 6].join(" ")),
    );
}

#[test]
fn lines_have_a_longest() {
    let fits = format!("NOOP {}", "x".repeat(505));
    check(&config(), &[&fits], "250 2.0.0", "");
    let long = format!("NOOP {}", "x".repeat(506));
    check(&config(), &[&long, "NOOP"], "500 5.5.2, 250 2.0.0", "");
    let response = "A".repeat(600);
    check(&clear_auth(), &["EHLO c", "AUTH PLAIN", &response, "NOOP"], "250, 334, 500 5.5.6, 250 2.0.0", "");
}

#[test]
fn text_beyond_a_limit_is_refused_after_the_true_end() {
    let replies = |code: &str| format!("250, 250 2.1.0, 250 2.1.5, 354, {code}, 250 2.0.0");
    let line = format!("{}\n.\nNOOP", "x".repeat(199));
    let large = format!("{}.\nNOOP", "x\n".repeat(667));
    for (text, code, reason) in [(&line, "554 5.6.0", "LineTooLong"), (&large, "552 5.3.4", "TooLarge")] {
        let events = format!("<a@b> to c@d; begin; abandon {reason}");
        check(&config(), &[BEGUN[0], BEGUN[1], "DATA", text], &replies(code), &events);
    }
    check(
        &config(),
        &[BEGUN[0], BEGUN[1], &format!("raw:BDAT 2001\r\n{}NOOP\r\n", "x\r\n".repeat(667))],
        "250, 250 2.1.0, 250 2.1.5, 552 5.3.4, 250 2.0.0",
        "<a@b> to c@d; begin; abandon TooLarge",
    );
}
