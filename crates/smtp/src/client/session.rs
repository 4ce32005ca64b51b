//! The session: from the greeting over any number of transactions to QUIT.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use types::Reply;

use super::command;
use super::reply::ReplyReader;
use super::transaction::{Progress, Transaction};
use super::{Answer, ClientConfig, Envelope, Extensions, Login, Protocol, Stage, TextWriter, TlsUse, Trouble};

/// Commands that are on their way at a time with PIPELINING: bounds what both sides must buffer (RFC 2920 section 3.1).
pub const PIPELINED_COMMANDS_MAX: usize = 100;
/// RFC 4954 section 4: a longer AUTH command is sent without its initial response.
const AUTH_COMMAND_OCTETS_MAX: usize = 510;

/// What the shell must do next. It writes what was appended to `out` before it waits for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more, at most until [`Session::deadline`].
    Read,
    /// Make the TLS handshake, then call [`Session::tls_started`]. Octets behind the 220 are gone (they were not in TLS).
    StartTls,
    /// [`Session::begin`] a transaction, or [`Session::quit`].
    Ready,
    /// [`Session::text`] once or more, then [`Session::finish`]. A reply may come before: call `advance` when there is input.
    SendText,
    /// The transaction is over: the answers in the order of its recipients. [`Session::is_reusable`] says whether another may follow.
    Done(Vec<Answer>),
    /// The session is over, and no transaction was under way or [`Session::fail`] has its answers.
    Close(Trouble),
}

/// A client session. Pure: octets and `now` in, octets and [`Step`]s out.
pub struct Session {
    config: Arc<ClientConfig>,
    state: State,
    tls_active: bool,
    starttls_refused: bool,
    extensions: Extensions,
    replies: ReplyReader,
    deadline: Instant,
    transaction: Option<Transaction>,
    text: TextWriter,
    /// The peer may still hold a transaction that was given up: RSET comes first.
    dirty: bool,
    /// A reply of the transaction that is under way has arrived.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Hello { esmtp: bool },
    StartTls,
    Handshake,
    Auth(AuthStep),
    Ready,
    Envelope,
    Text,
    End,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthStep {
    PlainChallenge,
    LoginUser,
    LoginPassword,
    Result,
}

impl Session {
    /// A session over a connection that was just made.
    pub fn new(config: Arc<ClientConfig>, now: Instant) -> Self {
        Self {
            state: State::Greeting,
            tls_active: config.tls == TlsUse::Active,
            starttls_refused: false,
            extensions: Extensions::default(),
            replies: ReplyReader::default(),
            deadline: now + config.timeouts.greeting,
            transaction: None,
            text: TextWriter::default(),
            dirty: false,
            heard: false,
            config,
        }
    }

    /// Takes what it can of `input`, appends what must be written to `out`, and says what to do.
    pub fn advance(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) -> Step {
        loop {
            match self.state {
                State::Handshake => return Step::StartTls,
                State::Closed => return self.close(Trouble::Lost(Stage::Idle)),
                State::Envelope if self.nothing_to_wait_for() => return self.done(),
                _ => {}
            }
            match self.replies.next(input) {
                Err(fault) => return self.close(Trouble::Malformed { stage: self.stage(), fault }),
                Ok(Some(reply)) => {
                    if let Some(step) = self.take(reply, input, out, now) {
                        return step;
                    }
                }
                Ok(None) => {
                    return match self.state {
                        State::Ready => Step::Ready,
                        State::Text => Step::SendText,
                        _ => Step::Read,
                    };
                }
            }
        }
    }

    /// Until when the shell waits for the peer: to read, or to be rid of what it writes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the peer is waited for, for messages.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Greeting => Stage::Greeting,
            State::Hello { .. } => Stage::Hello,
            State::StartTls | State::Handshake => Stage::StartTls,
            State::Auth(_) => Stage::Auth,
            State::Ready | State::Closed => Stage::Idle,
            State::Envelope => self.transaction.as_ref().map_or(Stage::Mail, Transaction::stage),
            State::Text => Stage::Text,
            State::End => Stage::End,
        }
    }

    /// What the peer offers, as of its last reply to EHLO.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Whether the octets travel in TLS.
    pub fn tls_active(&self) -> bool {
        self.tls_active
    }

    /// Whether delivered recipients were given DSN parameters; where not, the "relayed" report is ours to write
    /// (RFC 3461 section 5.2.2).
    pub fn passes_dsn(&self) -> bool {
        command::passes_dsn(&self.extensions, self.config.protocol)
    }

    /// Whether another transaction may begin.
    pub fn is_reusable(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether any reply of the transaction has arrived. Where none has, and the session had been idle before, the peer
    /// may have ended it without a word: the transaction can be tried over a new connection.
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// After [`Step::StartTls`], when the handshake is done: what was learned in the clear is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) {
        input.clear();
        self.replies.reset();
        self.extensions = Extensions::default();
        self.tls_active = true;
        self.hello(true, out, now);
    }

    /// Begins a transaction. What can be sent at once is appended to `out`: with PIPELINING all of MAIL, RCPT and DATA.
    /// To be called after [`Step::Ready`] only.
    pub fn begin(&mut self, envelope: Envelope, out: &mut Vec<u8>, now: Instant) {
        debug_assert_eq!(self.state, State::Ready);
        self.heard = false;
        self.text = TextWriter::default();
        let mut transaction = Transaction::new(envelope, &self.extensions, self.config.protocol, self.dirty);
        transaction.send_more(out);
        self.transaction = Some(transaction);
        self.state = State::Envelope;
        self.wait(now, self.config.timeouts.command);
    }

    /// Appends the next octets of the text, dot-stuffed and with CRLF line ends only. After [`Step::SendText`] only.
    pub fn text(&mut self, text: &[u8], out: &mut Vec<u8>, now: Instant) {
        debug_assert_eq!(self.state, State::Text);
        self.text.push(text, out);
        self.wait(now, self.config.timeouts.block);
    }

    /// Ends the text.
    pub fn finish(&mut self, out: &mut Vec<u8>, now: Instant) {
        debug_assert_eq!(self.state, State::Text);
        self.text.finish(out);
        self.state = State::End;
        self.wait(now, self.config.timeouts.end);
    }

    /// Ends the session: no answer is lost by it.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Ready {
            out.extend_from_slice(b"QUIT\r\n");
        }
        self.state = State::Closed;
    }

    /// Ends the session because of `trouble`: recipients that have no answer yet get one from it. Empty where no
    /// transaction was under way.
    pub fn fail(&mut self, trouble: &Trouble) -> Vec<Answer> {
        self.state = State::Closed;
        self.transaction.take().map(|transaction| transaction.into_answers(&trouble.answer())).unwrap_or_default()
    }

    fn take(&mut self, reply: Reply, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        match self.state {
            State::Greeting => self.take_greeting(reply, out, now),
            State::Hello { esmtp } => self.take_hello(esmtp, reply, out, now),
            State::StartTls => self.take_starttls(reply, input, out, now),
            State::Auth(step) => self.take_auth(step, reply, out, now),
            State::Ready | State::Handshake | State::Closed => Some(self.close(Trouble::Ended(reply))),
            State::Envelope => self.take_envelope(reply, out, now),
            State::Text => Some(self.take_early(reply)),
            State::End => self.take_end(reply, now),
        }
    }

    fn take_greeting(&mut self, reply: Reply, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        match reply.code {
            220 => {
                self.hello(true, out, now);
                None
            }
            code @ 200..=399 => Some(self.close(Trouble::OutOfOrder { stage: Stage::Greeting, code })),
            _ => Some(self.close(Trouble::Refused { stage: Stage::Greeting, reply })),
        }
    }

    fn hello(&mut self, esmtp: bool, out: &mut Vec<u8>, now: Instant) {
        let verb: &[u8] = match (self.config.protocol, esmtp) {
            (Protocol::Lmtp, _) => b"LHLO ",
            (Protocol::Smtp, true) => b"EHLO ",
            (Protocol::Smtp, false) => b"HELO ",
        };
        for part in [verb, self.config.hello.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
        self.state = State::Hello { esmtp };
        self.wait(now, self.config.timeouts.command);
    }

    fn take_hello(&mut self, esmtp: bool, reply: Reply, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        match reply.code {
            250 => {
                self.extensions = if esmtp { Extensions::read(&reply) } else { Extensions::default() };
                self.after_hello(out, now)
            }
            code @ 200..=399 => Some(self.close(Trouble::OutOfOrder { stage: Stage::Hello, code })),
            // RFC 5321 section 3.2: a server without extensions does not know EHLO.
            500..=599 if esmtp && self.config.protocol == Protocol::Smtp => {
                self.hello(false, out, now);
                None
            }
            _ => Some(self.close(Trouble::Refused { stage: Stage::Hello, reply })),
        }
    }

    fn after_hello(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        let offered = self.extensions.starttls && !self.starttls_refused;
        match self.config.tls {
            TlsUse::Required if !self.tls_active && !offered => return Some(self.close(Trouble::TlsNotOffered)),
            TlsUse::Required | TlsUse::Opportunistic if !self.tls_active && offered => {
                out.extend_from_slice(b"STARTTLS\r\n");
                self.state = State::StartTls;
                self.wait(now, self.config.timeouts.command);
                return None;
            }
            _ => {}
        }
        self.authenticate(out, now)
    }

    fn take_starttls(&mut self, reply: Reply, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        match reply.code {
            220 => {
                // What came behind the 220 was not protected by the handshake: anybody may have put it there.
                input.clear();
                self.state = State::Handshake;
                Some(Step::StartTls)
            }
            code @ 200..=399 => Some(self.close(Trouble::OutOfOrder { stage: Stage::StartTls, code })),
            code if self.config.tls == TlsUse::Opportunistic && code != 421 => {
                self.starttls_refused = true;
                self.authenticate(out, now)
            }
            _ => Some(self.close(Trouble::Refused { stage: Stage::StartTls, reply })),
        }
    }

    fn authenticate(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        let Some(login) = &self.config.login else {
            self.state = State::Ready;
            return None;
        };
        if !self.tls_active && !self.config.auth_without_tls {
            return Some(self.close(Trouble::AuthNeedsTls));
        }
        let step = if self.extensions.auth_plain {
            let response = plain(login);
            let whole = format!("AUTH PLAIN {response}");
            let fits = whole.len() <= AUTH_COMMAND_OCTETS_MAX;
            push_line(if fits { &whole } else { "AUTH PLAIN" }, out);
            if fits { AuthStep::Result } else { AuthStep::PlainChallenge }
        } else if self.extensions.auth_login {
            push_line("AUTH LOGIN", out);
            AuthStep::LoginUser
        } else {
            return Some(self.close(Trouble::AuthNotOffered));
        };
        self.state = State::Auth(step);
        self.wait(now, self.config.timeouts.command);
        None
    }

    fn take_auth(&mut self, step: AuthStep, reply: Reply, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        let login = self.config.login.as_ref()?;
        let next = match (step, reply.code) {
            (AuthStep::Result, 200..=299) => {
                self.state = State::Ready;
                return None;
            }
            (AuthStep::PlainChallenge, 334) => {
                push_line(&plain(login), out);
                AuthStep::Result
            }
            (AuthStep::LoginUser, 334) => {
                push_line(&STANDARD.encode(&login.user), out);
                AuthStep::LoginPassword
            }
            (AuthStep::LoginPassword, 334) => {
                push_line(&STANDARD.encode(&login.password), out);
                AuthStep::Result
            }
            (_, code @ 200..=399) => return Some(self.close(Trouble::OutOfOrder { stage: Stage::Auth, code })),
            _ => return Some(self.close(Trouble::Refused { stage: Stage::Auth, reply })),
        };
        self.state = State::Auth(next);
        self.wait(now, self.config.timeouts.command);
        None
    }

    fn take_envelope(&mut self, reply: Reply, out: &mut Vec<u8>, now: Instant) -> Option<Step> {
        self.heard = true;
        let transaction = self.transaction.as_mut()?;
        let wait = match transaction.take(reply) {
            Progress::Waiting => self.config.timeouts.command,
            Progress::WaitingForData => self.config.timeouts.data,
            Progress::Text => {
                self.state = State::Text;
                self.wait(now, self.config.timeouts.block);
                return None;
            }
            Progress::NobodyLeft => {
                // RFC 2920 section 3.1: DATA was pipelined and taken, though there is nobody to send to.
                out.extend_from_slice(b".\r\n");
                self.config.timeouts.end
            }
            Progress::Over => return Some(self.done()),
            Progress::Ended => {
                let step = self.done();
                self.state = State::Closed;
                return Some(step);
            }
            Progress::OutOfOrder { stage, code } => return Some(self.close(Trouble::OutOfOrder { stage, code })),
        };
        transaction.send_more(out);
        self.wait(now, wait);
        None
    }

    /// A reply before the text has ended: a refusal is taken, a success is a lie.
    fn take_early(&mut self, reply: Reply) -> Step {
        if (200..=399).contains(&reply.code) {
            return self.close(Trouble::OutOfOrder { stage: Stage::Text, code: reply.code });
        }
        let answers = self.fail_with(&Answer::peer(reply, Stage::Text));
        Step::Done(answers)
    }

    fn take_end(&mut self, reply: Reply, now: Instant) -> Option<Step> {
        if (300..=399).contains(&reply.code) {
            return Some(self.close(Trouble::OutOfOrder { stage: Stage::End, code: reply.code }));
        }
        let ended = reply.code == 421;
        let transaction = self.transaction.as_mut()?;
        if ended {
            let answers = self.fail_with(&Answer::peer(reply, Stage::End));
            return Some(Step::Done(answers));
        }
        if transaction.take_end(Answer::peer(reply, Stage::End)) {
            return Some(self.done());
        }
        self.wait(now, self.config.timeouts.end);
        None
    }

    fn nothing_to_wait_for(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::is_over)
    }

    fn done(&mut self) -> Step {
        self.state = State::Ready;
        let Some(transaction) = self.transaction.take() else { return Step::Done(Vec::new()) };
        self.dirty = transaction.leaves_the_peer_dirty();
        let missing = Trouble::Lost(Stage::Rcpt).answer();
        Step::Done(transaction.into_answers(&missing))
    }

    fn fail_with(&mut self, answer: &Answer) -> Vec<Answer> {
        self.state = State::Closed;
        self.transaction.take().map(|transaction| transaction.into_answers(answer)).unwrap_or_default()
    }

    fn close(&mut self, trouble: Trouble) -> Step {
        self.state = State::Closed;
        Step::Close(trouble)
    }

    fn wait(&mut self, now: Instant, duration: Duration) {
        self.deadline = now + duration;
    }
}

fn push_line(line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// RFC 4616.
fn plain(login: &Login) -> String {
    STANDARD.encode(format!("\0{}\0{}", login.user, login.password))
}
