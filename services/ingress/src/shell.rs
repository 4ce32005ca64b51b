use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::future::poll_immediate;
use node::panics::{Panic, caught};
use posthouse_proto::ingress::v1::Direction;
use posthouse_proto::policy::v1 as policy;
use smtp::server::{Event, MailFrom, MessageAnswer, RcptTo, Session, Step};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use types::{Class, MessageId, Reply};

use crate::connection::{TlsInfo, count_proxy_refusal, handshake};
use crate::identity::{Beginning, Client, Identified, ProxyRefusal, beginning};
use crate::message::Incoming;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::terms::Terms;
use crate::timer::Timer;
use crate::transaction::Answers;
use crate::watch::{State, client_lines};
use crate::{watch, wire};

/// How long policy may take.
pub(crate) const POLICY_TIMEOUT: Duration = Duration::from_secs(30);
/// Recipients of one question to policy: its contract.
const RECIPIENTS_ASKED_MAX: usize = 1000;
/// A reply buffer that an idle session may keep.
const OUT_KEPT_BYTES: usize = 512;
/// How long a close may take to reach the client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One session: moves the bytes of a [`Session`] and does what it asks for.
pub(crate) struct Shell {
    pub(crate) shared: Arc<Shared>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) client: Client,
    pub(crate) session: Session,
    pub(crate) tls: Option<Box<TlsInfo>>,
    pub(crate) answers: Answers,
    stream: Stream,
    input: BytesMut,
    out: Vec<u8>,
    /// Boxed: an idle session has none.
    message: Option<Box<Incoming>>,
    /// The message that arrives or is being stored, for whoever looks for it after a panic.
    underway: Option<MessageId>,
    /// Octets of its text, for those who watch.
    text_octets: usize,
    timer: Timer,
    drained: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// When the node must have drained.
    drained_until: Option<Instant>,
    last_read: usize,
    header_forbidden: bool,
    pub(crate) presence: Presence,
}

/// The entry of a session among the running ones.
pub(crate) struct Presence {
    shared: Arc<Shared>,
    terms: Arc<Terms>,
    pub(crate) session: Arc<watch::Session>,
}

impl Presence {
    /// Tells those who watch.
    pub(crate) fn tell(&self, direction: Direction, text: &[u8]) {
        if self.shared.hub.is_watched() {
            self.shared.hub.tell(&self.session, self.shared.node.clock().now(), direction, text);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.tell(Direction::Event, b"closed");
        self.shared.registry.leave(self.session.number);
        self.terms.metrics.sessions.decrement(1.0);
    }
}

/// Why a wait ended.
enum Woken {
    Bytes,
    End,
    Deadline,
    Drain,
}

impl Shell {
    pub(crate) fn new(shared: Arc<Shared>, terms: Arc<Terms>, identified: Identified) -> Self {
        let clock = shared.node.clock();
        let session = Session::new(Arc::clone(&terms.session), clock.instant());
        let entry = shared.registry.enter(identified.client.clone(), &terms.listener.name, clock.now());
        terms.metrics.sessions.increment(1.0);
        let presence = Presence { shared: Arc::clone(&shared), terms: Arc::clone(&terms), session: entry };
        presence.tell(Direction::Event, b"connected");
        let drain = shared.node.drain().clone();
        Self {
            timer: Timer::new(session.deadline(), clock),
            drained: Box::pin(async move { drain.begun().await }),
            drained_until: None,
            client: identified.client,
            session,
            tls: None,
            answers: Answers::default(),
            stream: identified.stream,
            input: BytesMut::new(),
            out: Vec::new(),
            message: None,
            underway: None,
            text_octets: 0,
            last_read: 0,
            header_forbidden: identified.header_forbidden,
            presence,
            terms,
            shared,
        }
    }

    /// Refuses the session in place of a greeting.
    pub(crate) fn refuse(&mut self, reply: &Reply) {
        self.session.refuse(reply, &mut self.out);
    }

    /// Greets, unless policy refuses the session; false: the connection is of no use any more.
    pub(crate) async fn welcome(&mut self) -> bool {
        let request = policy::ConnectRequest { session: Some(self.policy_session()) };
        let asked = timeout(POLICY_TIMEOUT, self.shared.policy.clone().connect(request)).await;
        // Where policy cannot be asked the client is greeted: nothing is taken before policy answers for it.
        if let Some(refuse) = asked.ok().and_then(Result::ok).and_then(|answer| answer.into_inner().refuse) {
            self.refuse(&wire::refusal(&refuse));
            return true;
        }
        // Looks without waiting, so that an honest client costs no system call.
        match poll_immediate(self.stream.read_some(&mut self.input, 0)).await {
            None => self.session.greet(&mut self.out),
            Some(Ok(0) | Err(_)) => return false,
            Some(Ok(_)) if self.header_forbidden && beginning(&self.input) == Beginning::Header => {
                count_proxy_refusal(&self.terms, ProxyRefusal::Unlisted.reason());
                return false;
            }
            // It talks before the greeting: the session refuses it.
            Some(Ok(_)) => {}
        }
        true
    }

    /// Runs until one side closes. A panic ends this session and no other.
    pub(crate) async fn run(&mut self) {
        if let Err(panic) = caught(self.serve()).await {
            self.give_up(&panic).await;
        }
    }

    /// What was not answered is sent again: the client hears that it was our trouble, if it can hear anything.
    async fn give_up(&mut self, panic: &Panic) {
        let Panic { what, location } = panic;
        let (listener, session) = (&self.terms.listener.name, self.presence.session.number);
        let id = self.underway.map(|id| id.to_string()).unwrap_or_default();
        tracing::error!(listener, session, id, what, location, "a session panicked");
        self.presence.tell(Direction::Event, b"broke off");
        smtp::syntax::write_reply(&Reply::enhanced(421, 4, 3, 0, "local trouble, try again later"), &mut self.out);
        self.close().await;
    }

    async fn serve(&mut self) {
        loop {
            let now = self.shared.node.clock().instant();
            match self.advance(now) {
                Step::Close => break self.close().await,
                Step::Event(Event::Chunk(chunk)) => {
                    self.text_octets += chunk.len();
                    if let Some(message) = &mut self.message {
                        message.push(chunk).await;
                    }
                }
                Step::Event(event) => {
                    if !Box::pin(self.act(event)).await {
                        break;
                    }
                }
                Step::Read => match self.wait().await {
                    Woken::Bytes => {}
                    Woken::End => break,
                    Woken::Deadline => {
                        self.session.time_out(&mut self.out);
                    }
                    Woken::Drain => {
                        self.drained_until = Some(self.shared.node.clock().instant() + self.terms.drain_max);
                        self.session.shut_down();
                    }
                },
            }
        }
        if let Some(message) = self.message.take() {
            Box::pin(message.abandon()).await;
        }
    }

    /// One step of the state machine, told to those who watch.
    fn advance(&mut self, now: Instant) -> Step {
        if !self.shared.hub.is_watched() {
            return self.session.advance(&mut self.input, &mut self.out, now);
        }
        let before = self.input.clone();
        let (secret, in_message) = (self.session.masks_input(), self.message.is_some());
        let step = self.session.advance(&mut self.input, &mut self.out, now);
        let consumed = &before[..before.len().saturating_sub(self.input.len())];
        // The text of a message is summed up, not shown.
        if !in_message && !matches!(step, Step::Event(Event::Chunk(_) | Event::End | Event::Abandon(_))) {
            for line in client_lines(consumed, secret) {
                self.presence.tell(Direction::Client, &line);
            }
        }
        step
    }

    /// Does what the session asks for; false: the connection is of no use any more.
    async fn act(&mut self, event: Event) -> bool {
        match event {
            Event::Envelope { sender, recipients } => {
                let answers = self.ask_envelope(&sender, &recipients).await;
                self.session.answer_envelope(answers, &mut self.out);
            }
            Event::Authenticate { authorization_id, user, password, .. } => {
                let answer = self.authenticate(authorization_id, user, password).await;
                if let Ok(user) = &answer {
                    self.presence.session.set_user(user);
                }
                self.session.answer_authenticate(answer, &mut self.out);
            }
            Event::StartTls => return self.flush().await && self.start_tls().await,
            Event::Begin => {
                self.presence.session.set_state(State::Message);
                self.text_octets = 0;
                let message = Incoming::new(&self.shared, &self.terms);
                self.underway = Some(message.id());
                self.message = Some(Box::new(message));
            }
            // Handled where it arrives.
            Event::Chunk(_) => {}
            Event::End => {
                node::fault::point("ingress.session");
                let answer = self.end_message().await;
                self.underway = None;
                self.presence.session.set_state(State::Command);
                self.session.answer_message(answer, &mut self.out, self.shared.node.clock().instant());
            }
            Event::Abandon(reason) => {
                self.presence.session.set_state(State::Command);
                self.count_message("rejected", abandon_reason(reason));
                self.underway = None;
                if let Some(message) = self.message.take() {
                    message.abandon().await;
                }
            }
        }
        true
    }

    async fn end_message(&mut self) -> MessageAnswer {
        let Some(message) = self.message.take() else {
            return MessageAnswer::All(wire::policy_trouble());
        };
        self.presence.session.set_state(State::Commit);
        if self.shared.hub.is_watched() {
            self.presence.tell(Direction::Event, format!("message text, {} octets", self.text_octets).as_bytes());
        }
        self.take_message(*message).await
    }

    /// Asks policy about recipients, all at once.
    async fn ask_envelope(&mut self, sender: &MailFrom, recipients: &[RcptTo]) -> Vec<Result<(), Reply>> {
        let accepted = self.session.transaction().map_or(0, |transaction| transaction.recipients.len());
        self.answers.keep(accepted);
        let mut answers = Vec::with_capacity(recipients.len());
        for asked in recipients.chunks(RECIPIENTS_ASKED_MAX) {
            answers.extend(self.ask_recipients(sender, asked).await);
        }
        for answer in &answers {
            self.count_recipient(answer);
        }
        answers
    }

    async fn ask_recipients(&mut self, sender: &MailFrom, recipients: &[RcptTo]) -> Vec<Result<(), Reply>> {
        let request = policy::EnvelopeRequest {
            session: Some(self.policy_session()),
            sender: sender.sender.as_ref().map(ToString::to_string).unwrap_or_default(),
            recipients: recipients.iter().map(|rcpt| rcpt.recipient.to_string()).collect(),
        };
        let asked = timeout(POLICY_TIMEOUT, self.shared.policy.clone().envelope(request)).await;
        let response = match asked.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("policy took too long"))) {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::warn!(code = %status.code(), reason = status.message(), "policy does not answer");
                return vec![Err(wire::policy_trouble()); recipients.len()];
            }
        };
        if response.answers.len() != recipients.len() {
            tracing::error!(asked = recipients.len(), answered = response.answers.len(), "policy broke its contract");
            return vec![Err(wire::policy_trouble()); recipients.len()];
        }
        self.answers.decide |= response.decide;
        self.answers.snapshot_version = response.snapshot_version;
        let answers = response.answers.into_iter().map(wire::answer);
        answers.map(|answer| answer.map(|accepted| self.answers.accepted.push(accepted))).collect()
    }

    async fn authenticate(
        &mut self,
        authorization_id: String,
        user: String,
        password: Vec<u8>,
    ) -> Result<String, Reply> {
        let request = policy::AuthenticateRequest {
            session: Some(self.policy_session()),
            authorization_id,
            user,
            password: password.into(),
        };
        // RFC 4954 section 4.
        let trouble = || Reply::enhanced(454, 4, 7, 0, "cannot verify now, try again later");
        match timeout(POLICY_TIMEOUT, self.shared.policy.clone().authenticate(request)).await {
            Ok(Ok(response)) => match response.into_inner().answer {
                Some(policy::authenticate_response::Answer::User(user)) if !user.is_empty() => Ok(user),
                Some(policy::authenticate_response::Answer::Refuse(reply)) => Err(wire::refusal(&reply)),
                _ => Err(trouble()),
            },
            Ok(Err(status)) => {
                tracing::warn!(code = %status.code(), reason = status.message(), "policy does not answer");
                Err(trouble())
            }
            Err(_) => Err(trouble()),
        }
    }

    /// What policy is told of the session.
    pub(crate) fn policy_session(&self) -> policy::Session {
        policy::Session {
            listener: self.terms.listener.name.clone(),
            client_ip: self.client.address.map(|address| address.to_string()).unwrap_or_default(),
            address_known: self.client.address_known,
            helo: self.session.helo().to_owned(),
            user: self.session.user().unwrap_or_default().to_owned(),
            tls: self.tls.is_some(),
            client_certificate: self.tls.as_ref().map(|tls| tls.client_certificate.clone()).unwrap_or_default(),
            internal: false,
            local_user: self.client.local_user.clone(),
        }
    }

    /// Starts TLS on the socket; false where the handshake failed.
    pub(crate) async fn start_tls(&mut self) -> bool {
        // What came before the handshake was not protected: it is gone (S4).
        self.input.clear();
        let Some(plain) = self.stream.take_plain() else { return false };
        self.presence.session.set_state(State::Handshake);
        let done = handshake(plain, &self.terms).await;
        self.presence.session.set_state(State::Command);
        let result = if done.is_ok() { "ok" } else { "failed" };
        let listener = self.terms.listener.name.clone();
        metrics::counter!("posthouse_tls_handshakes_total", "listener" => listener, "result" => result).increment(1);
        match done {
            Ok((stream, info)) => {
                self.presence.tell(Direction::Event, format!("{} {}", info.version, info.cipher).as_bytes());
                self.stream = stream;
                self.tls = Some(Box::new(info));
                if !self.terms.is_implicit_tls() {
                    self.session.tls_started(self.shared.node.clock().instant());
                }
                true
            }
            Err(error) => {
                self.presence.tell(Direction::Event, b"TLS handshake failed");
                tracing::debug!(listener = self.terms.listener.name, %error, "TLS handshake failed");
                false
            }
        }
    }

    /// Writes what is due and waits for what comes next.
    async fn wait(&mut self) -> Woken {
        if !self.flush().await {
            return Woken::End;
        }
        if self.input.is_empty() {
            // An idle session holds no buffer.
            self.input = BytesMut::new();
        }
        let clock = self.shared.node.clock();
        loop {
            let deadline = self.session.deadline();
            let deadline = self.drained_until.map_or(deadline, |until| until.min(deadline));
            let woken = tokio::select! {
                biased;
                () = &mut self.drained, if self.drained_until.is_none() => return Woken::Drain,
                read = self.stream.read_some(&mut self.input, self.last_read) => read,
                () = self.timer.until(deadline, clock) => return Woken::Deadline,
            };
            match woken {
                Ok(octets @ 1..) => self.last_read = if self.message.is_some() { octets } else { 0 },
                Ok(0) | Err(_) => return Woken::End,
            }
            if !self.header_forbidden {
                return Woken::Bytes;
            }
            match beginning(&self.input) {
                Beginning::Open => {}
                Beginning::Mail => {
                    self.header_forbidden = false;
                    return Woken::Bytes;
                }
                Beginning::Header => {
                    count_proxy_refusal(&self.terms, ProxyRefusal::Unlisted.reason());
                    return Woken::End;
                }
            }
        }
    }

    /// Writes all replies that are due in one go; false where the client cannot be reached.
    async fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        if self.shared.hub.is_watched() {
            for line in self.out.split_inclusive(|byte| *byte == b'\n') {
                self.presence.tell(Direction::Server, line);
            }
        }
        let wait = self.session.deadline().saturating_duration_since(self.shared.node.clock().instant());
        let write = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        // A client that is told of a time-out has no time left: it gets a moment all the same.
        let written = matches!(timeout(wait.max(CLOSE_TIMEOUT), write).await, Ok(Ok(())));
        self.out.clear();
        if self.out.capacity() > OUT_KEPT_BYTES {
            self.out = Vec::new();
        }
        written
    }

    async fn close(&mut self) {
        if self.flush().await {
            // The client may be gone already.
            let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
    }

    fn count_recipient(&self, answer: &Result<(), Reply>) {
        let Err(reply) = answer else {
            self.terms.metrics.recipients_accepted.increment(1);
            return;
        };
        let (result, reason) = refused(reply);
        let listener = self.terms.listener.name.clone();
        metrics::counter!("posthouse_recipients_total", "listener" => listener, "result" => result, "reason" => reason)
            .increment(1);
    }

    pub(crate) fn count_message(&self, result: &'static str, reason: &'static str) {
        let listener = self.terms.listener.name.clone();
        metrics::counter!("posthouse_messages_total", "listener" => listener, "result" => result, "reason" => reason)
            .increment(1);
    }
}

/// A refusal as labels.
pub(crate) fn refused(reply: &Reply) -> (&'static str, &'static str) {
    let trouble = *reply == wire::policy_trouble();
    let result = if reply.class() == Class::Permanent { "rejected" } else { "deferred" };
    (result, if trouble { "trouble" } else { "policy" })
}

fn abandon_reason(reason: smtp::server::Reason) -> &'static str {
    match reason {
        smtp::server::Reason::LineEnds => "line_ends",
        smtp::server::Reason::LineTooLong => "line_too_long",
        smtp::server::Reason::TooLarge => "too_large",
        smtp::server::Reason::Reset => "reset",
        smtp::server::Reason::Closed => "closed",
    }
}
