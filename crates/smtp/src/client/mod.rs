//! The client's half: SMTP (RFC 5321) and LMTP (RFC 2033) sessions without I/O or clock.
//!
//! [`Session`] takes the octets of the peer and says what the shell must do ([`Step`]); what must be written is appended
//! to a buffer, so that the shell writes as much as it can in one go.

mod answer;
mod command;
mod extensions;
mod reply;
mod session;
#[cfg(test)]
mod tests;
mod text;
mod transaction;

use std::time::Duration;

use types::Address;

pub use answer::{Answer, AnsweredBy, Stage, Trouble};
pub use extensions::Extensions;
pub use reply::{REPLY_LINE_OCTETS_MAX, REPLY_LINES_MAX, REPLY_OCTETS_MAX, ReplyFault};
pub use session::{PIPELINED_COMMANDS_MAX, Session, Step};
pub use text::TextWriter;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: LHLO, and a reply for each accepted recipient after the text.
    Lmtp,
}

/// When a session turns to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// STARTTLS is never asked for.
    Never,
    /// STARTTLS where it is offered.
    Opportunistic,
    /// Nothing is sent without it.
    Required,
    /// The octets already travel in TLS.
    Active,
}

/// A user name and a password.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Does not print.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What is the same for all sessions to a destination.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// What is spoken.
    pub protocol: Protocol,
    /// Argument of EHLO, HELO, LHLO.
    pub hello: String,
    /// When to turn to TLS.
    pub tls: TlsUse,
    /// AUTH before the first transaction.
    pub login: Option<Login>,
    /// The login may travel in the clear.
    pub auth_without_tls: bool,
    /// How long the peer may take.
    pub timeouts: Timeouts,
}

/// How long a peer may take (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For its greeting. 5 min.
    pub greeting: Duration,
    /// For the reply to a command. 5 min.
    pub command: Duration,
    /// For the 354 to DATA. 2 min.
    pub data: Duration,
    /// To take a block of text. 3 min.
    pub block: Duration,
    /// For the reply to the end of the text. 10 min.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(300),
            command: Duration::from_secs(300),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            end: Duration::from_secs(600),
        }
    }
}

/// What a text needs of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// Nothing was declared, or US-ASCII.
    #[default]
    SevenBit,
    /// RFC 6152.
    EightBit,
    /// RFC 3030: cannot be sent, for there is no conversion.
    Binary,
}

/// What a report about the message should hold (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header section.
    Headers,
}

/// The bits of [`Recipient::notify`].
pub mod notify {
    /// No report at all.
    pub const NEVER: u32 = 1;
    /// A report on delivery.
    pub const SUCCESS: u32 = 2;
    /// A report on failure.
    pub const FAILURE: u32 = 4;
    /// A report on delay.
    pub const DELAY: u32 = 8;
}

/// The envelope of one transaction.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// `None`: the null reverse-path.
    pub sender: Option<Address>,
    /// Octets of the text, for SIZE.
    pub size: u64,
    /// What the text needs.
    pub body: Body,
    /// The header section or an address needs SMTPUTF8.
    pub smtp_utf8: bool,
    /// RET, passed on where DSN is offered.
    pub ret: Option<Ret>,
    /// ENVID, decoded; passed on where DSN is offered.
    pub envid: Option<String>,
    /// One or more.
    pub recipients: Vec<Recipient>,
}

/// One recipient of a transaction.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// RCPT TO.
    pub address: Address,
    /// `type;address`, decoded; passed on where DSN is offered.
    pub orcpt: Option<String>,
    /// Bits of [`notify`]; 0: not given.
    pub notify: u32,
}
