//! Cases of the hostile input, by their numbers.

use super::*;

const BEGUN: &str = "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA";

/// S1: an honest text with a false end in it, and a second message behind that.
fn smuggling(marker: &str) -> String {
    format!("raw:one{marker}MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\nDATA\r\ntwo\r\n.\r\n")
}

const FALSE_ENDS: [&str; 8] =
    ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n"];

#[test]
fn s1_a_false_end_makes_one_refused_message() {
    for marker in FALSE_ENDS {
        check(
            &config(),
            &["EHLO c", BEGUN, &smuggling(marker), "NOOP"],
            "250, 250 2.1.0, 250 2.1.5, 354, 550 5.5.2, 250 2.0.0",
            "<a@b> to c@d; begin; abandon LineEnds",
        );
    }
}

#[test]
fn s1_a_false_end_makes_one_normalised_message() {
    for marker in FALSE_ENDS {
        let groups = ["EHLO c", BEGUN, &smuggling(marker), "NOOP"];
        let seen = play(&normalising(), &groups, Cut::Nowhere);
        assert_eq!(seen.events.iter().filter(|event| *event == "end").count(), 1, "{marker:?}");
        let text = seen.events.iter().find(|event| event.starts_with("text ")).unwrap();
        assert!(text.starts_with("text one\\r\\n") && text.ends_with("two\\r\\n"), "{text}");
        let bare = text.replace("\\r\\n", "");
        assert!(!bare.contains("\\r") && !bare.contains("\\n") && !bare.contains("x00"), "{text}");
        check(&normalising(), &groups, "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0, 250 2.0.0", &seen.events.join("; "));
    }
}

#[test]
fn s3_bdat_counts_octets_and_never_hangs() {
    let begun = "MAIL FROM:<a@b>\nRCPT TO:<c@d>";
    let ok = "250, 250 2.1.0, 250 2.1.5";
    let to = "<a@b> to c@d; begin";
    for (text, replies, events) in [
        // A dot line is text.
        ("raw:BDAT 5 LAST\r\n\r\n.\r\nNOOP\r\n", "250 2.0.0, 250 2.0.0", "; text \\r\\n.\\r\\n; end"),
        // Fewer octets were announced than were sent: the rest is commands, and those are none.
        ("raw:BDAT 3 LAST\r\na\r\nbc\r\n", "250 2.0.0, 500 5.5.1", "; text a\\r\\n; end"),
        // More were announced: what follows is text, however it looks.
        ("raw:BDAT 9 LAST\r\na\r\nQUIT\r\n", "250 2.0.0", "; text a\\r\\nQUIT\\r\\n; end"),
        ("raw:BDAT 3\r\na\r\nDATA\r\n", "250 2.0.0, 503 5.5.1", "; text a\\r\\n"),
        ("raw:BDAT 3\r\na\nbBDAT 6 LAST\r\nRSET\r\nNOOP\r\n", "550 5.5.2, 503 5.5.1, 250 2.0.0", "; abandon LineEnds"),
        ("raw:BDAT 3 LAST\r\na\nbNOOP\r\n", "550 5.5.2, 250 2.0.0", "; abandon LineEnds"),
        ("raw:BDAT 2 LAST\r\na\rNOOP\r\n", "550 5.5.2, 250 2.0.0", "; abandon LineEnds"),
    ] {
        check(&config(), &["EHLO c", begun, text], &format!("{ok}, {replies}"), &format!("{to}{events}"));
    }
    for size in ["-1", "9223372036854775808", "99999999999999999999999", "x", "5 FIRST", ""] {
        check(&config(), &["EHLO c", begun, &format!("BDAT {size}")], &format!("{ok}, 501 5.5.4"), "<a@b> to c@d.");
    }
}

#[test]
fn s3_octets_of_a_chunk_are_swallowed_where_bdat_has_no_place() {
    let hidden = "raw:BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n";
    check(&config(), &[hidden], "503 5.5.1, 250 2.0.0", "");
    check(&config(), &["EHLO c", "MAIL FROM:<a@b>", hidden], "250, 250 2.1.0, 503 5.5.1, 250 2.0.0", "");
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<a@b>\nRCPT TO:<unknown@d>", hidden],
        "250, 250 2.1.0, 550 5.1.1, 554 5.5.1, 250 2.0.0",
        "<a@b> to unknown@d",
    );
    check(
        &config(),
        &["EHLO c", "raw:MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\na\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"],
        "250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 503 5.5.1, 250 2.0.0",
        "<a@b> to c@d; begin; text a\\r\\n; end",
    );
}

#[test]
fn s3_data_and_bdat_do_not_mix() {
    check(
        &config(),
        &["EHLO c", "MAIL FROM:<a@b>\nRCPT TO:<c@d>", "raw:BDAT 3\r\na\r\n", "DATA", "BDAT 0 LAST"],
        "250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 503 5.5.1, 250 2.0.0",
        "<a@b> to c@d; begin; text a\\r\\n; end",
    );
    // BDAT behind DATA is text.
    check(
        &config(),
        &["EHLO c", BEGUN, "BDAT 3 LAST\n."],
        "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0",
        "<a@b> to c@d; begin; text BDAT 3 LAST\\r\\n; end",
    );
}

#[test]
fn s4_what_follows_starttls_in_the_clear_closes() {
    check(&config(), &["EHLO c", "at once:STARTTLS\nRSET\nMAIL FROM:<x@y>"], "250, 554 5.5.1", ".");
    check(&config(), &["EHLO c", "at once:raw:STARTTLS\r\n\x16"], "250, 554 5.5.1", ".");
}

#[test]
fn s6_no_address_is_a_shell_script() {
    for path in ["<;sleep 66;>", "<$(id)@x>", "<a@x;id>", "<|cmd>"] {
        check(&config(), &["EHLO c", &format!("MAIL FROM:{path}")], "250, 553 5.1.7", "");
        check(&config(), &["EHLO c", "MAIL FROM:<>", &format!("RCPT TO:{path}")], "250, 250 2.1.0, 553 5.1.3", "");
    }
}

#[test]
fn s8_no_line_break_gets_into_a_name() {
    // NUL "a LF b" NUL "secret"; and "a LF b" for LOGIN.
    check(&clear_auth(), &["EHLO c", "AUTH PLAIN AGEKYgBzZWNyZXQ="], "250, 501 5.5.2", "");
    check(&clear_auth(), &["EHLO c", "AUTH LOGIN YQpi"], "250, 501 5.5.2", "");
    check(&config(), &["EHLO a|b", "raw:EHLO a\nb\r\n"], "501 5.5.4, 500 5.5.2, 500 5.5.1", "");
}

#[test]
fn s10_decoders_are_bounded() {
    check(&clear_auth(), &["EHLO c", "AUTH PLAIN AGEAc2Vjc"], "250, 501 5.5.2", "");
    check(&clear_auth(), &["EHLO c", "AUTH PLAIN", "AGEAc2Vjc"], "250, 334, 501 5.5.2", "");
    check(&config(), &["EHLO c", "MAIL FROM:<a@b> AUTH=\""], "250, 501 5.5.4", "");
    let mut shell = Shell::new(config());
    shell.feed(b"EHLO ");
    for _ in 0..1000 {
        shell.feed(&[b'x'; 100]);
        assert!(shell.input.len() <= 512, "memory stays constant");
    }
    shell.feed(b"\r\nNOOP\r\n");
    assert_eq!(codes(&shell.seen.replies), ["220", "500 5.5.2", "250 2.0.0"]);
}

#[test]
fn s14_and_s15_addresses_are_what_they_say_or_refused() {
    let refused = |path: &str| {
        check(&config(), &["EHLO c", "MAIL FROM:<a@b>", &format!("RCPT TO:{path}")], "250, 250 2.1.0, 553 5.1.3", "")
    };
    for path in ["<user@us@dom>", "<user@>", "<user@us.>", "<\"\"@x>", "<@us:user>"] {
        refused(path);
    }
    for length in [65, 250] {
        refused(&format!("<{}@x>", "l".repeat(length)));
    }
    refused(&format!("<a@{}>", "d".repeat(256)));
    for (path, literal) in [
        ("<user%dom@us>", "user%dom@us"),
        ("<\"user@dom\"@us>", "\"user@dom\"@us"),
        ("<@us:user@dom>", "user@dom"),
        ("<dom!user@us>", "dom!user@us"),
        ("<user@[127.0.0.1]>", "user@[127.0.0.1]"),
        ("<user@US>", "user@us"),
    ] {
        check(
            &config(),
            &["EHLO c", "MAIL FROM:<a@b>", &format!("RCPT TO:{path}")],
            "250, 250 2.1.0, 250 2.1.5",
            &format!("<a@b> to {literal}"),
        );
    }
}

#[test]
fn s21_who_wants_no_mail_server_is_closed_at_once() {
    for line in ["GET / HTTP/1.1", "POST / HTTP/1.1", "CONNECT x:25 HTTP/1.1", "HEAD /", "PRI * HTTP/2.0"] {
        let request = format!("{line}\nHost: x\n\nMAIL FROM:<a@b>");
        check(&config(), &[&request], "554 5.5.1", ".");
    }
    check(&config(), &["PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nEHLO c"], "554 5.5.1", ".");
}

#[test]
fn s21_a_client_that_talks_before_the_greeting_is_closed() {
    let shell = Shell::new(config());
    // Input is there before greet().
    let mut session = Session::new(Arc::new(config()), shell.now);
    let (mut input, mut out) = (BytesMut::from(&b"EHLO c\r\n"[..]), Vec::new());
    assert_eq!(session.advance(&mut input, &mut out, shell.now), Step::Close);
    assert_eq!(codes(std::str::from_utf8(&out).unwrap()), ["554 5.5.0"]);
    // Input is there before the greeting was written.
    let mut session = Session::new(Arc::new(config()), shell.now);
    let (mut input, mut out) = (BytesMut::from(&b"EHLO c\r\n"[..]), Vec::new());
    session.greet(&mut out);
    assert_eq!(session.advance(&mut input, &mut out, shell.now), Step::Close);
    assert_eq!(codes(std::str::from_utf8(&out).unwrap()), ["220", "554 5.5.0"]);
    // No input: the session waits for greet().
    let mut session = Session::new(Arc::new(config()), shell.now);
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    assert_eq!(session.advance(&mut input, &mut out, shell.now), Step::Read);
    assert!(out.is_empty());
}

#[test]
fn s22_a_group_ends_where_it_must() {
    let data = "at once:MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\ntext\n.";
    check(&config(), &["EHLO c", data], "250, 250 2.1.0, 250 2.1.5, 503 5.5.0", "<a@b> to c@d.");
    for line in ["NOOP", "VRFY x", "EXPN x", "EHLO c", "HELO c", "AUTH PLAIN", "DATA"] {
        check(&clear_auth(), &["EHLO c", &format!("at once:{line}\nRSET")], "250, 503 5.5.0", ".");
    }
    check(&clear_auth(), &["EHLO c", "AUTH LOGIN", "at once:YQ==\nc2VjcmV0"], "250, 334, 503 5.5.0", ".");
    // Nothing was offered yet.
    check(&config(), &["HELO c", "at once:MAIL FROM:<a@b>\nRCPT TO:<c@d>"], "250, 503 5.5.0", ".");
    check(&config(), &["HELO c", "MAIL FROM:<a@b>", "at once:RCPT TO:<c@d>\nDATA"], "250, 250 2.1.0, 503 5.5.0", ".");
    check(&config(), &["at once:RSET\nMAIL FROM:<a@b>"], "503 5.5.0", ".");
    // What follows QUIT is never looked at.
    check(&config(), &["EHLO c", "QUIT\nMAIL FROM:<a@b>"], "250, 221 2.0.0", ".");
}

#[test]
fn a_command_line_ends_with_crlf() {
    check(
        &config(),
        &["raw:NOOP\n", "raw:NOOP\r\r\n", "raw:NO\rOP\r\n", "NOOP"],
        "500 5.5.2, 500 5.5.2, 500 5.5.2, 250 2.0.0",
        "",
    );
    check(&normalising(), &["raw:NOOP\n", "raw:NOOP\r\r\n"], "250 2.0.0, 500 5.5.2", "");
    check(&clear_auth(), &["EHLO c", "AUTH PLAIN", "raw:AGEAc2VjcmV0\n", "NOOP"], "250, 334, 500 5.5.2, 250 2.0.0", "");
}
