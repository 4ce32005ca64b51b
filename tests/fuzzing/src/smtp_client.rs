//! A client session under a server that means ill.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use smtp::client::{
    Answer, Body, ClientConfig, Envelope, Login, Protocol, Recipient, Ret, Session, Stage, Step, TextWriter, Timeouts,
    TlsUse, Trouble,
};
use types::{Address, Class};

use crate::input::{Cuts, Input};

/// Octets of a server's side: what is longer says nothing new.
const REPLIES_OCTETS_MAX: usize = 64 << 10;
/// Transactions of a session.
const TRANSACTIONS_MAX: usize = 3;

/// The first three octets choose the session, its envelopes and the cuts; what follows is what the server says. Properties:
///
/// - a server whose replies come line by line, each when it is waited for, is understood the same wherever they are cut;
/// - one that says whatever it likes at once is borne as well;
/// - every recipient gets one answer, with an enhanced code of its class and without controls;
/// - what we write are lines with CRLF; the text ends with the only line that is a dot.
pub fn smtp_client(data: &[u8]) {
    let mut input = Input::new(data);
    let (session, envelope, cuts) = (input.octet(), input.octet(), input.octet());
    let replies = &input.rest()[..input.rest().len().min(REPLIES_OCTETS_MAX)];
    let config = Arc::new(config(session));
    let lines = play(&config, envelope, replies, Feed::Lines(&mut |line| line));
    let mut pieces = Cuts::new(cuts);
    let cut = play(&config, envelope, replies, Feed::Lines(&mut |line| pieces.next(line)));
    assert_eq!(lines, cut, "the same lines, cut differently");
    play(&config, envelope, replies, Feed::AtOnce);
    write_text(replies, cuts);
}

fn config(octet: u8) -> ClientConfig {
    let login = Login { user: "user".repeat(1 + usize::from(octet >> 5 & 1) * 200), password: "secret".to_owned() };
    ClientConfig {
        protocol: if octet & 1 == 0 { Protocol::Smtp } else { Protocol::Lmtp },
        hello: "client.example".to_owned(),
        tls: [TlsUse::Never, TlsUse::Opportunistic, TlsUse::Required, TlsUse::Active][usize::from(octet >> 1 & 3)],
        login: (octet & 0x08 != 0).then_some(login),
        auth_without_tls: octet & 0x10 != 0,
        timeouts: Timeouts::default(),
    }
}

fn envelope(octet: u8) -> Envelope {
    let utf8 = octet & 0x40 != 0;
    let recipient = |n: usize| Recipient {
        address: Address::parse(&format!("{}{n}@d.example", if utf8 && n == 1 { "ü" } else { "r" })).unwrap(),
        orcpt: (n == 0).then(|| "rfc822;a+b=c d@e".to_owned()),
        notify: n as u32 * 2,
    };
    Envelope {
        sender: (octet & 0x20 == 0).then(|| Address::parse("\"a b\"@s.example").unwrap()),
        size: 100,
        body: if octet & 0x10 == 0 { Body::SevenBit } else { Body::EightBit },
        smtp_utf8: octet & 0x80 != 0,
        ret: Some(Ret::Full),
        envid: Some("id+1".to_owned()),
        recipients: (0..[1, 2, 3, 120][usize::from(octet & 3)]).map(recipient).collect(),
    }
}

enum Feed<'a> {
    /// Line by line when a reply is waited for; of each line as much at a time as this says.
    Lines(&'a mut dyn FnMut(usize) -> usize),
    /// Everything before the first word of ours.
    AtOnce,
}

/// Everything that can be seen from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    out: Vec<u8>,
    answers: Vec<Vec<Answer>>,
    trouble: Option<Trouble>,
}

fn play(config: &Arc<ClientConfig>, octet: u8, replies: &[u8], feed: Feed<'_>) -> Seen {
    #[allow(clippy::disallowed_methods, reason = "any moment will do, it is only added to")]
    let now = Instant::now();
    let mut session = Session::new(Arc::clone(config), now);
    let envelope = envelope(octet);
    let (mut rest, mut input, mut seen, mut begun) = (replies, BytesMut::new(), Seen::default(), 0);
    let mut next = match feed {
        Feed::Lines(next) => Some(next),
        Feed::AtOnce => {
            input.extend_from_slice(std::mem::take(&mut rest));
            None
        }
    };
    loop {
        let step = session.advance(&mut input, &mut seen.out, now);
        match step {
            Step::Read => {
                let line = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
                let piece = next.as_mut().map_or(line, |next| next(line));
                if piece == 0 {
                    let lost = Trouble::Lost(session.stage());
                    take(&mut seen, session.fail(&lost), begun, &envelope);
                    break;
                }
                input.extend_from_slice(&rest[..piece]);
                rest = &rest[piece..];
            }
            Step::StartTls => {
                assert!(input.is_empty() && !session.tls_active(), "what was said in the clear outlives the handshake");
                session.tls_started(&mut input, &mut seen.out, now);
                assert!(session.tls_active());
            }
            Step::Ready => {
                assert!(session.is_reusable());
                if begun == TRANSACTIONS_MAX {
                    session.quit(&mut seen.out);
                    break;
                }
                begun += 1;
                session.begin(envelope.clone(), &mut seen.out, now);
            }
            Step::SendText => {
                assert_eq!(session.stage(), Stage::Text);
                check_commands(&seen.out);
                session.text(b"Subject: x\r\n\r\n.dot\r\n", &mut seen.out, now);
                session.finish(&mut seen.out, now);
            }
            Step::Done(answers) => {
                take(&mut seen, answers, begun, &envelope);
                if !session.is_reusable() {
                    break;
                }
            }
            Step::Close(trouble) => {
                let answers = session.fail(&trouble);
                if !answers.is_empty() {
                    take(&mut seen, answers, begun, &envelope);
                }
                assert!(!trouble.to_string().chars().any(|c| c.is_control() && c != '\n'), "{trouble:?}");
                seen.trouble = Some(trouble);
                break;
            }
        }
        assert!(input.len() <= REPLIES_OCTETS_MAX);
    }
    check_tls(config, &seen.out);
    check_commands(&seen.out);
    seen
}

/// One answer for each recipient of the transaction that is under way, and one time only.
fn take(seen: &mut Seen, answers: Vec<Answer>, begun: usize, envelope: &Envelope) {
    if answers.is_empty() && seen.answers.len() == begun {
        return;
    }
    assert_eq!(answers.len(), envelope.recipients.len());
    for answer in &answers {
        let enhanced = answer.reply.enhanced.expect("an answer has an enhanced code");
        let class = match answer.class {
            Class::Success => 2,
            Class::Transient => 4,
            Class::Permanent => 5,
        };
        assert_eq!(enhanced.class, class, "{answer:?}");
        assert!(!answer.reply.text().chars().any(|c| c.is_control() && c != '\n'), "{answer:?}");
    }
    seen.answers.push(answers);
    assert!(seen.answers.len() <= begun, "a transaction is answered twice");
}

/// Nothing but EHLO and STARTTLS in the clear where TLS is required (S5).
fn check_tls(config: &ClientConfig, out: &[u8]) {
    let mut lines = out.split(|octet| *octet == b'\n');
    if config.tls == TlsUse::Required {
        let hello = |line: &[u8]| line.is_empty() || line.get(1..4) == Some(b"HLO") || line.starts_with(b"HELO");
        let in_the_clear = lines.by_ref().take_while(|line| *line != b"STARTTLS\r");
        in_the_clear.for_each(|line| assert!(hello(line), "{} in the clear", line.escape_ascii()));
    }
}

/// Lines with CRLF, no longer than a server must take (RFC 5321 section 4.5.3.1.4 with the room that extensions ask for).
fn check_commands(out: &[u8]) {
    for line in out.split_inclusive(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("CRLF ends every line");
        assert!(!line.contains(&b'\r') && line.len() < 2048, "{}", line.escape_ascii());
    }
}

/// A text, whatever it holds, ends with the only line that is a dot (S2).
fn write_text(text: &[u8], cuts: u8) {
    let (mut whole, mut writer) = (Vec::new(), TextWriter::default());
    writer.push(text, &mut whole);
    writer.finish(&mut whole);
    let (mut cut, mut writer, mut rest, mut cuts) = (Vec::new(), TextWriter::default(), text, Cuts::new(cuts));
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts.next(rest.len()));
        writer.push(piece, &mut cut);
        rest = after;
    }
    writer.finish(&mut cut);
    assert_eq!(whole, cut);
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|octet| *octet == b'\n').collect();
    assert_eq!(lines.pop(), Some(b".\r\n".as_slice()));
    for line in lines {
        let line = line.strip_suffix(b"\r\n").expect("CRLF ends every line");
        assert!(line != b"." && !line.contains(&b'\r'));
    }
}
