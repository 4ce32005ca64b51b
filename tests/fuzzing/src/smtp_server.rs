//! A server session under a client that may send anything, cut anywhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use smtp::server::{
    AuthOffer, Event, LineEnds, MessageAnswer, Protocol, Session, SessionConfig, SessionLimits, Step, TlsOffer,
};
use types::{Domain, EnhancedCode, Reply};

use crate::input::{Cuts, Input};

/// Octets of a dialogue: what is longer says nothing new.
const DIALOGUE_OCTETS_MAX: usize = 16 << 10;
/// What ends a play early where octets came behind something that must be the last of its group.
const IMPROPER: [&str; 2] = ["503 5.5.0 improper use of pipelining\r\n", "554 5.5.1 nothing may follow STARTTLS\r\n"];

/// The first three octets choose the listener, its limits and the cuts; what follows is the dialogue. Properties:
///
/// - what is said to the client, what the shell is asked, and the messages are the same wherever the network cuts; where
///   the pipelining of the whole is improper, they are the beginning of what is seen with waits in between;
/// - replies are well-formed; at most a command line stays in the input;
/// - no more messages than true ends of text (S1), their lines end with CRLF and hold neither CR, LF nor NUL;
/// - every message that begins ends or is abandoned.
pub fn smtp_server(data: &[u8]) {
    let mut input = Input::new(data);
    let (listener, limits, cuts) = (input.octet(), input.octet(), input.octet());
    let dialogue = &input.rest()[..input.rest().len().min(DIALOGUE_OCTETS_MAX)];
    let config = Arc::new(config(listener, limits));
    let early = limits & 0x40 != 0;
    let whole = play(&config, early, &mut dialogue.chunks(dialogue.len().max(1)));
    let lines = play(&config, early, &mut dialogue.split_inclusive(|octet| *octet == b'\n'));
    let mut pieces = Pieces { rest: dialogue, cuts: Cuts::new(cuts) };
    let cut = play(&config, early, &mut pieces);
    let mut inside_lines = dialogue.split_inclusive(|octet| *octet == b'\n').flat_map(|line| line.chunks(2));
    if !early {
        assert_eq!(play(&config, false, &mut inside_lines), lines, "cut inside of lines");
    }
    for seen in [&whole, &lines, &cut] {
        check(&config, dialogue, seen);
    }
    whole.begins(&lines);
    whole.begins(&cut);
    cut.begins(&lines);
}

struct Pieces<'a> {
    rest: &'a [u8],
    cuts: Cuts,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (piece, rest) = self.rest.split_at(self.cuts.next(self.rest.len()));
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

fn config(listener: u8, limits: u8) -> SessionConfig {
    let few = |bit: u8, few: usize, many: usize| if limits & bit == 0 { few } else { many };
    SessionConfig {
        hostname: Domain::parse("mx.example").unwrap(),
        protocol: [Protocol::Smtp, Protocol::Submission, Protocol::Lmtp, Protocol::Smtp][usize::from(listener & 3)],
        tls: [TlsOffer::Off, TlsOffer::Offered, TlsOffer::Required, TlsOffer::Active][usize::from(listener >> 2 & 3)],
        line_ends: if listener & 0x10 == 0 { LineEnds::Refuse } else { LineEnds::Normalise },
        auth: AuthOffer {
            offered: listener & 0x20 != 0,
            required: listener & 0x40 != 0,
            without_tls: listener & 0x80 != 0,
        },
        limits: SessionLimits {
            command_line_max_bytes: few(0x01, 128, 2048),
            text_line_max_bytes: few(0x02, 40, 1_000_000),
            recipients_max: few(0x04, 2, 0),
            message_max_bytes: few(0x08, 300, 0) as u64,
            messages_max: few(0x10, 2, 0),
            commands_max: few(0x20, 8, 0),
            errors_max: few(0x80, 20, 3),
            auth_failures_max: 2,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(3600),
        },
    }
}

/// Everything that can be seen from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: String,
    events: Vec<String>,
    messages: Vec<Vec<u8>>,
    closed: bool,
}

impl Seen {
    /// The same as `other`, or its beginning where this one ended for improper pipelining.
    fn begins(&self, other: &Seen) {
        let Some(before) = IMPROPER.iter().find_map(|reply| self.replies.strip_suffix(reply)) else {
            assert_eq!(self, other, "the same octets, cut differently");
            return;
        };
        assert!(self.closed && other.replies.starts_with(before), "{self:#?} does not begin {other:#?}");
        assert!(other.messages.starts_with(&self.messages), "{self:#?} does not begin {other:#?}");
    }
}

struct Shell {
    session: Session,
    input: BytesMut,
    out: Vec<u8>,
    now: Instant,
    seen: Seen,
    text: Option<Vec<u8>>,
}

fn play(config: &Arc<SessionConfig>, early: bool, pieces: &mut dyn Iterator<Item = &[u8]>) -> Seen {
    #[allow(clippy::disallowed_methods, reason = "any moment will do, it is only added to")]
    let now = Instant::now();
    let session = Session::new(Arc::clone(config), now);
    let (input, out, seen) = (BytesMut::new(), Vec::new(), Seen::default());
    let mut shell = Shell { session, input, out, now, seen, text: None };
    if early {
        shell.feed(pieces.next().unwrap_or_default());
    }
    if !shell.seen.closed {
        shell.session.greet(&mut shell.out);
        shell.flush();
    }
    for piece in pieces {
        shell.feed(piece);
    }
    if !shell.seen.closed {
        assert!(shell.session.deadline() > now);
        shell.session.time_out(&mut shell.out);
        shell.feed(b"");
        assert!(shell.seen.closed, "a session outlives its time");
        assert!(shell.seen.replies.ends_with("421 4.4.2 time-out, closing the session\r\n"));
    }
    assert!(shell.text.is_none(), "a message neither ended nor was abandoned");
    shell.seen
}

impl Shell {
    fn feed(&mut self, octets: &[u8]) {
        if self.seen.closed {
            return;
        }
        self.input.extend_from_slice(octets);
        loop {
            match self.session.advance(&mut self.input, &mut self.out, self.now) {
                Step::Read => break,
                Step::Event(event) => self.act(event),
                Step::Close => {
                    self.seen.closed = true;
                    break;
                }
            }
        }
        let line_max = self.session.config().limits.command_line_max_bytes;
        assert!(self.input.len() <= line_max, "{} octets wait in the input", self.input.len());
        self.flush();
    }

    fn flush(&mut self) {
        self.seen.replies.push_str(std::str::from_utf8(&self.out).expect("replies are ASCII"));
        self.out.clear();
    }

    fn log(&mut self, event: String) {
        self.seen.events.push(event);
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Envelope { sender, recipients } => {
                assert!(!recipients.is_empty());
                let answers = recipients.iter().map(|rcpt| self.recipient(&sender, rcpt)).collect();
                self.session.answer_envelope(answers, &mut self.out);
            }
            Event::Authenticate { mechanism, authorization_id, user, password } => {
                assert!(!user.is_empty() && !user.chars().any(char::is_control));
                assert!(!authorization_id.chars().any(char::is_control));
                let right = password == b"secret";
                self.log(format!("auth {mechanism:?} {authorization_id:?} {user:?} {password:?}"));
                let refused = Reply::enhanced(535, 5, 7, 8, "wrong");
                self.session.answer_authenticate(if right { Ok(user) } else { Err(refused) }, &mut self.out);
            }
            Event::StartTls => {
                assert!(self.input.is_empty(), "octets from before TLS would be read as if they came by it");
                self.log("tls".into());
                self.session.tls_started(self.now);
                assert!(self.session.helo().is_empty() && self.session.user().is_none());
            }
            Event::Begin => {
                assert!(self.text.is_none());
                self.text = Some(Vec::new());
                self.log(format!("begin {:?} {}", self.session.transaction(), self.session.received_with()));
                if self.sender_is("nospace") {
                    self.refuse();
                }
            }
            Event::Chunk(chunk) => {
                assert!(!chunk.is_empty());
                self.text.as_mut().expect("text is inside a message").extend_from_slice(&chunk);
            }
            Event::End => {
                let text = self.text.take().expect("what ends has begun");
                let answer = self.judge(&text);
                self.log("end".into());
                self.seen.messages.push(text);
                self.session.answer_message(answer, &mut self.out, self.now);
            }
            Event::Abandon(reason) => {
                assert!(self.text.take().is_some(), "what is abandoned has begun");
                self.log(format!("abandon {reason:?}"));
            }
        }
    }

    fn recipient(&mut self, sender: &smtp::server::MailFrom, rcpt: &smtp::server::RcptTo) -> Result<(), Reply> {
        self.log(format!("{sender:?} to {rcpt:?}"));
        match rcpt.recipient.to_string().split('@').next() {
            Some("unknown") => Err(Reply::enhanced(550, 5, 1, 1, "no such user")),
            Some("later") => Err(Reply::enhanced(451, 4, 7, 1, "greylisted")),
            Some("closing") => Err(Reply::enhanced(421, 4, 7, 0, "go away")),
            _ => Ok(()),
        }
    }

    fn sender_is(&self, local: &str) -> bool {
        let sender = self.session.transaction().and_then(|transaction| transaction.sender.sender.as_ref());
        sender.is_some_and(|sender| sender.local() == local)
    }

    /// The message is over for the shell: no `End` and no `Abandon` follow.
    fn refuse(&mut self) {
        self.text = None;
        let reply = Reply::enhanced(452, 4, 3, 1, "no space");
        self.session.answer_message(MessageAnswer::All(reply), &mut self.out, self.now);
    }

    fn judge(&self, text: &[u8]) -> MessageAnswer {
        let recipients = self.session.transaction().expect("a message has an envelope").recipients.len();
        assert!(recipients > 0);
        let reply = match text.first() {
            Some(b'!') => Reply::enhanced(550, 5, 7, 1, "spam\nreally"),
            Some(b'?') => Reply::enhanced(421, 4, 3, 2, "closing"),
            _ => Reply::enhanced(250, 2, 0, 0, "queued"),
        };
        match text.len() % 3 {
            0 => MessageAnswer::Each(vec![reply; recipients]),
            // One is missing: it becomes 451.
            1 => MessageAnswer::Each(vec![reply; recipients - 1]),
            _ => MessageAnswer::All(reply),
        }
    }
}

fn check(config: &SessionConfig, dialogue: &[u8], seen: &Seen) {
    check_replies(&seen.replies);
    let count = |needle: &[u8]| dialogue.windows(needle.len()).filter(|w| w.eq_ignore_ascii_case(needle)).count();
    // A line of DATA whose own LF begins the end is counted as well: where line ends are normalised it may be a bare one.
    let dots = if config.line_ends == LineEnds::Refuse { count(b"\r\n.\r\n") } else { count(b"\n.\r\n") };
    assert!(seen.messages.len() <= dots + count(b"LAST"), "more messages than ends of text: {seen:#?}");
    for text in &seen.messages {
        assert!(text.is_empty() || text.ends_with(b"\r\n"), "{}", text.escape_ascii());
        for (at, octet) in text.iter().enumerate() {
            let fits = match octet {
                b'\r' => text.get(at + 1) == Some(&b'\n'),
                b'\n' => at > 0 && text[at - 1] == b'\r',
                0 => false,
                _ => true,
            };
            assert!(fits, "a bare line end or a NUL at {at} of {}", text.escape_ascii());
        }
        let max = config.limits.message_max_bytes;
        // A last line without CRLF is given one.
        assert!(max == 0 || text.len() as u64 <= max + 2, "{} octets", text.len());
    }
}

/// RFC 5321 section 4.2, RFC 2034: lines of printable ASCII, one code to a reply.
fn check_replies(replies: &str) {
    assert!(replies.is_empty() || replies.ends_with("\r\n"), "{replies:?}");
    let mut open: Option<&str> = None;
    for line in replies.split_terminator("\r\n") {
        assert!(line.len() <= 510 && line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
        let (code, rest) = line.split_at(3);
        assert!(code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)), "{line:?}");
        assert!(open.is_none_or(|before| before == code), "{replies:?}");
        open = match rest.as_bytes().first() {
            Some(b'-') => Some(code),
            Some(b' ') => None,
            _ => panic!("no space or hyphen behind the code: {line:?}"),
        };
        let enhanced = rest[1..].split(' ').next().and_then(|word| word.parse::<EnhancedCode>().ok());
        assert!(enhanced.is_none_or(|enhanced| code.starts_with(&enhanced.class.to_string())), "{line:?}");
    }
    assert!(open.is_none(), "{replies:?}");
}
