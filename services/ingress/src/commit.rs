//! What happens between the last byte of a message and its reply.

use bytes::Bytes;
use message::{Protocol, Received, Tls};
use posthouse_proto::policy::v1 as policy;
use posthouse_proto::queue::v1::{Commit, Origin};
use resources::snapshot;
use smtp::server::{MessageAnswer, RcptTo, Recipient, Transaction};
use tokio::time::timeout;
use types::{Class, Reply};

use crate::message::{Incoming, Whole};
use crate::shell::{POLICY_TIMEOUT, Shell};
use crate::transaction::variants;
use crate::wire;

/// What is decided of each recipient, in order.
type Decisions = Vec<Result<policy::Accepted, Reply>>;

/// Why a whole message is not taken.
struct Refused {
    reply: Reply,
    reason: &'static str,
}

impl Shell {
    /// Decides, stores, and says what became of the message.
    pub(crate) async fn take_message(&mut self, message: Incoming) -> MessageAnswer {
        // The envelope is needed to the end, whatever the session does with its own.
        let transaction = self.session.transaction().cloned().unwrap_or_default();
        match self.try_message(message, &transaction).await {
            Ok(answer) => answer,
            Err(Refused { reply, reason }) => {
                let result = if reply.class() == Class::Permanent { "rejected" } else { "deferred" };
                self.count_message(result, reason);
                tracing::info!(listener = self.terms.listener.name, code = reply.code, reason, "message not accepted");
                MessageAnswer::All(reply)
            }
        }
    }

    async fn try_message(&mut self, message: Incoming, transaction: &Transaction) -> Result<MessageAnswer, Refused> {
        let whole = message.finish().await.map_err(|reply| Refused { reply, reason: "header" })?;
        let accepted = std::mem::take(&mut self.answers.accepted);
        if accepted.len() != transaction.recipients.len() || accepted.is_empty() {
            tracing::error!(accepted = accepted.len(), "the envelope was lost");
            whole.body.abort().await;
            return Err(Refused { reply: wire::policy_trouble(), reason: "trouble" });
        }
        let decisions = match self.decide(&whole, transaction, accepted).await {
            Ok(decisions) => decisions,
            Err(refused) => {
                whole.body.abort().await;
                return Err(refused);
            }
        };
        self.store(whole, transaction, decisions).await
    }

    /// Shows the header section to policy where it asked for that.
    async fn decide(
        &mut self,
        whole: &Whole,
        transaction: &Transaction,
        accepted: Vec<policy::Accepted>,
    ) -> Result<Decisions, Refused> {
        if !self.answers.decide {
            return Ok(accepted.into_iter().map(Ok).collect());
        }
        let request = policy::DecideRequest {
            session: Some(self.policy_session()),
            sender: transaction.sender.sender.as_ref().map(ToString::to_string).unwrap_or_default(),
            answers: accepted.iter().cloned().map(wire::accepted).collect(),
            header: Bytes::copy_from_slice(&whole.header),
            size_bytes: whole.header.len() as u64 + whole.body.size(),
            snapshot_version: self.answers.snapshot_version.clone(),
        };
        let trouble = || Refused { reply: wire::policy_trouble(), reason: "trouble" };
        let asked = timeout(POLICY_TIMEOUT, self.shared.policy.clone().decide(request)).await;
        let response = match asked.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("policy took too long"))) {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::warn!(code = %status.code(), reason = status.message(), "policy does not answer");
                return Err(trouble());
            }
        };
        if let Some(refuse) = response.refuse {
            return Err(Refused { reply: wire::refusal(&refuse), reason: "policy" });
        }
        // No answers: those of the envelope stand.
        if response.answers.is_empty() {
            return Ok(accepted.into_iter().map(Ok).collect());
        }
        let decisions: Decisions = response.answers.into_iter().map(wire::answer).collect();
        let is_lmtp = self.terms.listener.protocol == snapshot::Protocol::Lmtp;
        let refused = decisions.iter().filter(|decision| decision.is_err()).count();
        match decisions.iter().find_map(|decision| decision.as_ref().err()) {
            _ if decisions.len() != accepted.len() => Err(trouble()),
            Some(reply) if refused == decisions.len() => Err(Refused { reply: reply.clone(), reason: "policy" }),
            // SMTP has one reply for all: a partial accept would lose mail without a word.
            Some(_) if !is_lmtp => Err(trouble()),
            _ => Ok(decisions),
        }
    }

    async fn store(
        &mut self,
        whole: Whole,
        transaction: &Transaction,
        decisions: Decisions,
    ) -> Result<MessageAnswer, Refused> {
        let Whole { id, received_at, header, body } = whole;
        let accepted = || {
            let pairs = transaction.recipients.iter().zip(&decisions);
            pairs.filter_map(|(rcpt, decision)| Some((rcpt, decision.as_ref().ok()?)))
        };
        let trace = self.trace(id, received_at, transaction, accepted().map(|(rcpt, _)| rcpt));
        let added = match self.terms.listener.protocol {
            snapshot::Protocol::Submission => message::missing_fields(&header, &self.terms.hostname, id, received_at),
            snapshot::Protocol::Smtp | snapshot::Protocol::Lmtp => String::new(),
        };
        let mut text = Vec::with_capacity(trace.len() + added.len() + header.len());
        text.extend_from_slice(trace.as_bytes());
        text.extend_from_slice(added.as_bytes());
        text.extend_from_slice(&header);
        let text = Bytes::from(text);
        let (recipients, size) = (accepted().count(), text.len() as u64 + 2 + body.size());
        let body_size_bytes = body.size();
        let commit = || Commit {
            message_id: id.to_string(),
            variants: variants(transaction, accepted(), &text),
            body_size_bytes,
            received_at_ms: received_at.unix_ms(),
            body_type: wire::body_type(transaction.sender.body).into(),
            smtp_utf8: transaction.sender.smtp_utf8,
            origin: Some(self.origin()),
            report: None,
            header_message_id: message::message_id(&text).unwrap_or_default(),
        };
        node::fault::point("ingress.before-accept");
        if let Err(status) = body.commit(commit).await {
            tracing::warn!(%id, code = %status.code(), reason = status.message(), "queue did not take a message");
            return Err(Refused { reply: wire::queue_trouble(&status), reason: "queue" });
        }
        node::fault::point("ingress.before-reply");
        self.terms.metrics.messages_accepted.increment(1);
        self.presence.session.count_message();
        let (listener, tls) = (&self.terms.listener.name, self.tls.is_some());
        tracing::info!(%id, listener, size, recipients, tls, "message accepted");
        let taken = Reply::enhanced(250, 2, 0, 0, format!("queued as {id}"));
        if decisions.iter().all(Result::is_ok) {
            return Ok(MessageAnswer::All(taken));
        }
        let each = decisions.into_iter().map(|decision| decision.map_or_else(|reply| reply, |_| taken.clone()));
        Ok(MessageAnswer::Each(each.collect()))
    }

    /// The trace field of a message.
    fn trace<'a>(
        &self,
        id: types::MessageId,
        at: types::Timestamp,
        transaction: &Transaction,
        mut recipients: impl Iterator<Item = &'a RcptTo>,
    ) -> String {
        let only = match (recipients.next(), recipients.next()) {
            (Some(RcptTo { recipient: Recipient::Address(address), .. }), None) => Some(address),
            _ => None,
        };
        let client = match self.client.address {
            _ if !self.terms.listener.received_client => message::Client::Hidden,
            None => message::Client::Local { user: &self.client.local_user },
            Some(address) => message::Client::Host {
                helo: self.session.helo(),
                address: self.client.address_known.then_some(address),
            },
        };
        let protocol = match self.terms.listener.protocol {
            snapshot::Protocol::Lmtp => Protocol::Lmtp,
            _ if self.session.extended() => Protocol::Esmtp,
            _ => Protocol::Smtp,
        };
        let received = Received {
            client,
            hostname: &self.terms.listener.hostname,
            protocol,
            tls: self.tls.as_ref().map(|tls| Tls { version: tls.version, cipher: &tls.cipher }),
            authenticated: self.session.user().is_some(),
            utf8: transaction.sender.smtp_utf8,
            id,
            recipient: only,
            at,
        };
        received.to_field()
    }

    fn origin(&self) -> Origin {
        Origin {
            listener: self.terms.listener.name.clone(),
            client: self.client.label(),
            helo: self.session.helo().to_owned(),
            user: self.session.user().unwrap_or_default().to_owned(),
            tls: self.tls.as_ref().map(|tls| format!("{} {}", tls.version, tls.cipher)).unwrap_or_default(),
        }
    }
}
