//! The contracts between the services: one .proto per service, generated at build.
//!
//! Callers hold the generated client over a `Wire` (crate `node`); a service implements the generated server trait.

/// Messages at rest: accept, lease, settle, and the queue's administration.
pub mod queue {
    #[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("posthouse.queue.v1");
    }
}

/// Decisions: sessions, users, envelopes, messages.
pub mod policy {
    #[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("posthouse.policy.v1");
    }
}

/// Running sessions, for people who watch them.
pub mod ingress {
    #[allow(clippy::all, missing_docs, unused_qualifications, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("posthouse.ingress.v1");
    }
}
