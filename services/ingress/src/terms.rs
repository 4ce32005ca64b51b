use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use resources::Snapshot;
use resources::snapshot::{Identity, LineEnds, Listener, Protocol, TlsMode};
use rustls::ServerConfig;
use smtp::server::{AuthOffer, SessionConfig, SessionLimits, TlsOffer};
use types::Domain;

/// What a session runs under, from its first byte to its last: a reload changes the terms of later sessions only.
pub(crate) struct Terms {
    pub(crate) listener: Arc<Listener>,
    pub(crate) session: Arc<SessionConfig>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The platform's host name: in Message-IDs.
    pub(crate) hostname: Domain,
    /// Bodies over this flow to the queue while they arrive.
    pub(crate) body_inline_max_bytes: u64,
    /// Budget of uncommitted bytes of the process.
    pub(crate) memory_max_bytes: u64,
    /// Grace for transactions in flight when the process ends.
    pub(crate) drain_max: Duration,
    pub(crate) metrics: Meters,
}

/// The meters of a listener, looked up once.
pub(crate) struct Meters {
    pub(crate) sessions: Gauge,
    pub(crate) sessions_total: Counter,
    pub(crate) sessions_refused_total: Counter,
    pub(crate) messages_accepted: Counter,
    pub(crate) recipients_accepted: Counter,
}

impl Terms {
    pub(crate) fn new(listener: &Arc<Listener>, snapshot: &Snapshot, tls: Option<Arc<ServerConfig>>) -> Self {
        let platform = &snapshot.platform;
        Self {
            listener: Arc::clone(listener),
            session: Arc::new(session_config(listener)),
            tls,
            hostname: platform.hostname.clone(),
            body_inline_max_bytes: platform.body_inline_max_bytes,
            memory_max_bytes: platform.ingress_memory_max_bytes,
            drain_max: platform.drain_max,
            metrics: Meters::new(&listener.name),
        }
    }

    pub(crate) fn is_implicit_tls(&self) -> bool {
        self.listener.tls.mode == TlsMode::Implicit
    }

    /// Whether the address of a client means anything (invariant 8).
    pub(crate) fn knows_addresses(&self) -> bool {
        self.listener.identity != Identity::Unknown
    }
}

impl Meters {
    fn new(listener: &str) -> Self {
        let listener = listener.to_owned();
        let accepted = |name: &'static str| counter!(name, "listener" => listener.clone(), "result" => "accepted", "reason" => "none");
        Self {
            sessions: gauge!("posthouse_sessions", "listener" => listener.clone()),
            sessions_total: counter!("posthouse_sessions_total", "listener" => listener.clone()),
            sessions_refused_total: counter!("posthouse_sessions_refused_total", "listener" => listener.clone()),
            messages_accepted: accepted("posthouse_messages_total"),
            recipients_accepted: accepted("posthouse_recipients_total"),
        }
    }
}

fn session_config(listener: &Listener) -> SessionConfig {
    let limits = &listener.limits;
    SessionConfig {
        hostname: listener.hostname.clone(),
        protocol: match listener.protocol {
            Protocol::Smtp => smtp::server::Protocol::Smtp,
            Protocol::Submission => smtp::server::Protocol::Submission,
            Protocol::Lmtp => smtp::server::Protocol::Lmtp,
        },
        tls: match listener.tls.mode {
            TlsMode::Off => TlsOffer::Off,
            TlsMode::Opportunistic => TlsOffer::Offered,
            TlsMode::Required => TlsOffer::Required,
            TlsMode::Implicit => TlsOffer::Active,
        },
        auth: AuthOffer {
            offered: listener.auth.offered,
            required: listener.auth.required,
            without_tls: listener.auth.without_tls,
        },
        line_ends: match listener.line_ends {
            LineEnds::Refuse => smtp::server::LineEnds::Refuse,
            LineEnds::Normalise => smtp::server::LineEnds::Normalise,
        },
        limits: SessionLimits {
            command_line_max_bytes: limits.command_line_max_bytes,
            text_line_max_bytes: limits.text_line_max_bytes,
            recipients_max: limits.recipients_max,
            message_max_bytes: limits.message_max_bytes,
            messages_max: limits.messages_max,
            commands_max: limits.commands_max,
            errors_max: limits.errors_max,
            auth_failures_max: limits.auth_failures_max,
            command_timeout: limits.command_timeout,
            data_timeout: limits.data_timeout,
            session_timeout: limits.session_timeout,
        },
    }
}
