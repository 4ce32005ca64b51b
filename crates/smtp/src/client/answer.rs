//! What a session learned about a recipient, or why it ended.

use types::{Class, EnhancedCode, Reply};

use super::ReplyFault;

/// Where in the dialogue something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before any octet.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO, HELO, LHLO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// Between transactions.
    Idle,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, until its 354.
    Data,
    /// The text.
    Text,
    /// After the final dot.
    End,
}

impl Stage {
    /// As in "connection lost while waiting for ...".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "the connection",
            Self::Greeting => "the greeting",
            Self::Hello => "the reply to EHLO",
            Self::StartTls => "TLS",
            Self::Auth => "the reply to AUTH",
            Self::Idle => "the next transaction",
            Self::Mail => "the reply to MAIL",
            Self::Rcpt => "the reply to RCPT",
            Self::Data => "the reply to DATA",
            Self::Text => "the peer to take the text",
            Self::End => "the reply to the end of the text",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The peer, by a reply.
    Peer,
    /// We, in its place.
    Us,
}

/// What is known of one recipient at the end of a transaction. The enhanced code of the reply is always set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The reply, or ours in its place.
    pub reply: Reply,
    /// What it means for a retry.
    pub class: Class,
    /// Who said it.
    pub by: AnsweredBy,
}

impl Answer {
    /// An answer that was given by the peer.
    pub(super) fn peer(mut reply: Reply, stage: Stage) -> Self {
        let mut class = reply.class();
        let enhanced = *reply.enhanced.get_or_insert_with(|| derive(reply.code, stage));
        // RFC 5321 section 4.5.3.1.10: 552 for too many recipients is a temporary failure.
        if stage == Stage::Rcpt && reply.code == 552 && enhanced == EnhancedCode::new(5, 5, 3) {
            class = Class::Transient;
            reply.enhanced = Some(EnhancedCode::new(4, 5, 3));
        }
        Self { reply, class, by: AnsweredBy::Peer }
    }

    pub(super) fn ours(reply: Reply) -> Self {
        Self { class: reply.class(), reply, by: AnsweredBy::Us }
    }
}

/// The enhanced code of a reply that has none (RFC 3463; RFC 5321 section 4.2.2).
fn derive(code: u16, stage: Stage) -> EnhancedCode {
    let class = match code {
        200..=399 => 2,
        500..=599 => 5,
        _ => 4,
    };
    let (subject, detail) = match (code, stage) {
        (421, _) => (3, 2),
        (450, _) => (2, 1),
        (451, _) => (3, 0),
        (452, Stage::Rcpt) => (5, 3),
        (452, _) => (3, 1),
        (454 | 530 | 534 | 538, _) => (7, 0),
        (535, _) => (7, 8),
        (455 | 501 | 504 | 555, _) => (5, 4),
        (500, _) => (5, 2),
        (502 | 503, _) => (5, 1),
        (521, _) => (3, 2),
        (550, Stage::Rcpt) => (1, 1),
        (550 | 553, Stage::Mail) => (1, 7),
        (550, Stage::Data | Stage::Text | Stage::End) => (7, 1),
        (551, _) => (1, 6),
        (552, Stage::Mail) => (3, 4),
        (552, _) => (2, 2),
        (553, _) => (1, 3),
        (554, Stage::Data | Stage::Text | Stage::End) => (6, 0),
        (554, Stage::Greeting) => (3, 2),
        (556, _) => (1, 10),
        _ => (0, 0),
    };
    EnhancedCode::new(class, subject, detail)
}

/// Why a session ended before its work was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The peer refused the session itself.
    #[error("{stage} was refused: {reply}")]
    Refused {
        /// Greeting, Hello, StartTls or Auth.
        stage: Stage,
        /// What it said.
        reply: Reply,
    },
    /// The peer said something between transactions.
    #[error("session was ended by the peer: {0}")]
    Ended(Reply),
    /// TLS is required, and STARTTLS is not offered.
    #[error("TLS is required and the peer does not offer STARTTLS")]
    TlsNotOffered,
    /// There is a login, and the peer offers neither PLAIN nor LOGIN.
    #[error("the peer offers neither AUTH PLAIN nor AUTH LOGIN")]
    AuthNotOffered,
    /// There is a login, and it may not travel in the clear.
    #[error("there is no TLS and the login may not travel in the clear")]
    AuthNeedsTls,
    /// Octets that are no reply.
    #[error("{fault} (waiting for {stage})")]
    Malformed {
        /// Waiting for.
        stage: Stage,
        /// What is wrong with them.
        fault: ReplyFault,
    },
    /// A reply code that has no meaning here.
    #[error("reply code {code} has no meaning as {stage}")]
    OutOfOrder {
        /// Waiting for.
        stage: Stage,
        /// The code.
        code: u16,
    },
    /// The peer took too long.
    #[error("timed out while waiting for {0}")]
    TimedOut(Stage),
    /// The connection ended.
    #[error("connection lost while waiting for {0}")]
    Lost(Stage),
    /// There is no connection, or no TLS, or no text: the shell says why.
    #[error("{text}")]
    Shell {
        /// Second and third number of the enhanced code, of class 4.
        code: (u16, u16),
        /// Why.
        text: String,
    },
}

impl Trouble {
    /// What it means for a recipient that has no answer of its own. Transient, but for hosts that say they take no mail
    /// (RFC 7504; RFC 5321 section 3.1).
    pub fn answer(&self) -> Answer {
        let ours = |subject, detail| Answer::ours(Reply::enhanced(451, 4, subject, detail, self.to_string()));
        match self {
            Self::Refused { stage: Stage::Greeting, reply } if matches!(reply.code, 521 | 554) => {
                Answer::peer(reply.clone(), Stage::Greeting)
            }
            Self::Refused { stage, reply } => {
                let subject = if matches!(stage, Stage::StartTls | Stage::Auth) { (7, 0) } else { (3, 0) };
                let enhanced = match reply.enhanced {
                    Some(given) => EnhancedCode::new(4, given.subject, given.detail),
                    None if *stage == Stage::Auth => EnhancedCode::new(4, 7, 8),
                    None if reply.code == 421 => EnhancedCode::new(4, 3, 2),
                    None => EnhancedCode::new(4, subject.0, subject.1),
                };
                let reply = Reply::new(reply.code, Some(enhanced), reply.text());
                Answer { reply, class: Class::Transient, by: AnsweredBy::Peer }
            }
            Self::Ended(reply) => {
                let mut answer = Answer::peer(reply.clone(), Stage::Idle);
                answer.class = Class::Transient;
                answer.reply.enhanced = Some(EnhancedCode::new(4, 4, 2));
                answer
            }
            Self::TlsNotOffered => ours(7, 4),
            Self::AuthNotOffered => ours(7, 4),
            Self::AuthNeedsTls => ours(7, 11),
            Self::Malformed { .. } | Self::OutOfOrder { .. } => ours(5, 0),
            Self::TimedOut(Stage::Connect) | Self::Lost(Stage::Connect) => ours(4, 1),
            Self::TimedOut(_) | Self::Lost(_) => ours(4, 2),
            Self::Shell { code: (subject, detail), .. } => ours(*subject, *detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_without_an_enhanced_code_get_a_sensible_one() {
        let cases = [
            (250, Stage::End, "2.0.0"),
            (421, Stage::Mail, "4.3.2"),
            (450, Stage::Rcpt, "4.2.1"),
            (451, Stage::End, "4.3.0"),
            (452, Stage::Rcpt, "4.5.3"),
            (452, Stage::Mail, "4.3.1"),
            (550, Stage::Rcpt, "5.1.1"),
            (550, Stage::End, "5.7.1"),
            (552, Stage::Rcpt, "5.2.2"),
            (552, Stage::Mail, "5.3.4"),
            (553, Stage::Rcpt, "5.1.3"),
            (553, Stage::Mail, "5.1.7"),
            (554, Stage::End, "5.6.0"),
            (554, Stage::Rcpt, "5.0.0"),
            (556, Stage::Rcpt, "5.1.10"),
            (599, Stage::Rcpt, "5.0.0"),
            (499, Stage::Rcpt, "4.0.0"),
        ];
        for (code, stage, expected) in cases {
            let answer = Answer::peer(Reply::new(code, None, "x"), stage);
            assert_eq!(answer.reply.enhanced.unwrap().to_string(), expected, "{code} {stage:?}");
        }
    }

    #[test]
    fn trouble_is_transient_but_for_hosts_that_take_no_mail() {
        let refused = |stage, code| Trouble::Refused { stage, reply: Reply::new(code, None, "go away") };
        let cases = [
            (refused(Stage::Greeting, 554), Class::Permanent, "5.3.2"),
            (refused(Stage::Greeting, 521), Class::Permanent, "5.3.2"),
            (refused(Stage::Greeting, 550), Class::Transient, "4.3.0"),
            (refused(Stage::Greeting, 421), Class::Transient, "4.3.2"),
            (refused(Stage::Hello, 550), Class::Transient, "4.3.0"),
            (refused(Stage::Auth, 535), Class::Transient, "4.7.8"),
            (Trouble::TlsNotOffered, Class::Transient, "4.7.4"),
            (Trouble::TimedOut(Stage::Connect), Class::Transient, "4.4.1"),
            (Trouble::TimedOut(Stage::End), Class::Transient, "4.4.2"),
            (Trouble::Lost(Stage::End), Class::Transient, "4.4.2"),
            (Trouble::Ended(Reply::new(550, None, "bye")), Class::Transient, "4.4.2"),
            (Trouble::Malformed { stage: Stage::Rcpt, fault: ReplyFault::NoCode }, Class::Transient, "4.5.0"),
        ];
        for (trouble, class, enhanced) in cases {
            let answer = trouble.answer();
            assert_eq!(
                (answer.class, answer.reply.enhanced.unwrap().to_string().as_str()),
                (class, enhanced),
                "{trouble}"
            );
        }
    }
}
