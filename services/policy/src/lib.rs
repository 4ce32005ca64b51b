//! Decisions: sessions, users, envelopes, messages. The shell around crate `rules`: it looks up what a decision needs,
//! verifies passwords off the async threads, and keeps Dovecot's passwd-file current.
//!
//! It keeps nothing per session.
#![warn(missing_docs)]

mod auth;
mod budgets;
mod dovecot;
mod judge;
mod password;
mod service;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use node::{Clock, Node, Peer};
use posthouse_proto::policy::v1::policy_server::PolicyServer;
use posthouse_proto::policy::v1::{EnvelopeRequest, ExplainResponse};
use resources::Snapshot;

pub use dovecot::{dovecot_passwd_file, write_dovecot_passwd_file};
pub use password::{HashError, PasswordError, Scheme, check_password, hash_password, verify_password};

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Dovecot would log users in by an old file.
    #[error("cannot write Dovecot's passwd-file {}: {source}", .path.display())]
    DovecotPasswdFile {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Starts the service: it answers at [`Peer::Policy`] when this returns, and reads the snapshots of the node from then on.
pub async fn start(node: &Node) -> Result<(), StartError> {
    dovecot::keep_current(node).await?;
    let service = service::Service::new(node);
    node.provide(Peer::Policy, PolicyServer::new(service).max_decoding_message_size(usize::MAX));
    node.health().set("policy", node::Part::Ready);
    Ok(())
}

/// `posthouse explain DIR`: what the service would answer to an Envelope, and why, without a running platform.
///
/// Errors are those of the call: INVALID_ARGUMENT where an address of the request is none.
pub async fn explain_offline(
    snapshot: &Arc<Snapshot>,
    request: EnvelopeRequest,
) -> Result<ExplainResponse, tonic::Status> {
    judge::Judge::new(Clock::system()).explain(&snapshot.rules, request).await
}
