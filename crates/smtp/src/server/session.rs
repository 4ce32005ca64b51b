use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use memchr::memchr;
use types::{Class, Reply};

use super::command::LINE_END;
use super::config::{LineEnds, Protocol, SessionConfig, TlsOffer};
use super::event::{Event, Reason, Step, Transaction};
use super::message::Message;
use super::sasl::Sasl;
use crate::syntax::{Command, RcptTo, parse_command, write_reply};

/// Recipients of one [`Event::Envelope`]; more that came together follow in the next.
const RECIPIENTS_PER_ENVELOPE_MAX: usize = 1000;

/// One client's session.
///
/// Between messages it is a few hundred octets; a message in progress adds as much again, and no text.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<SessionConfig>,
    started: Instant,
    /// When the wait of this state began.
    pub(super) since: Instant,
    /// `since` is to be renewed.
    pub(super) moved: bool,
    pub(super) state: State,
    pub(super) tls: bool,
    /// EHLO or LHLO was said.
    pub(super) extended: bool,
    /// The greeting may not have gone out yet.
    greeting: bool,
    draining: bool,
    pub(super) helo: String,
    pub(super) user: Option<String>,
    pub(super) transaction: Option<Box<Transaction>>,
    /// RCPTs that the shell has not answered yet.
    pending: Vec<RcptTo>,
    pub(super) message: Option<Box<Message>>,
    pub(super) counts: Counts,
}

/// Where a session is.
#[derive(Debug)]
pub(super) enum State {
    /// Not greeted.
    Start,
    /// A command line is awaited.
    Command,
    /// The rest of a line that is too long is awaited.
    SkipLine,
    /// A response to a challenge is awaited.
    Sasl(Sasl),
    /// `Begin` was said, 354 was not.
    Ready,
    /// Text of a message is awaited.
    Text,
    /// The text is at its end, and nobody has been told.
    TextEnd,
    /// Octets of a chunk that nobody wants.
    Swallow(u64),
    /// The shell owes an answer.
    Answer(Owed),
    /// Nothing is read any more.
    Closed,
}

/// The answer that the shell owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    Envelope,
    Authenticate,
    Tls,
    Message,
}

/// What is counted against a limit.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: usize,
    pub(super) commands: usize,
    pub(super) errors: usize,
    pub(super) auth_failures: usize,
    /// RCPTs of the transaction that reached the shell.
    pub(super) recipients: usize,
    /// RCPTs of the transaction beyond the limit.
    pub(super) overshoot: usize,
}

impl Session {
    /// A session that has said nothing yet.
    pub fn new(config: Arc<SessionConfig>, now: Instant) -> Self {
        let tls = config.tls == TlsOffer::Active;
        Self {
            config,
            started: now,
            since: now,
            moved: false,
            state: State::Start,
            tls,
            extended: false,
            greeting: false,
            draining: false,
            helo: String::new(),
            user: None,
            transaction: None,
            pending: Vec::new(),
            message: None,
            counts: Counts::default(),
        }
    }

    /// Says 220. A shell that looks at the input before and finds some calls [`Session::advance`] first: such a client is closed.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::Start) {
            let kind = if self.config.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
            let greeting = format!("220 {} {kind}", self.config.hostname);
            self.say(&greeting, out);
            self.state = State::Command;
            self.greeting = true;
            self.moved = true;
        }
    }

    /// Says `reply` instead of the greeting; the next `advance` is [`Step::Close`].
    pub fn refuse(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        write_reply(reply, out);
        self.state = State::Closed;
    }

    /// Consumes what it can of `input`, appends replies to `out`, and says what the shell must do.
    ///
    /// A message that was begun when `Close` comes is gone, [`Event::Abandon`] has said so; only one whose `End` was said may still be committed.
    pub fn advance(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) -> Step {
        if std::mem::take(&mut self.greeting) && !out.is_empty() && !input.is_empty() {
            self.talks_too_early(out);
        }
        let step = loop {
            if let Some(step) = self.step(input, out) {
                break step;
            }
        };
        if std::mem::take(&mut self.moved) {
            self.since = now;
        }
        step
    }

    /// The earliest time-out of this state and of the whole session: when it has passed, [`Session::time_out`] is due.
    pub fn deadline(&self) -> Instant {
        let limits = &self.config.limits;
        let session = later(self.started, limits.session_timeout);
        let state = match self.state {
            State::Start | State::Command | State::SkipLine | State::Sasl(_) => limits.command_timeout,
            State::Ready | State::Text | State::TextEnd | State::Swallow(_) => limits.data_timeout,
            State::Answer(_) | State::Closed => return session,
        };
        session.min(later(self.since, state))
    }

    /// Says 421 4.4.2; then `advance` ends with [`Step::Close`].
    pub fn time_out(&mut self, out: &mut Vec<u8>) {
        self.close("421 4.4.2 time-out, closing the session", out);
    }

    /// The next command outside a transaction is answered with 421 4.3.2, without waiting for it where none is underway: advance once.
    pub fn shut_down(&mut self) {
        self.draining = true;
    }

    /// The handshake that [`Event::StartTls`] asked for is done: whatever was said in the clear is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, now: Instant) {
        if !self.is_owed(Owed::Tls) {
            return;
        }
        self.tls = true;
        self.extended = false;
        self.helo = String::new();
        self.user = None;
        self.end_transaction();
        self.state = State::Command;
        self.since = now;
    }

    /// Answers [`Event::Envelope`], in the order of its recipients. What is missing becomes 451.
    pub fn answer_envelope(&mut self, answers: Vec<Result<(), Reply>>, out: &mut Vec<u8>) {
        if !self.is_owed(Owed::Envelope) {
            return;
        }
        self.state = State::Command;
        self.moved = true;
        let mut answers = answers.into_iter();
        for rcpt in std::mem::take(&mut self.pending) {
            match answers.next().unwrap_or_else(|| Err(no_answer())) {
                Ok(()) => {
                    out.extend_from_slice(b"250 2.1.5 recipient ok\r\n");
                    if let Some(transaction) = &mut self.transaction {
                        transaction.recipients.push(rcpt);
                    }
                }
                Err(reply) => {
                    write_reply(&reply, out);
                    self.count_refusal(&reply);
                    self.end_if(reply.code == 421);
                    self.check_limits(out);
                }
            }
            // Behind a 421 there is nothing to say.
            if matches!(self.state, State::Closed) {
                return;
            }
        }
    }

    /// Answers [`Event::Authenticate`] with the name that the user has here, or with a refusal.
    pub fn answer_authenticate(&mut self, answer: Result<String, Reply>, out: &mut Vec<u8>) {
        if !self.is_owed(Owed::Authenticate) {
            return;
        }
        self.state = State::Command;
        self.moved = true;
        match answer {
            Ok(user) => {
                self.user = Some(user);
                self.say("235 2.7.0 authenticated", out);
            }
            Err(reply) => {
                write_reply(&reply, out);
                if reply.class() == Class::Permanent {
                    self.counts.auth_failures += 1;
                }
                self.count_refusal(&reply);
                self.end_if(reply.code == 421);
                self.check_limits(out);
            }
        }
    }

    /// What HELO, EHLO or LHLO said; empty before.
    pub fn helo(&self) -> &str {
        &self.helo
    }

    /// Who is authenticated.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// TLS is on.
    pub fn tls_active(&self) -> bool {
        self.tls
    }

    /// The client said EHLO or LHLO.
    pub fn extended(&self) -> bool {
        self.extended
    }

    /// The protocol as `Received:` names it (RFC 3848; RFC 6531 section 4.3 for mail with SMTPUTF8).
    pub fn received_with(&self) -> &'static str {
        let utf8 = self.transaction.as_ref().is_some_and(|transaction| transaction.sender.smtp_utf8);
        match (self.config.protocol == Protocol::Lmtp, utf8, self.tls, self.user.is_some()) {
            (true, false, false, false) => "LMTP",
            (true, false, false, true) => "LMTPA",
            (true, false, true, false) => "LMTPS",
            (true, false, true, true) => "LMTPSA",
            (true, true, false, false) => "UTF8LMTP",
            (true, true, false, true) => "UTF8LMTPA",
            (true, true, true, false) => "UTF8LMTPS",
            (true, true, true, true) => "UTF8LMTPSA",
            (false, true, false, false) => "UTF8SMTP",
            (false, true, false, true) => "UTF8SMTPA",
            (false, true, true, false) => "UTF8SMTPS",
            (false, true, true, true) => "UTF8SMTPSA",
            (false, false, true, true) => "ESMTPSA",
            (false, false, true, false) => "ESMTPS",
            (false, false, false, true) => "ESMTPA",
            (false, false, false, false) if self.extended => "ESMTP",
            (false, false, false, false) => "SMTP",
        }
    }

    /// The envelope so far.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }

    /// The next line of input is a response to a challenge: a secret.
    pub fn masks_input(&self) -> bool {
        matches!(self.state, State::Sasl(_))
    }

    /// What the session was made with.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// One look at the input; `None`: look again.
    fn step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Step> {
        match self.state {
            State::Start if input.is_empty() => Some(Step::Read),
            State::Start => {
                self.talks_too_early(out);
                None
            }
            State::Command => self.command_step(input, out),
            State::SkipLine => match memchr(b'\n', input) {
                Some(end) => {
                    input.advance(end + 1);
                    self.state = State::Command;
                    None
                }
                None => {
                    input.clear();
                    Some(Step::Read)
                }
            },
            State::Sasl(_) => self.sasl_step(input, out),
            State::Ready => {
                self.begin_text(out);
                None
            }
            State::Text => self.text_step(input),
            State::TextEnd => self.end_text(out).map(Step::Event),
            State::Swallow(left) => self.swallow_step(left, input),
            State::Answer(_) => Some(Step::Read),
            State::Closed => {
                input.clear();
                Some(self.take_message(Reason::Closed).map_or(Step::Close, Step::Event))
            }
        }
    }

    fn command_step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Step> {
        if self.draining && self.transaction.is_none() {
            self.close("421 4.3.2 shutting down", out);
            return None;
        }
        let line_max = self.config.limits.command_line_max_bytes;
        let Some(end) = memchr(b'\n', &input[..input.len().min(line_max)]) else {
            if !self.pending.is_empty() {
                return Some(self.ask());
            }
            if input.len() < line_max {
                return Some(Step::Read);
            }
            self.moved = true;
            self.state = State::SkipLine;
            self.error("500 5.5.2 command line is too long", out);
            return None;
        };
        let behind = input.len() > end + 1;
        let parsed = match line_of(&input[..end], self.config.line_ends) {
            Some(line) => parse_command(line),
            None => Err(LINE_END),
        };
        match parsed {
            Ok(Command::Rcpt { rcpt, needs_utf8 }) if self.may_ask(needs_utf8, behind) => {
                self.pending.push(rcpt);
                self.counts.recipients += 1;
                input.advance(end + 1);
                self.moved = true;
                (self.pending.len() == RECIPIENTS_PER_ENVELOPE_MAX).then(|| self.ask())
            }
            // Recipients are answered before anything else is looked at: replies go out in the order of the commands.
            _ if !self.pending.is_empty() => Some(self.ask()),
            Ok(command) => {
                let event = self.run(command, behind, out);
                input.advance(end + 1);
                self.moved = true;
                event.map(Step::Event)
            }
            Err(refusal) => {
                input.advance(end + 1);
                self.moved = true;
                if refusal.close {
                    self.close(refusal.reply, out);
                } else {
                    self.error(refusal.reply, out);
                }
                None
            }
        }
    }

    /// The RCPT passes what can be checked here.
    fn may_ask(&self, needs_utf8: bool, behind: bool) -> bool {
        let Some(transaction) = &self.transaction else {
            return false;
        };
        let max = self.config.limits.recipients_max;
        let room = max == 0 || transaction.recipients.len() + self.pending.len() < max;
        let text = !needs_utf8 || transaction.sender.smtp_utf8;
        self.message.is_none() && room && text && (self.extended || !behind)
    }

    fn ask(&mut self) -> Step {
        self.state = State::Answer(Owed::Envelope);
        let sender = self.transaction.as_ref().map(|transaction| transaction.sender.clone()).unwrap_or_default();
        Step::Event(Event::Envelope { sender, recipients: self.pending.clone() })
    }

    /// Forgets the transaction; a message that the shell holds is to be dropped.
    pub(super) fn reset(&mut self) -> Option<Event> {
        let event = self.take_message(Reason::Reset);
        self.end_transaction();
        event
    }

    fn take_message(&mut self, reason: Reason) -> Option<Event> {
        self.message.take().filter(|message| message.open).map(|_| Event::Abandon(reason))
    }

    pub(super) fn end_transaction(&mut self) {
        self.transaction = None;
        self.message = None;
        self.pending = Vec::new();
        self.counts.recipients = 0;
        self.counts.overshoot = 0;
    }

    /// Writes one line of a reply.
    pub(super) fn say(&mut self, line: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Writes one line, and the session is over.
    pub(super) fn close(&mut self, line: &str, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Closed) {
            self.say(line, out);
            self.state = State::Closed;
        }
    }

    /// Writes one line that counts as an error of the client.
    pub(super) fn error(&mut self, line: &str, out: &mut Vec<u8>) {
        self.say(line, out);
        self.counts.errors += 1;
        self.check_limits(out);
    }

    /// A refusal for good is the client's error; what is only deferred may be ours, but it is not free either.
    pub(super) fn count_refusal(&mut self, reply: &Reply) {
        match reply.class() {
            Class::Permanent => self.counts.errors += 1,
            Class::Transient | Class::Success => self.counts.commands += 1,
        }
    }

    pub(super) fn is_owed(&self, owed: Owed) -> bool {
        matches!(self.state, State::Answer(found) if found == owed)
    }

    pub(super) fn end_if(&mut self, closing: bool) {
        if closing {
            self.state = State::Closed;
        }
    }

    pub(super) fn check_limits(&mut self, out: &mut Vec<u8>) {
        let limits = &self.config.limits;
        let reached = |count: usize, max: usize| max > 0 && count >= max;
        if reached(self.counts.errors, limits.errors_max) {
            self.close("421 4.7.0 too many errors", out);
        } else if reached(self.counts.auth_failures, limits.auth_failures_max) {
            self.close("421 4.7.0 too many failed authentications", out);
        } else if limits.commands_max > 0 && self.counts.commands > limits.commands_max {
            self.close("421 4.7.0 too many commands", out);
        }
    }

    fn talks_too_early(&mut self, out: &mut Vec<u8>) {
        self.close("554 5.5.0 a client waits for the greeting", out);
    }
}

/// A line without its CRLF; `None` where the CR is missing and has to be there. `line` comes without the LF.
pub(super) fn line_of(line: &[u8], line_ends: LineEnds) -> Option<&[u8]> {
    match line.strip_suffix(b"\r") {
        Some(line) => Some(line),
        None if line_ends == LineEnds::Normalise => Some(line),
        None => None,
    }
}

pub(super) fn no_answer() -> Reply {
    Reply::enhanced(451, 4, 3, 0, "local trouble, try again later")
}

/// A moment later; a duration beyond the clock's end counts as a day.
fn later(moment: Instant, wait: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(86_400);
    moment.checked_add(wait).unwrap_or(moment + DAY)
}
