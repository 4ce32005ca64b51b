use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use types::{Address, Class};

use super::*;

#[allow(clippy::disallowed_methods, reason = "some instant to begin with")]
fn now() -> Instant {
    Instant::now()
}

fn config(protocol: Protocol) -> ClientConfig {
    ClientConfig {
        protocol,
        hello: "us.example".into(),
        tls: TlsUse::Never,
        login: None,
        auth_without_tls: false,
        timeouts: Timeouts::default(),
    }
}

fn with_login(tls: TlsUse) -> ClientConfig {
    let login = Some(Login { user: "u".into(), password: "p".into() });
    ClientConfig { tls, login, ..config(Protocol::Smtp) }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |to: &&str| Recipient { address: Address::parse(to).unwrap(), orcpt: None, notify: 0 };
    Envelope {
        sender: Some(Address::parse("s@us.example").unwrap()),
        size: 10,
        body: Body::SevenBit,
        smtp_utf8: false,
        ret: None,
        envid: None,
        recipients: recipients.iter().map(recipient).collect(),
    }
}

/// What a played dialogue came to: what the client wrote, and how each transaction (or the session) ended.
#[derive(Debug, PartialEq)]
struct Played {
    wrote: String,
    ends: Vec<String>,
}

/// Plays a server that answers by `replies`: the greeting, then one for each line it gets, then one for each text.
/// `chunk` octets arrive at a time.
fn play(config: &ClientConfig, envelopes: &[Envelope], text: &str, replies: &[&str], chunk: usize) -> Played {
    let (mut session, now) = (Session::new(Arc::new(config.clone()), now()), now());
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    let mut played = Played { wrote: String::new(), ends: Vec::new() };
    let mut replies = replies.iter();
    let mut coming: Vec<u8> = replies.next().unwrap().as_bytes().to_vec();
    let (mut server_line, mut in_text) = (Vec::new(), false);
    let mut waiting = envelopes.iter();
    for _ in 0..100_000 {
        let step = session.advance(&mut input, &mut out, now);
        let mut text_begins = false;
        let reads = step == Step::Read;
        match step {
            Step::Read => {}
            Step::StartTls => {
                played.wrote.push_str("<tls>\n");
                session.tls_started(&mut input, &mut out, now);
            }
            Step::Ready => match waiting.next() {
                Some(envelope) => session.begin(envelope.clone(), &mut out, now),
                None => {
                    session.quit(&mut out);
                    played.wrote.push_str(std::str::from_utf8(&out).unwrap());
                    return played;
                }
            },
            Step::SendText => {
                session.text(text.as_bytes(), &mut out, now);
                session.finish(&mut out, now);
                text_begins = true;
            }
            Step::Done(answers) => {
                let short = |a: &Answer| format!("{:?} {} {:?}", a.class, a.reply, a.by);
                played.ends.push(answers.iter().map(short).collect::<Vec<_>>().join(" / "));
                if !session.is_reusable() {
                    return played;
                }
            }
            Step::Close(trouble) => {
                let answers = session.fail(&trouble);
                let answers: Vec<_> = answers.iter().map(|a| format!("{:?} {}", a.class, a.reply.code)).collect();
                played.ends.push(format!("{trouble} [{}]", answers.join(" / ")));
                return played;
            }
        }
        // The server reads.
        played.wrote.push_str(std::str::from_utf8(&out).unwrap());
        in_text |= text_begins;
        for byte in out.drain(..) {
            server_line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let line = std::mem::take(&mut server_line);
            if !in_text || line == b".\r\n" {
                in_text = false;
                coming.extend_from_slice(replies.next().unwrap_or(&"").as_bytes());
            }
        }
        // And what it said arrives.
        if coming.is_empty() && input.is_empty() && reads {
            let answers = session.fail(&Trouble::Lost(session.stage()));
            let answers: Vec<_> = answers.iter().map(|a| format!("{:?} {}", a.class, a.reply)).collect();
            played.ends.push(format!("lost [{}]", answers.join(" / ")));
            return played;
        }
        let arrives = coming.len().min(chunk);
        input.extend(coming.drain(..arrives));
    }
    panic!("the dialogue does not end: {played:?}");
}

/// The same for octets that arrive whole, one by one, and cut anywhere between.
fn check(config: &ClientConfig, envelopes: &[Envelope], replies: &[&str], wrote: &str, ends: &[&str]) {
    let expected = Played { wrote: wrote.into(), ends: ends.iter().map(|s| (*s).to_owned()).collect() };
    for chunk in (1..=40).chain([usize::MAX]) {
        let found = play(config, envelopes, "t\n.\n", replies, chunk);
        // Octets that arrive later than the QUIT we wrote are not ours to read: what was written must be the same.
        assert_eq!(found, expected, "{chunk} octets at a time");
    }
}

const ALL: &str = "250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 1000\r\n";
const TEXT: &str = "t\r\n..\r\n.\r\n";

#[test]
fn a_pipelined_transaction_takes_two_writes_and_the_session_is_used_again() {
    check(
        &config(Protocol::Smtp),
        &[envelope(&["a@x.example", "b@x.example"]), envelope(&["c@x.example"])],
        &[
            "220 hi\r\n",
            ALL,
            "250 ok\r\n",
            "250 2.1.5 ok\r\n",
            "550 5.1.1 who?\r\n",
            "354 go\r\n",
            "250 2.0.0 took it\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 2.6.0 that too\r\n",
        ],
        &format!(
            "EHLO us.example\r\nMAIL FROM:<s@us.example> SIZE=10\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n\
             {TEXT}MAIL FROM:<s@us.example> SIZE=10\r\nRCPT TO:<c@x.example>\r\nDATA\r\n{TEXT}QUIT\r\n"
        ),
        &["Success 250 2.0.0 took it Peer / Permanent 550 5.1.1 who? Peer", "Success 250 2.6.0 that too Peer"],
    );
}

#[test]
fn without_pipelining_each_command_waits_for_its_reply() {
    check(
        &config(Protocol::Smtp),
        &[envelope(&["a@x.example", "b@x.example"]), envelope(&["c@x.example"])],
        &[
            "220 hi\r\n",
            "502 what?\r\n",
            "250 old\r\n",
            "250 ok\r\n",
            "450 later\r\n",
            "550 never\r\n",
            "250 reset\r\n",
            "550 not you\r\n",
        ],
        "EHLO us.example\r\nHELO us.example\r\nMAIL FROM:<s@us.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n\
         RSET\r\nMAIL FROM:<s@us.example>\r\nQUIT\r\n",
        &["Transient 450 4.2.1 later Peer / Permanent 550 5.1.1 never Peer", "Permanent 550 5.1.7 not you Peer"],
    );
}

#[test]
fn data_that_was_taken_for_nobody_is_ended_by_an_empty_text() {
    check(
        &config(Protocol::Smtp),
        &[envelope(&["a@x.example"]), envelope(&["b@x.example"])],
        &[
            "220 hi\r\n",
            ALL,
            "250 ok\r\n",
            "550 5.1.1 who?\r\n",
            "354 go\r\n",
            "554 5.5.1 nobody\r\n",
            "451 4.3.0 no\r\n",
            "503 5.5.1 mail first\r\n",
            "503 5.5.1 mail first\r\n",
        ],
        "EHLO us.example\r\nMAIL FROM:<s@us.example> SIZE=10\r\nRCPT TO:<a@x.example>\r\nDATA\r\n.\r\n\
         MAIL FROM:<s@us.example> SIZE=10\r\nRCPT TO:<b@x.example>\r\nDATA\r\nQUIT\r\n",
        &["Permanent 550 5.1.1 who? Peer", "Transient 451 4.3.0 no Peer"],
    );
}

#[test]
fn lmtp_replies_belong_to_accepted_recipients_in_order_duplicates_included() {
    check(
        &config(Protocol::Lmtp),
        &[envelope(&["a@x.example", "b@x.example", "c@x.example", "a@x.example", "d@x.example"])],
        &[
            "220 hi\r\n",
            "250-lmtp\r\n250-DSN\r\n250 PIPELINING\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "550 5.1.1 who?\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 2.0.0 saved\r\n552-5.2.2 over\r\n552 5.2.2 quota\r\n250 2.0.0 again\r\n451 4.2.0 busy\r\n",
        ],
        &format!(
            "LHLO us.example\r\nMAIL FROM:<s@us.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n\
             RCPT TO:<c@x.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<d@x.example>\r\nDATA\r\n{TEXT}QUIT\r\n"
        ),
        &["Success 250 2.0.0 saved Peer / Permanent 550 5.1.1 who? Peer / Permanent 552 5.2.2 over quota Peer / \
           Success 250 2.0.0 again Peer / Transient 451 4.2.0 busy Peer"],
    );
}

#[test]
fn lmtp_replies_that_never_come_defer_only_their_recipients() {
    check(
        &config(Protocol::Lmtp),
        &[envelope(&["a@x.example", "b@x.example"])],
        &[
            "220 hi\r\n",
            "250 PIPELINING\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 2.0.0 saved\r\n",
        ],
        &format!(
            "LHLO us.example\r\nMAIL FROM:<s@us.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n{TEXT}"
        ),
        &[
            "lost [Success 250 2.0.0 saved / Transient 451 4.4.2 connection lost while waiting for the reply to the end of the text]",
        ],
    );
}

#[test]
fn starttls_forgets_what_was_said_in_the_clear() {
    let tls = ClientConfig { tls: TlsUse::Required, ..config(Protocol::Smtp) };
    check(
        &tls,
        &[],
        &["220 hi\r\n", "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "220 go\r\n", "250 x\r\n"],
        "EHLO us.example\r\nSTARTTLS\r\n<tls>\nEHLO us.example\r\nQUIT\r\n",
        &[],
    );
    let hidden = "220 go\r\n250-evil\r\n250 PIPELINING\r\n";
    let found = play(
        &tls,
        &[envelope(&["a@x.example"])],
        "t",
        &["220 hi\r\n", "250-x\r\n250 STARTTLS\r\n", hidden, "250 x\r\n", "550 no\r\n"],
        usize::MAX,
    );
    assert_eq!(found.ends, ["Permanent 550 5.1.7 no Peer"]);
    assert!(found.wrote.contains("<tls>\nEHLO us.example\r\nMAIL FROM:<s@us.example>\r\nQUIT"), "{}", found.wrote);
}

#[test]
fn a_session_that_cannot_be_opened_says_why() {
    let lmtp = config(Protocol::Lmtp);
    let plain = config(Protocol::Smtp);
    let tls = |tls| ClientConfig { tls, ..config(Protocol::Smtp) };
    let starttls = "250-x\r\n250 STARTTLS\r\n";
    let cases: &[(&ClientConfig, &[&str], &str)] = &[
        (&plain, &["554 no service\r\n"], "the greeting was refused: 554 no service []"),
        (&plain, &["421 busy\r\n"], "the greeting was refused: 421 busy []"),
        (&plain, &["250 hi\r\n"], "reply code 250 has no meaning as the greeting []"),
        (&plain, &["HTTP/1.0 400\r\n"], "reply line does not begin with a reply code (waiting for the greeting) []"),
        (&plain, &["220 hi\r\n", "421 no\r\n"], "the reply to EHLO was refused: 421 no []"),
        (&plain, &["220 hi\r\n", "500 what\r\n", "550 bad name\r\n"], "the reply to EHLO was refused: 550 bad name []"),
        (&lmtp, &["220 hi\r\n", "500 what\r\n"], "the reply to EHLO was refused: 500 what []"),
        (
            &tls(TlsUse::Required),
            &["220 hi\r\n", "250 x\r\n"],
            "TLS is required and the peer does not offer STARTTLS []",
        ),
        (&tls(TlsUse::Required), &["220 hi\r\n", starttls, "454 no\r\n"], "TLS was refused: 454 no []"),
        (
            &tls(TlsUse::Opportunistic),
            &["220 hi\r\n", starttls, "354 what\r\n"],
            "reply code 354 has no meaning as TLS []",
        ),
        (
            &with_login(TlsUse::Never),
            &["220 hi\r\n", "250-x\r\n250 AUTH PLAIN\r\n"],
            "there is no TLS and the login may not travel in the clear []",
        ),
        (
            &with_login(TlsUse::Active),
            &["220 hi\r\n", "250-x\r\n250 AUTH CRAM-MD5\r\n"],
            "the peer offers neither AUTH PLAIN nor AUTH LOGIN []",
        ),
        (
            &with_login(TlsUse::Active),
            &["220 hi\r\n", "250-x\r\n250 AUTH PLAIN\r\n", "535 5.7.8 bad\r\n"],
            "the reply to AUTH was refused: 535 5.7.8 bad []",
        ),
    ];
    for (config, replies, expected) in cases {
        for chunk in [1, 2, 3, 7, usize::MAX] {
            let found = play(config, &[envelope(&["a@x.example"])], "t", replies, chunk);
            assert_eq!(found.ends, [*expected], "{replies:?}");
        }
    }
}

#[test]
fn opportunistic_sessions_go_on_in_the_clear_where_tls_is_refused() {
    check(
        &ClientConfig { tls: TlsUse::Opportunistic, ..config(Protocol::Smtp) },
        &[],
        &["220 hi\r\n", "250-x\r\n250 STARTTLS\r\n", "454 not now\r\n"],
        "EHLO us.example\r\nSTARTTLS\r\nQUIT\r\n",
        &[],
    );
}

#[test]
fn plain_is_preferred_and_login_is_known() {
    for (offer, replies, wrote) in [
        ("AUTH LOGIN PLAIN", vec!["235 ok\r\n"], "AUTH PLAIN AHUAcA==\r\n"),
        (
            "AUTH LOGIN",
            vec!["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", "235 ok\r\n"],
            "AUTH LOGIN\r\ndQ==\r\ncA==\r\n",
        ),
    ] {
        let ehlo = format!("250-x\r\n250 {offer}\r\n");
        let replies: Vec<&str> = ["220 hi\r\n", &ehlo].into_iter().chain(replies).collect();
        check(&with_login(TlsUse::Active), &[], &replies, &format!("EHLO us.example\r\n{wrote}QUIT\r\n"), &[]);
    }
    let long = Login { user: "u".into(), password: "p".repeat(500) };
    let config = ClientConfig { login: Some(long), ..with_login(TlsUse::Active) };
    let found = play(&config, &[], "", &["220 hi\r\n", "250-x\r\n250 AUTH PLAIN\r\n", "334 \r\n", "235 ok\r\n"], 1);
    assert!(found.wrote.contains("\r\nAUTH PLAIN\r\nAHUAcHBw"), "{}", found.wrote);
}

#[test]
fn what_the_peer_cannot_carry_is_refused_before_a_word_is_sent() {
    let base = envelope(&["a@x.example", "b@x.example"]);
    let eight = Envelope { body: Body::EightBit, ..base.clone() };
    let binary = Envelope { body: Body::Binary, ..base.clone() };
    let utf8 = Envelope { smtp_utf8: true, ..base.clone() };
    let large = Envelope { size: 1001, ..base.clone() };
    let bare = "250 x\r\n";
    let cases = [(&eight, bare, "5.6.3"), (&binary, ALL, "5.6.3"), (&utf8, bare, "5.6.7"), (&large, ALL, "5.3.4")];
    for (envelope, ehlo, code) in cases {
        let found = play(&config(Protocol::Smtp), std::slice::from_ref(envelope), "t", &["220 hi\r\n", ehlo], 3);
        assert_eq!(found.wrote, "EHLO us.example\r\nQUIT\r\n", "{code}");
        assert_eq!(found.ends[0].matches(&format!(" {code} ")).count(), 2, "{:?}", found.ends);
        assert_eq!(found.ends[0].matches(" Us").count(), 2, "{:?}", found.ends);
    }
    // One recipient that needs SMTPUTF8 does not stop the other.
    let found = play(
        &config(Protocol::Smtp),
        &[envelope(&["ü@x.example", "b@x.example"])],
        "t",
        &["220 hi\r\n", bare, "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"],
        usize::MAX,
    );
    assert!(
        found.ends[0].starts_with("Permanent 553 5.6.7") && found.ends[0].contains("/ Success 250 2.0.0 ok"),
        "{found:?}"
    );
}

#[test]
fn replies_that_make_no_sense_end_the_session_and_defer() {
    let cases: &[(&[&str], &str)] = &[
        (&["354 go\r\n"], "reply code 354 has no meaning as the reply to MAIL [Transient 451]"),
        (&["250 ok\r\n", "354 go\r\n"], "reply code 354 has no meaning as the reply to RCPT [Transient 451]"),
        (
            &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n"],
            "reply code 250 has no meaning as the reply to DATA [Transient 451]",
        ),
        (
            &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "354 go\r\n"],
            "reply code 354 has no meaning as the reply to the end of the text [Transient 451]",
        ),
        (
            &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "999 x\r\n"],
            "reply line does not begin with a reply code (waiting for the reply to the end of the text) [Transient 451]",
        ),
        (
            &["250 ok\r\n", "250-ok\r\n550 no\r\n"],
            "lines of one reply have different codes (waiting for the reply to RCPT) [Transient 451]",
        ),
    ];
    for (replies, expected) in cases {
        let replies: Vec<&str> = ["220 hi\r\n", "250 x\r\n"].iter().chain(*replies).copied().collect();
        for chunk in [1, 4, usize::MAX] {
            let found = play(&config(Protocol::Smtp), &[envelope(&["a@x.example"])], "t", &replies, chunk);
            assert_eq!(found.ends, [*expected], "{replies:?}");
        }
    }
}

#[test]
fn service_closing_ends_the_session_with_the_answers_it_has() {
    let cases: &[(&[&str], &str)] = &[
        (&["421 4.3.2 bye\r\n"], "Transient 421 4.3.2 bye Peer / Transient 421 4.3.2 bye Peer"),
        (
            &["250 ok\r\n", "550 5.1.1 who?\r\n", "421 bye\r\n"],
            "Permanent 550 5.1.1 who? Peer / Transient 421 4.3.2 bye Peer",
        ),
        (
            &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "421 bye\r\n"],
            "Transient 421 4.3.2 bye Peer / Transient 421 4.3.2 bye Peer",
        ),
        (
            &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "421 bye\r\n"],
            "Transient 421 4.3.2 bye Peer / Transient 421 4.3.2 bye Peer",
        ),
    ];
    for (replies, expected) in cases {
        let replies: Vec<&str> = ["220 hi\r\n", "250 x\r\n"].iter().chain(*replies).copied().collect();
        let found = play(&config(Protocol::Smtp), &[envelope(&["a@x.example", "b@x.example"])], "t", &replies, 2);
        assert_eq!(found.ends, [*expected], "{replies:?}");
    }
}

#[test]
fn a_success_before_the_final_dot_is_not_believed() {
    let (mut session, now) = (Session::new(Arc::new(config(Protocol::Smtp)), now()), now());
    for (early, believed) in [("250 took it\r\n", false), ("552 5.3.4 too large\r\n", true)] {
        let (mut input, mut out) = (BytesMut::from("220 x\r\n250 PIPELINING\r\n"), Vec::new());
        assert_eq!(session.advance(&mut input, &mut out, now), Step::Ready);
        session.begin(envelope(&["a@x.example"]), &mut out, now);
        input.extend_from_slice(b"250 ok\r\n250 ok\r\n354 go\r\n");
        // Pipelining is not offered: the first EHLO line is a greeting.
        while session.advance(&mut input, &mut out, now) == Step::Read {}
        session.text(b"half a ", &mut out, now);
        input.extend_from_slice(early.as_bytes());
        match session.advance(&mut input, &mut out, now) {
            Step::Done(answers) => {
                assert!(believed);
                assert_eq!(answers[0].reply.to_string(), "552 5.3.4 too large");
            }
            Step::Close(trouble) => {
                assert!(!believed);
                assert_eq!(session.fail(&trouble)[0].class, Class::Transient);
            }
            other => panic!("{other:?}"),
        }
        assert!(!session.is_reusable());
        session = Session::new(Arc::new(config(Protocol::Smtp)), now);
    }
}

#[test]
fn what_an_idle_peer_says_ends_the_session() {
    let (mut session, now) = (Session::new(Arc::new(config(Protocol::Smtp)), now()), now());
    let (mut input, mut out) = (BytesMut::from("220 x\r\n250 x\r\n"), Vec::new());
    assert_eq!(session.advance(&mut input, &mut out, now), Step::Ready);
    input.extend_from_slice(b"421 4.4.2 idle too long\r\n");
    assert!(matches!(session.advance(&mut input, &mut out, now), Step::Close(Trouble::Ended(_))));
    assert!(!session.is_reusable());
}

#[test]
fn more_recipients_than_the_window_go_out_in_parts() {
    let many: Vec<String> = (0..250).map(|i| format!("u{i}@x.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let replies: Vec<&str> = ["220 hi\r\n", "250-x\r\n250 PIPELINING\r\n", "250 ok\r\n"]
        .into_iter()
        .chain(std::iter::repeat_n("250 ok\r\n", 250))
        .chain(["354 go\r\n", "250 ok\r\n"])
        .collect();
    for chunk in [1, 1000, usize::MAX] {
        let found = play(&config(Protocol::Smtp), &[envelope(&many)], "t", &replies, chunk);
        assert_eq!(found.ends[0].matches("Success").count(), 250);
        assert_eq!(found.wrote.matches("RCPT TO").count(), 250);
    }
}

#[test]
fn each_state_has_its_time_out() {
    let timeouts = Timeouts {
        greeting: Duration::from_secs(1),
        command: Duration::from_secs(2),
        data: Duration::from_secs(3),
        block: Duration::from_secs(4),
        end: Duration::from_secs(5),
    };
    let now = now();
    let mut session = Session::new(Arc::new(ClientConfig { timeouts, ..config(Protocol::Smtp) }), now);
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    let mut seconds = |session: &mut Session, octets: &str| {
        input.extend_from_slice(octets.as_bytes());
        let _ = session.advance(&mut input, &mut out, now);
        (session.deadline() - now).as_secs()
    };
    assert_eq!(seconds(&mut session, ""), 1);
    assert_eq!(seconds(&mut session, "220 x\r\n"), 2);
    assert_eq!(seconds(&mut session, "250-x\r\n250 PIPELINING\r\n"), 2);
    session.begin(envelope(&["a@x.example"]), &mut Vec::new(), now);
    assert_eq!(seconds(&mut session, "250 ok\r\n"), 2);
    assert_eq!(seconds(&mut session, "250 ok\r\n"), 3);
    assert_eq!(seconds(&mut session, "354 go\r\n"), 4);
    session.finish(&mut Vec::new(), now);
    assert_eq!(seconds(&mut session, ""), 5);
}

proptest! {
    #[test]
    fn octets_of_a_hostile_peer_never_panic(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                "(2[235]0|354|334|421|550)[- ]?(STARTTLS|PIPELINING|AUTH PLAIN|x)?\r\n".prop_map(String::into_bytes),
            ],
            0..30,
        ),
        lmtp: bool,
        tls in 0..4u8,
    ) {
        let tls = [TlsUse::Never, TlsUse::Opportunistic, TlsUse::Required, TlsUse::Active][usize::from(tls)];
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let (mut session, now) = (Session::new(Arc::new(ClientConfig { protocol, ..with_login(tls) }), now()), now());
        let (mut input, mut out) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(&piece);
            for _ in 0..40 {
                match session.advance(&mut input, &mut out, now) {
                    Step::Read => break,
                    Step::StartTls => session.tls_started(&mut input, &mut out, now),
                    Step::Ready => session.begin(envelope(&["a@x.example", "b@x.example"]), &mut out, now),
                    Step::SendText => {
                        session.text(b".\n", &mut out, now);
                        session.finish(&mut out, now);
                    }
                    Step::Done(answers) => {
                        prop_assert_eq!(answers.len(), 2);
                        if !session.is_reusable() {
                            return Ok(());
                        }
                    }
                    Step::Close(trouble) => {
                        let answers = session.fail(&trouble);
                        prop_assert!(answers.is_empty() || answers.len() == 2);
                        return Ok(());
                    }
                }
            }
        }
    }
}
