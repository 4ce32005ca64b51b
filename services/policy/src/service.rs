//! The calls of posthouse.policy.v1.Policy.

use std::sync::Arc;

use node::{Node, Snapshots};
use posthouse_proto::policy::v1 as proto;
use posthouse_proto::policy::v1::policy_server::Policy;
use resources::Snapshot;
use rules::{Lookups, RuleSet};
use tonic::{Request, Response, Status};
use types::{Address, Reply};

use crate::auth::{Authenticator, Outcome};
use crate::judge::{Judge, LookupFailed};
use crate::wire;

/// Policy over the current snapshot.
pub(crate) struct Service {
    snapshots: Snapshots,
    judge: Judge,
    authenticator: Authenticator,
}

impl Service {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            snapshots: node.snapshots().clone(),
            judge: Judge::new(node.clock().clone()),
            authenticator: Authenticator::new(crate::verify_password, node.clock().clone()),
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.current()
    }
}

#[tonic::async_trait]
impl Policy for Service {
    async fn connect(
        &self,
        request: Request<proto::ConnectRequest>,
    ) -> Result<Response<proto::ConnectResponse>, Status> {
        let request = request.into_inner();
        let session = wire::session(request.session.as_ref())?;
        let snapshot = self.snapshot();
        // A listener that a reload took away still has its socket for a moment.
        let known = session.internal || snapshot.rules.listeners.contains_key(&session.listener);
        let gone = Reply::enhanced(421, 4, 3, 5, "this listener is being reconfigured, try again later");
        let refuse = (!known).then(|| wire::reply(&gone));
        Ok(Response::new(proto::ConnectResponse { refuse, snapshot_version: snapshot.version.clone() }))
    }

    async fn authenticate(
        &self,
        request: Request<proto::AuthenticateRequest>,
    ) -> Result<Response<proto::AuthenticateResponse>, Status> {
        use proto::authenticate_response::Answer;
        let snapshot = self.snapshot();
        let outcome = self.authenticator.authenticate(&snapshot, &self.judge, request.into_inner()).await;
        let (answer, result) = match outcome {
            Outcome::User(user) => (Answer::User(user.to_string()), "success"),
            Outcome::Refused(reply) => (Answer::Refuse(wire::reply(&reply)), "failure"),
            Outcome::Failed(reply) => (Answer::Refuse(wire::reply(&reply)), "error"),
            Outcome::Limited(reply) => (Answer::Refuse(wire::reply(&reply)), "limited"),
        };
        metrics::counter!("posthouse_auth_total", "result" => result).increment(1);
        Ok(Response::new(proto::AuthenticateResponse { answer: Some(answer) }))
    }

    async fn envelope(
        &self,
        request: Request<proto::EnvelopeRequest>,
    ) -> Result<Response<proto::EnvelopeResponse>, Status> {
        let snapshot = self.snapshot();
        self.judge.envelope(&snapshot.rules, request.get_ref()).await.map(Response::new)
    }

    async fn decide(&self, request: Request<proto::DecideRequest>) -> Result<Response<proto::DecideResponse>, Status> {
        let request = request.into_inner();
        let snapshot = self.snapshot();
        let session = wire::session(request.session.as_ref())?;
        let refuse = match wire::user(session)? {
            Some(user) if holds(&snapshot.rules, session) => {
                self.foreign_author(&snapshot.rules, &user, &request.header).await?
            }
            _ => None,
        };
        Ok(Response::new(match refuse {
            Some(reply) => proto::DecideResponse { refuse: Some(wire::reply(&reply)), answers: Vec::new() },
            // The routes that were decided at RCPT stand: recipients were told of them.
            None => proto::DecideResponse { refuse: None, answers: request.answers },
        }))
    }

    async fn explain(
        &self,
        request: Request<proto::EnvelopeRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let snapshot = self.snapshot();
        self.judge.explain(&snapshot.rules, request.into_inner()).await.map(Response::new)
    }
}

impl Service {
    /// Why a message is refused whose authors are not all the user. RFC 6409 section 6.1.
    async fn foreign_author(
        &self,
        rules: &RuleSet,
        user: &Address,
        header: &[u8],
    ) -> Result<Option<Reply>, LookupFailed> {
        let authors = match authors(header) {
            Ok(authors) => authors,
            Err(text) => return Ok(Some(Reply::enhanced(550, 5, 7, 1, text))),
        };
        let mut lookups = Lookups::default();
        for author in authors {
            let own = |lookups: &Lookups| rules::may_send_as(rules, lookups, user, &author);
            if !self.judge.ask(rules, &mut lookups, own).await? {
                return Ok(Some(Reply::enhanced(550, 5, 7, 1, "From and Sender must be your own addresses")));
            }
        }
        Ok(None)
    }
}

/// Whether the listener holds its users to their own addresses. One that is gone held them, for all that is known.
fn holds(rules: &RuleSet, session: &proto::Session) -> bool {
    rules.listeners.get(&session.listener).is_none_or(|listener| listener.hold_to_own_addresses)
}

/// Everybody whom the header section names as author or sender.
fn authors(header: &[u8]) -> Result<Vec<Address>, String> {
    let mut authors = message::author_addresses(header).map_err(|error| error.to_string())?;
    for field in message::fields(header).filter(|field| field.is("sender")) {
        // The Sender field has the grammar of a From field with one address (RFC 5322 section 3.6.2).
        let mut as_from = b"From:".to_vec();
        as_from.extend_from_slice(field.value());
        as_from.extend_from_slice(b"\r\n");
        authors.extend(message::author_addresses(&as_from).map_err(|_| "Sender is not an address".to_owned())?);
    }
    Ok(authors)
}
