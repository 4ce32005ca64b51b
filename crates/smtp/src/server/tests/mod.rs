//! Dialogues as tables: what the client sends, what the session replies and tells the shell, wherever the network cuts it.

mod dialogues;
mod hostile;
mod properties;
mod time;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use types::{Domain, Reply};

use super::*;

/// Small bounds, so that every one of them can be reached.
fn config() -> SessionConfig {
    SessionConfig {
        hostname: Domain::parse("mx.example").unwrap(),
        protocol: Protocol::Smtp,
        tls: TlsOffer::Offered,
        auth: AuthOffer { offered: true, required: false, without_tls: false },
        line_ends: LineEnds::Refuse,
        limits: SessionLimits {
            command_line_max_bytes: 512,
            text_line_max_bytes: 200,
            recipients_max: 3,
            message_max_bytes: 2000,
            messages_max: 3,
            commands_max: 12,
            errors_max: 6,
            auth_failures_max: 2,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(3600),
        },
    }
}

fn lmtp() -> SessionConfig {
    SessionConfig { protocol: Protocol::Lmtp, ..config() }
}

fn normalising() -> SessionConfig {
    SessionConfig { line_ends: LineEnds::Normalise, ..config() }
}

/// AUTH before TLS is allowed, so that dialogues with it are short.
fn clear_auth() -> SessionConfig {
    SessionConfig { auth: AuthOffer { offered: true, required: false, without_tls: true }, ..config() }
}

fn submission() -> SessionConfig {
    SessionConfig {
        protocol: Protocol::Submission,
        auth: AuthOffer { offered: true, required: true, without_tls: true },
        ..config()
    }
}

fn tls_required() -> SessionConfig {
    SessionConfig { tls: TlsOffer::Required, ..config() }
}

/// What the client sends before it waits for replies. LF stands for CRLF and one is put at the end, unless the text begins with `raw:`.
/// After `at once:` the text is never cut: it is the absence of a wait that is tested.
fn octets(group: &str) -> (Vec<u8>, bool) {
    let (text, whole) = group.strip_prefix("at once:").map_or((group, false), |text| (text, true));
    match text.strip_prefix("raw:") {
        Some(raw) => (raw.as_bytes().to_vec(), whole),
        None => (format!("{text}\n").replace('\n', "\r\n").into_bytes(), whole),
    }
}

/// Where the network cuts.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Nowhere,
    At { group: usize, octet: usize },
    Everywhere,
}

/// Everything that can be seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    replies: String,
    events: Vec<String>,
    closed: bool,
}

/// A shell that decides by the look of names.
struct Shell {
    session: Session,
    input: BytesMut,
    out: Vec<u8>,
    now: Instant,
    seen: Seen,
}

impl Shell {
    fn new(config: SessionConfig) -> Self {
        #[allow(clippy::disallowed_methods, reason = "any moment will do, it is only added to")]
        let now = Instant::now();
        let mut shell = Self {
            session: Session::new(Arc::new(config), now),
            input: BytesMut::new(),
            out: Vec::new(),
            now,
            seen: Seen::default(),
        };
        shell.session.greet(&mut shell.out);
        shell.flush();
        shell
    }

    fn flush(&mut self) {
        self.seen.replies.push_str(std::str::from_utf8(&self.out).expect("replies are ASCII"));
        self.out.clear();
    }

    fn feed(&mut self, octets: &[u8]) {
        if self.seen.closed {
            return;
        }
        self.input.extend_from_slice(octets);
        self.run();
    }

    fn run(&mut self) {
        loop {
            match self.session.advance(&mut self.input, &mut self.out, self.now) {
                Step::Read => break,
                Step::Close => {
                    self.seen.closed = true;
                    break;
                }
                Step::Event(event) => self.act(event),
            }
        }
        self.flush();
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Envelope { sender, recipients } => self.envelope(&sender, &recipients),
            Event::Authenticate { mechanism, authorization_id, user, password } => {
                let password = String::from_utf8(password).unwrap();
                self.log(format!("auth {} {authorization_id}/{user}/{password}", mechanism.name()));
                let answer = match password.as_str() {
                    "secret" => Ok(user),
                    "down" => Err(Reply::enhanced(454, 4, 7, 0, "temporary failure")),
                    _ => Err(Reply::enhanced(535, 5, 7, 8, "wrong")),
                };
                self.session.answer_authenticate(answer, &mut self.out);
            }
            Event::StartTls => {
                self.log("tls".into());
                assert!(self.input.is_empty());
                self.session.tls_started(self.now);
            }
            Event::Begin => {
                self.log("begin".into());
                if self.sender_is("nospace") {
                    self.refuse_early(Reply::enhanced(452, 4, 3, 1, "no space"));
                }
            }
            Event::Chunk(bytes) => {
                assert!(!bytes.is_empty());
                let text = bytes.escape_ascii().to_string();
                match self.seen.events.last_mut() {
                    Some(last) if last.starts_with("text ") => last.push_str(&text),
                    _ => self.log(format!("text {text}")),
                }
                if self.sender_is("midway") {
                    self.drop_text();
                    self.refuse_early(Reply::enhanced(554, 5, 4, 6, "loop"));
                }
            }
            Event::End => {
                self.log("end".into());
                let answer = self.judge();
                self.session.answer_message(answer, &mut self.out, self.now);
            }
            Event::Abandon(reason) => {
                // How much came before depends on the cuts, and means nothing.
                self.drop_text();
                self.log(format!("abandon {reason:?}"));
            }
        }
    }

    fn log(&mut self, event: String) {
        self.seen.events.push(event);
    }

    fn drop_text(&mut self) {
        if self.seen.events.last().is_some_and(|last| last.starts_with("text ")) {
            self.seen.events.pop();
        }
    }

    fn sender_is(&self, local: &str) -> bool {
        let sender = self.session.transaction().and_then(|transaction| transaction.sender.sender.clone());
        sender.is_some_and(|sender| sender.local() == local)
    }

    fn refuse_early(&mut self, reply: Reply) {
        self.session.answer_message(MessageAnswer::All(reply), &mut self.out, self.now);
    }

    fn envelope(&mut self, sender: &MailFrom, recipients: &[RcptTo]) {
        let from = sender.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let to: Vec<String> = recipients.iter().map(|rcpt| rcpt.recipient.to_string()).collect();
        let head = format!("<{from}> to ");
        match self.seen.events.last_mut() {
            Some(last) if last.starts_with(&head) => *last = format!("{last} {}", to.join(" ")),
            _ => self.log(head + &to.join(" ")),
        }
        let answers = recipients.iter().map(|rcpt| match rcpt.recipient.to_string().split('@').next() {
            Some("unknown") => Err(Reply::enhanced(550, 5, 1, 1, "no such user")),
            Some("later") => Err(Reply::enhanced(451, 4, 7, 1, "greylisted")),
            Some("closing") => Err(Reply::enhanced(421, 4, 7, 0, "go away")),
            _ => Ok(()),
        });
        self.session.answer_envelope(answers.collect(), &mut self.out);
    }

    fn judge(&self) -> MessageAnswer {
        let text = self.seen.events.iter().rev().find(|event| event.starts_with("text ")).cloned().unwrap_or_default();
        let transaction = self.session.transaction().expect("a message has an envelope");
        assert!(!transaction.recipients.is_empty());
        if self.session.config().protocol == Protocol::Lmtp && !text.contains("spam") {
            let each = transaction.recipients.iter().map(|rcpt| match rcpt.recipient.to_string().split('@').next() {
                Some("full") => Reply::enhanced(552, 5, 2, 2, "full"),
                _ => Reply::enhanced(250, 2, 0, 0, "kept"),
            });
            return MessageAnswer::Each(each.collect());
        }
        MessageAnswer::All(match () {
            () if text.contains("spam") => Reply::enhanced(550, 5, 7, 1, "spam\nreally"),
            () if text.contains("busy") => Reply::enhanced(451, 4, 3, 0, "busy"),
            () if text.contains("closing") => Reply::enhanced(421, 4, 3, 2, "closing"),
            () => Reply::enhanced(250, 2, 0, 0, "queued as 1"),
        })
    }
}

fn play(config: &SessionConfig, groups: &[&str], cut: Cut) -> Seen {
    let mut shell = Shell::new(config.clone());
    for (number, group) in groups.iter().enumerate() {
        let (octets, whole) = octets(group);
        match cut {
            Cut::Everywhere if !whole => octets.iter().for_each(|octet| shell.feed(&[*octet])),
            Cut::At { group, octet } if group == number => {
                shell.feed(&octets[..octet]);
                shell.feed(&octets[octet..]);
            }
            _ => shell.feed(&octets),
        }
    }
    shell.seen
}

/// Every reply as its code and its enhanced code, after checking that it is well-formed.
fn codes(replies: &str) -> Vec<String> {
    assert!(replies.is_empty() || replies.ends_with("\r\n"), "{replies:?}");
    let mut codes = Vec::new();
    let mut open: Option<&str> = None;
    for line in replies.split_terminator("\r\n") {
        assert!(line.len() <= 510 && line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
        let (code, rest) = line.split_at(3);
        assert!(
            code.bytes().all(|b| b.is_ascii_digit()) && ('2'..='5').contains(&code.chars().next().unwrap()),
            "{line:?}"
        );
        assert!(open.is_none_or(|before| before == code), "{replies:?}");
        open = match rest.as_bytes().first() {
            Some(b'-') => Some(code),
            Some(b' ') => None,
            other => panic!("{other:?} behind the code of {line:?}"),
        };
        if open.is_none() {
            let word = rest[1..].split(' ').next().unwrap_or_default();
            match word.parse::<types::EnhancedCode>() {
                Ok(enhanced) => codes.push(format!("{code} {enhanced}")),
                Err(_) => codes.push(code.to_owned()),
            }
        }
    }
    assert!(open.is_none(), "{replies:?}");
    codes
}

/// Plays `groups` whole, cut once at every octet, and octet by octet: the same is seen each time, and it is what is expected.
///
/// `replies`: codes without the greeting, parted by commas; `events`: parted by semicolons. `.` at the end of the events: the session was closed.
fn check(config: &SessionConfig, groups: &[&str], replies: &str, events: &str) {
    let seen = play(config, groups, Cut::Nowhere);
    let mut found = codes(&seen.replies);
    assert_eq!(found.remove(0), "220");
    assert_eq!(found.join(", "), replies, "replies to {groups:#?}");
    let end = if seen.closed { "." } else { "" };
    assert_eq!(seen.events.join("; ") + end, events, "events of {groups:#?}");
    for (group, text) in groups.iter().enumerate() {
        let (octets, whole) = octets(text);
        for octet in 1..if whole { 1 } else { octets.len() } {
            let cut = Cut::At { group, octet };
            assert_eq!(play(config, groups, cut), seen, "{cut:?} of {groups:#?}");
        }
    }
    assert_eq!(play(config, groups, Cut::Everywhere), seen, "octet by octet {groups:#?}");
}
