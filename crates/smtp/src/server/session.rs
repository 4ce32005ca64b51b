use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use types::Reply;

use super::config::SessionConfig;
use super::event::{MessageAnswer, Step, Transaction};
use crate::syntax::write_reply;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    started: Instant,
    helo: String,
    user: Option<String>,
    tls: bool,
    transaction: Option<Box<Transaction>>,
}

impl Session {
    /// A session that has said nothing yet.
    pub fn new(config: Arc<SessionConfig>, now: Instant) -> Self {
        Self { config, started: now, helo: String::new(), user: None, tls: false, transaction: None }
    }
    /// Says 220.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"220 \r\n");
    }
    /// Refuses instead of greeting; the next `advance` is `Close`.
    pub fn refuse(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        write_reply(reply, out);
    }
    /// Consumes what it can of `input` and appends replies to `out`.
    pub fn advance(&mut self, _input: &mut BytesMut, _out: &mut Vec<u8>, _now: Instant) -> Step {
        Step::Close
    }
    /// When `time_out` is to be called.
    pub fn deadline(&self) -> Instant {
        self.started
    }
    /// 421 4.4.2, then `Close`.
    pub fn time_out(&mut self, _out: &mut Vec<u8>) {}
    /// 421 4.3.2 at the next command boundary outside a transaction.
    pub fn shut_down(&mut self) {}
    /// The handshake that `StartTls` asked for is done.
    pub fn tls_started(&mut self, _now: Instant) {
        self.tls = true;
    }
    /// Answers `Event::Envelope`, in order.
    pub fn answer_envelope(&mut self, _answers: Vec<Result<(), Reply>>, _out: &mut Vec<u8>) {}
    /// Answers `Event::Authenticate` with the name of the user.
    pub fn answer_authenticate(&mut self, _answer: Result<String, Reply>, _out: &mut Vec<u8>) {}
    /// Answers `Event::End`, or refuses a message earlier.
    pub fn answer_message(&mut self, _answer: MessageAnswer, _out: &mut Vec<u8>, _now: Instant) {}
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
        true
    }
    /// The protocol as `Received:` names it (RFC 3848, RFC 6531 section 4.3).
    pub fn received_with(&self) -> &'static str {
        "SMTP"
    }
    /// The envelope so far.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }
    /// The next line of input is a secret.
    pub fn masks_input(&self) -> bool {
        false
    }
    /// The rules of the session.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }
}
