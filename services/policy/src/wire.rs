//! Between protobuf and the values of the core.

use std::net::IpAddr;

use posthouse_proto::policy::v1 as proto;
use rules::{Answer, Client, Destination, Fact, Facts, Recipient, Step};
use tonic::Status;
use types::{Address, Reply};

/// What the recipients of a transaction have in common.
pub(crate) struct Transaction<'a> {
    session: &'a proto::Session,
    client: Client,
    pub(crate) user: Option<Address>,
    sender: Option<Address>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn read(request: &'a proto::EnvelopeRequest) -> Result<Self, Status> {
        let session = session(request.session.as_ref())?;
        let sender = optional_address(&request.sender, "sender")?;
        Ok(Self { session, client: client(session)?, user: user(session)?, sender })
    }

    pub(crate) fn listener(&self) -> &str {
        &self.session.listener
    }

    pub(crate) fn facts<'b>(&'b self, recipient: &'b RecipientName) -> Facts<'b> {
        Facts {
            listener: &self.session.listener,
            tags: &[],
            tags_open: false,
            client: self.client,
            helo: Fact::Known(&self.session.helo),
            user: Fact::Known(self.user.as_ref()),
            sender: self.sender.as_ref(),
            recipient: match recipient {
                RecipientName::Postmaster => Recipient::Postmaster,
                RecipientName::Address(address) => Recipient::Address(address),
            },
            internal: self.session.internal,
        }
    }
}

/// A recipient of a request.
pub(crate) enum RecipientName {
    Postmaster,
    Address(Address),
}

impl RecipientName {
    pub(crate) fn read(text: &str) -> Result<Self, Status> {
        // RFC 5321 section 4.1.1.3: in any case of letters.
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Address::parse(text).map(Self::Address).map_err(|error| malformed("recipient", &error))
    }
}

/// The session of a request.
pub(crate) fn session(session: Option<&proto::Session>) -> Result<&proto::Session, Status> {
    session.ok_or_else(|| Status::invalid_argument("session is missing"))
}

/// The user of a session.
pub(crate) fn user(session: &proto::Session) -> Result<Option<Address>, Status> {
    optional_address(&session.user, "user")
}

/// A Unix-socket peer has no address and is known; without either nothing may rest on where the client is (invariant 8).
fn client(session: &proto::Session) -> Result<Client, Status> {
    if session.client_ip.is_empty() {
        let unix = session.address_known || !session.local_user.is_empty();
        return Ok(if unix { Client::Unix } else { Client::Unknown });
    }
    let ip: IpAddr = session.client_ip.parse().map_err(|error| malformed("client_ip", &error))?;
    Ok(if session.address_known { Client::Ip(ip) } else { Client::Unknown })
}

fn optional_address(text: &str, field: &str) -> Result<Option<Address>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    Address::parse(text).map(Some).map_err(|error| malformed(field, &error))
}

fn malformed(field: &str, error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {error}"))
}

/// An answer of the core.
pub(crate) fn answer(answer: Answer) -> proto::Answer {
    let answer = match answer {
        Answer::Refuse(refused) => proto::answer::Answer::Refuse(reply(&refused)),
        Answer::Accept(accepted) => proto::answer::Answer::Accepted(proto::Accepted {
            destinations: accepted.destinations.into_iter().map(destination).collect(),
            tags: accepted.tags,
            rule: accepted.rule,
        }),
    };
    proto::Answer { answer: Some(answer) }
}

fn destination(destination: Destination) -> proto::Destination {
    proto::Destination {
        address: destination.address.to_string(),
        transport: destination.transport,
        route: destination.route,
        delivered_to: destination.delivered_to.to_string(),
        sender_rewritten: destination.sender.is_some(),
        sender: destination.sender.flatten().map(|sender| sender.to_string()).unwrap_or_default(),
    }
}

/// A reply.
pub(crate) fn reply(reply: &Reply) -> proto::Reply {
    proto::Reply {
        code: u32::from(reply.code),
        enhanced_code: reply.enhanced.map(|code| code.to_string()).unwrap_or_default(),
        text: reply.text().to_owned(),
    }
}

/// The story of a recipient.
pub(crate) fn story(recipient: String, steps: Vec<Step>) -> proto::RecipientStory {
    let step = |step: Step| proto::Step { rule: step.rule, matched: step.matched, reason: step.reason };
    proto::RecipientStory { recipient, steps: steps.into_iter().map(step).collect() }
}
