//! One command after the other, as RFC 5321 section 4.1.4 orders them.

use std::fmt::Write;

use super::config::{Protocol, TlsOffer};
use super::event::{Event, Transaction};
use super::message::Message;
use super::sasl::{BAD_RESPONSE, Sasl};
use super::session::{Owed, Session, State};
use super::text::Text;
use crate::syntax::{Command, MailFrom, Mechanism, Refusal, decode_base64};

pub(super) const LINE_END: Refusal = Refusal { reply: "500 5.5.2 a command line ends with CRLF", close: false };
pub(super) const IMPROPER_PIPELINING: &str = "503 5.5.0 improper use of pipelining";

const NO_TRANSACTION: &str = "503 5.5.1 MAIL first";
const NO_RECIPIENT: &str = "503 5.5.1 RCPT first";
const IN_TRANSACTION: &str = "503 5.5.1 not inside a transaction";
const IN_BDAT: &str = "503 5.5.1 BDAT has begun";

/// RCPTs beyond the limit that are not counted as errors: RFC 5321 section 4.5.3.1.10 has the client send them again.
const RECIPIENTS_OVERSHOOT_MAX: usize = 1000;

impl Session {
    /// Does what `command` asks for. `behind`: octets that came with it follow it in the input.
    pub(super) fn run(&mut self, command: Command<'_>, behind: bool, out: &mut Vec<u8>) -> Option<Event> {
        if behind && self.is_improper(&command) {
            self.close(IMPROPER_PIPELINING, out);
            return None;
        }
        if self.needs_tls(&command) {
            self.error("530 5.7.0 must issue a STARTTLS command first", out);
            self.swallow_behind(&command);
            return None;
        }
        if !matches!(command, Command::Mail(_) | Command::Rcpt { .. } | Command::Data | Command::Bdat { .. }) {
            self.counts.commands += 1;
            self.check_limits(out);
            if matches!(self.state, State::Closed) {
                return None;
            }
        }
        match command {
            Command::Ehlo(name) => return self.hello(name, Hello::Ehlo, out),
            Command::Helo(name) => return self.hello(name, Hello::Helo, out),
            Command::Lhlo(name) => return self.hello(name, Hello::Lhlo, out),
            Command::Mail(mail) => self.mail(mail, out),
            Command::Rcpt { needs_utf8, .. } => self.refuse_rcpt(needs_utf8, out),
            Command::Data => return self.data(out),
            Command::Bdat { size, last } => return self.bdat(size, last, out),
            Command::Rset => {
                self.say("250 2.0.0 reset", out);
                return self.reset();
            }
            Command::Vrfy => self.say("252 2.0.0 cannot verify, send mail and see", out),
            Command::Expn => self.error("502 5.5.1 lists are not expanded", out),
            Command::Help => self.say("214 2.0.0 see RFC 5321", out),
            Command::Noop => self.say("250 2.0.0 ok", out),
            Command::Quit => self.close("221 2.0.0 bye", out),
            Command::StartTls => return self.start_tls(behind, out),
            Command::Auth { mechanism, initial } => return self.auth(mechanism, initial, out),
            Command::Foreign => self.close("554 5.5.1 this is a mail server", out),
        }
        None
    }

    /// RFC 2920 section 3.1: these end a group, and nothing is grouped before EHLO offered it.
    ///
    /// STARTTLS is treated by itself, QUIT and another protocol end the session anyway, and a chunk follows its BDAT.
    fn is_improper(&self, command: &Command<'_>) -> bool {
        match command {
            Command::StartTls | Command::Quit | Command::Foreign | Command::Bdat { .. } => false,
            Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) | Command::Data | Command::Auth { .. } => true,
            Command::Noop | Command::Vrfy | Command::Expn => true,
            Command::Mail(_) | Command::Rcpt { .. } | Command::Rset | Command::Help => !self.extended,
        }
    }

    /// RFC 3207 section 4.
    fn needs_tls(&self, command: &Command<'_>) -> bool {
        let allowed = matches!(
            command,
            Command::Ehlo(_) | Command::Lhlo(_) | Command::Noop | Command::Quit | Command::StartTls | Command::Foreign
        );
        self.config.tls == TlsOffer::Required && !self.tls && !allowed
    }

    /// Octets of a chunk are never commands, whatever became of its BDAT (RFC 3030 section 2).
    fn swallow_behind(&mut self, command: &Command<'_>) {
        if let Command::Bdat { size, .. } = command
            && matches!(self.state, State::Command)
        {
            self.state = State::Swallow(*size);
        }
    }

    fn hello(&mut self, name: &str, hello: Hello, out: &mut Vec<u8>) -> Option<Event> {
        let lmtp = self.config.protocol == Protocol::Lmtp;
        if lmtp != matches!(hello, Hello::Lhlo) {
            // RFC 2033 section 4.1.
            self.error(if lmtp { "500 5.5.1 say LHLO" } else { "500 5.5.1 say EHLO" }, out);
            return None;
        }
        // RFC 5321 section 4.1.4: EHLO inside a transaction is RSET as well.
        let event = self.reset();
        self.helo = name.to_owned();
        self.extended = !matches!(hello, Hello::Helo);
        if self.extended {
            self.write_extensions(out);
        } else {
            let line = format!("250 {}", self.config.hostname);
            self.say(&line, out);
        }
        event
    }

    fn write_extensions(&mut self, out: &mut Vec<u8>) {
        let (config, limits) = (&self.config, &self.config.limits);
        let mut text =
            format!("250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n", config.hostname, limits.message_max_bytes);
        if matches!(config.tls, TlsOffer::Offered | TlsOffer::Required) && !self.tls {
            text.push_str("250-STARTTLS\r\n");
        }
        if self.offers_auth() && self.user.is_none() {
            text.push_str("250-AUTH PLAIN LOGIN\r\n");
        }
        // RFC 9422 section 4.
        let bounds = [("RCPTMAX", limits.recipients_max), ("MAILMAX", limits.messages_max)];
        if bounds.iter().any(|(_, max)| *max > 0) {
            text.push_str("250-LIMITS");
            for (name, max) in bounds.into_iter().filter(|(_, max)| *max > 0) {
                // Writing into a String cannot fail.
                let _ = write!(text, " {name}={max}");
            }
            text.push_str("\r\n");
        }
        text.push_str("250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n");
        out.extend_from_slice(text.as_bytes());
    }

    fn offers_auth(&self) -> bool {
        self.config.auth.offered && (self.tls || self.config.auth.without_tls)
    }

    fn mail(&mut self, mail: MailFrom, out: &mut Vec<u8>) {
        let limits = &self.config.limits;
        if self.helo.is_empty() {
            let hello =
                if self.config.protocol == Protocol::Lmtp { "503 5.5.1 LHLO first" } else { "503 5.5.1 EHLO first" };
            self.error(hello, out);
        } else if self.transaction.is_some() {
            self.error("503 5.5.1 MAIL was given already", out);
        } else if self.config.auth.required && self.user.is_none() {
            // RFC 4954 section 6.
            self.error("530 5.7.0 authentication required", out);
        } else if limits.messages_max > 0 && self.counts.messages >= limits.messages_max {
            self.close("421 4.7.0 too many messages in one session", out);
        } else if limits.message_max_bytes > 0 && mail.size.is_some_and(|size| size > limits.message_max_bytes) {
            // RFC 1870 section 6.1.
            self.error("552 5.3.4 message is too large", out);
        } else {
            self.counts.messages += 1;
            self.transaction = Some(Box::new(Transaction { sender: mail, recipients: Vec::new() }));
            self.say("250 2.1.0 sender ok", out);
        }
    }

    /// A RCPT that does not get as far as the shell.
    fn refuse_rcpt(&mut self, needs_utf8: bool, out: &mut Vec<u8>) {
        let Some(transaction) = &self.transaction else {
            self.error(NO_TRANSACTION, out);
            return;
        };
        if self.message.is_some() {
            self.error(IN_BDAT, out);
        } else if needs_utf8 && !transaction.sender.smtp_utf8 {
            self.error("553 5.6.7 address is not ASCII and SMTPUTF8 was not asked for", out);
        } else {
            // RFC 5321 section 4.5.3.1.10.
            let line = "452 4.5.3 too many recipients";
            self.counts.overshoot += 1;
            if self.counts.overshoot > RECIPIENTS_OVERSHOOT_MAX {
                self.error(line, out);
            } else {
                self.say(line, out);
            }
        }
    }

    /// Why a message cannot begin here.
    fn no_message(&self) -> Option<&'static str> {
        let Some(transaction) = &self.transaction else {
            return Some(NO_TRANSACTION);
        };
        if !transaction.recipients.is_empty() {
            None
        } else if self.counts.recipients == 0 || self.config.protocol == Protocol::Lmtp {
            // RFC 2033 section 4.2 has 503 where no RCPT was accepted.
            Some(NO_RECIPIENT)
        } else {
            Some("554 5.5.1 no valid recipients")
        }
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let fault = if self.message.is_some() { Some(IN_BDAT) } else { self.no_message() };
        if let Some(line) = fault {
            self.error(line, out);
            return None;
        }
        self.message = Some(Box::new(Message::new(Text::dotted(&self.config))));
        self.state = State::Ready;
        Some(Event::Begin)
    }

    fn bdat(&mut self, size: u64, last: bool, out: &mut Vec<u8>) -> Option<Event> {
        if let Some(line) = self.no_message() {
            self.error(line, out);
            self.swallow_behind(&Command::Bdat { size, last });
            return None;
        }
        if size == 0 && !last {
            self.counts.commands += 1;
            self.check_limits(out);
            if matches!(self.state, State::Closed) {
                return None;
            }
        }
        let begins = self.message.is_none();
        let message = self.message.get_or_insert_with(|| Box::new(Message::new(Text::chunked(&self.config))));
        message.text.begin_chunk(size, last);
        message.chunk_octets = size;
        self.state = State::Text;
        begins.then_some(Event::Begin)
    }

    fn start_tls(&mut self, behind: bool, out: &mut Vec<u8>) -> Option<Event> {
        if !matches!(self.config.tls, TlsOffer::Offered | TlsOffer::Required) && !self.tls {
            self.error("502 5.5.1 STARTTLS is not offered", out);
        } else if self.tls {
            self.error("503 5.5.1 TLS is active already", out);
        } else if behind {
            // CVE-2011-0411: what came in the clear must not be read as if it came by TLS.
            self.close("554 5.5.1 nothing may follow STARTTLS", out);
        } else if self.transaction.is_some() {
            self.error(IN_TRANSACTION, out);
        } else {
            self.say("220 2.0.0 ready to start TLS", out);
            self.state = State::Answer(Owed::Tls);
            return Some(Event::StartTls);
        }
        None
    }

    fn auth(&mut self, mechanism: Option<Mechanism>, initial: Option<&str>, out: &mut Vec<u8>) -> Option<Event> {
        let fault = if !self.extended {
            Some("503 5.5.1 EHLO first")
        } else if !self.config.auth.offered {
            Some("502 5.5.1 AUTH is not offered")
        } else if !self.offers_auth() {
            // RFC 4954 section 6.
            Some("538 5.7.11 encryption required for authentication")
        } else if self.user.is_some() {
            Some("503 5.5.1 authenticated already")
        } else if self.transaction.is_some() {
            Some(IN_TRANSACTION)
        } else if mechanism.is_none() {
            Some("504 5.5.4 mechanism is not offered")
        } else {
            None
        };
        if let Some(line) = fault {
            self.error(line, out);
            return None;
        }
        let sasl = if mechanism == Some(Mechanism::Login) { Sasl::LoginUser } else { Sasl::Plain };
        let Some(initial) = initial else {
            // "Username:" in base64.
            self.say(if mechanism == Some(Mechanism::Login) { "334 VXNlcm5hbWU6" } else { "334 " }, out);
            self.state = State::Sasl(sasl);
            return None;
        };
        // RFC 4954 section 4: a single `=` is an empty response.
        let response = if initial == "=" { Ok(Vec::new()) } else { decode_base64(initial.as_bytes()) };
        match response {
            Ok(response) => self.respond(sasl, &response, out),
            Err(_) => {
                self.error(BAD_RESPONSE, out);
                None
            }
        }
    }
}

/// By which word the client introduced itself.
#[derive(Debug, Clone, Copy)]
enum Hello {
    Ehlo,
    Helo,
    Lhlo,
}
