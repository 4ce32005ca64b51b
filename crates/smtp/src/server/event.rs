use std::fmt;

use bytes::Bytes;
use types::Reply;

use crate::syntax::{MailFrom, Mechanism, RcptTo};

/// What the shell does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write what is in `out`, then read more; also while an answer to an event is still owed.
    Read,
    /// Act on the event, then advance again.
    Event(Event),
    /// Write what is in `out`, then close.
    Close,
}

/// What the session cannot do by itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// The sender of the transaction and recipients that are not answered yet; `answer_envelope` is owed.
    Envelope {
        /// Sender of the transaction.
        sender: MailFrom,
        /// All RCPTs that came together, in order; never empty.
        recipients: Vec<RcptTo>,
    },
    /// A client says who it is; `answer_authenticate` is owed.
    Authenticate {
        /// By which mechanism.
        mechanism: Mechanism,
        /// Who the client wants to act as; empty: the user itself.
        authorization_id: String,
        /// Not empty; no controls.
        user: String,
        /// Does not print.
        password: Vec<u8>,
    },
    /// 220 is in `out`: write it, do the handshake, then `tls_started` is owed.
    StartTls,
    /// A message begins; [`super::Session::transaction`] holds its envelope.
    ///
    /// 354 has not gone out yet: `answer_message` may be called here to refuse, and at any time until [`Event::End`].
    Begin,
    /// Text of the message, dot-unstuffed, with CRLF line ends only; not empty. What comes before an `Abandon` means nothing.
    Chunk(Bytes),
    /// The last byte is here: `answer_message` is owed.
    End,
    /// The message will not come to its end: the shell drops it. The session replies by itself.
    Abandon(Reason),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Envelope { sender, recipients } => {
                f.debug_struct("Envelope").field("sender", sender).field("recipients", recipients).finish()
            }
            Self::Authenticate { mechanism, .. } => {
                f.debug_struct("Authenticate").field("mechanism", mechanism).finish_non_exhaustive()
            }
            Self::StartTls => f.write_str("StartTls"),
            Self::Begin => f.write_str("Begin"),
            Self::Chunk(bytes) => write!(f, "Chunk({} bytes)", bytes.len()),
            Self::End => f.write_str("End"),
            Self::Abandon(reason) => f.debug_tuple("Abandon").field(reason).finish(),
        }
    }
}

/// Why a message will not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A bare CR, a bare LF or a NUL where the listener refuses them: 550 5.5.2.
    LineEnds,
    /// A line over the limit: 554 5.6.0.
    LineTooLong,
    /// A message over the limit: 552 5.3.4.
    TooLarge,
    /// RSET, EHLO or a misplaced command between two BDATs.
    Reset,
    /// The session ends: QUIT, a limit, a time-out.
    Closed,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageAnswer {
    /// One reply; over LMTP it is repeated for every accepted recipient.
    All(Reply),
    /// LMTP: one for each accepted RCPT, in order. What is missing becomes 451.
    Each(Vec<Reply>),
}

/// The envelope so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// What MAIL said.
    pub sender: MailFrom,
    /// Accepted recipients in order, duplicates included.
    pub recipients: Vec<RcptTo>,
}
