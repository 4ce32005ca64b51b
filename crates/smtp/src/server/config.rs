use std::time::Duration;

use types::Domain;

/// What a session offers and asks for; one for all sessions of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// In the greeting and in the reply to EHLO.
    pub hostname: Domain,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether and when TLS is used.
    pub tls: TlsOffer,
    /// SASL.
    pub auth: AuthOffer,
    /// Bare CR, bare LF and NUL in a message.
    pub line_ends: LineEnds,
    /// Named bounds.
    pub limits: SessionLimits,
}

/// Protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 6409.
    Submission,
    /// RFC 2033.
    Lmtp,
}

/// When TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsOffer {
    /// STARTTLS is not offered.
    Off,
    /// STARTTLS is offered.
    Offered,
    /// Nothing but STARTTLS, EHLO, NOOP and QUIT before TLS (RFC 3207 section 4).
    Required,
    /// TLS runs from the first byte.
    Active,
}

/// SASL of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthOffer {
    /// AUTH is offered.
    pub offered: bool,
    /// MAIL needs it.
    pub required: bool,
    /// AUTH is offered without TLS too.
    pub without_tls: bool,
}

/// Bare CR, bare LF and NUL in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// 550 5.5.2 after the true end.
    Refuse,
    /// Each bare CR or LF becomes CRLF, each NUL is left out.
    Normalise,
}

/// Bounds of a session. Of those that count, 0 means no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Octets of a command line with CRLF. 2,048.
    pub command_line_max_bytes: usize,
    /// Octets of a line of text with CRLF. 1,000,000.
    pub text_line_max_bytes: usize,
    /// Recipients of a transaction. 1,000.
    pub recipients_max: usize,
    /// Octets of a message; SIZE. 50 MiB.
    pub message_max_bytes: u64,
    /// Transactions of a session. 1,000.
    pub messages_max: usize,
    /// Commands since the last message that was taken, less those of a transaction. 1,000.
    pub commands_max: usize,
    /// Errors since the last message that was taken. 20.
    pub errors_max: usize,
    /// Failed AUTHs. 3.
    pub auth_failures_max: usize,
    /// Wait for a whole command. 5 min (RFC 5321 section 4.5.3.2.7).
    pub command_timeout: Duration,
    /// Wait for more of a message. 3 min (RFC 5321 section 4.5.3.2.5).
    pub data_timeout: Duration,
    /// A whole session. 1 h.
    pub session_timeout: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            command_line_max_bytes: 2048,
            text_line_max_bytes: 1_000_000,
            recipients_max: 1000,
            message_max_bytes: 50 << 20,
            messages_max: 1000,
            commands_max: 1000,
            errors_max: 20,
            auth_failures_max: 3,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(3600),
        }
    }
}
