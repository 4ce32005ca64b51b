//! What the compiler makes of a folder or a namespace: one immutable value for all services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rules::{RuleSet, Secret};
use schedule::Schedule;
use types::Domain;

/// Everything the services need to know, resolved and checked.
#[derive(Debug)]
pub struct Snapshot {
    /// Changes whenever anything in the snapshot does.
    pub version: String,
    /// How many documents it was made from.
    pub resources: usize,
    /// The installation.
    pub platform: Platform,
    /// By name.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// By name; the built-in `mx` included.
    pub transports: BTreeMap<String, Arc<Transport>>,
    /// By name of the Secret.
    pub certificates: BTreeMap<String, Arc<Certificate>>,
    /// For decisions.
    pub rules: Arc<RuleSet>,
    /// Passwords of example sites by the address of their user: printed in the documents (annotation
    /// `posthouse.dev/demo-password` of the Secret), so `posthouse run` may print them as well.
    pub demo_passwords: BTreeMap<String, String>,
    /// Files beside the documents that the snapshot was made from (file tables, certificates): watched with them.
    pub files: Vec<PathBuf>,
}

/// The MailPlatform.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Name of the resource.
    pub name: String,
    /// In greetings, HELO, Received and Message-IDs.
    pub hostname: Domain,
    /// Administrator's port on loopback or elsewhere; `None`: no admin port.
    pub admin: Option<std::net::SocketAddr>,
    /// DNS servers; empty: those of the system.
    pub dns_servers: Vec<std::net::SocketAddr>,
    /// `false`: every question is asked again.
    pub dns_cache: bool,
    /// Bodies over this go to the object store. 256 KiB.
    pub body_inline_max_bytes: u64,
    /// Named budget of uncommitted bytes in ingress. 128 MiB.
    pub ingress_memory_max_bytes: u64,
    /// Below this much free space no mail is taken (452), while settles are still written. 256 MiB.
    pub free_space_min_bytes: u64,
    /// How long events of settled messages are kept. 7 days.
    pub event_retention: Duration,
    /// Where Dovecot's passwd-file is kept current while running.
    pub dovecot_passwd_file: Option<PathBuf>,
    /// Floor of a failed authentication. 1 s.
    pub auth_failure_floor: Duration,
    /// Password verifications at a time. 4.
    pub auth_concurrency_max: usize,
    /// Budgets of failed logins.
    pub auth_failures: AuthFailures,
    /// Grace for transactions in flight at SIGTERM. 30 s.
    pub drain_max: Duration,
    /// Deliveries in flight at a time, all routes. 100.
    pub deliveries_max: usize,
    /// Whether the built-in Unix-socket listener for `posthouse sendmail` runs.
    pub sendmail_socket: bool,
}

/// How many logins may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthFailures {
    /// Of one source; 0: no bound. 100.
    pub per_source_max: u32,
    /// Under one name; 0: no bound. 50.
    pub per_user_max: u32,
    /// How long a failure counts. 1 h.
    pub window: Duration,
}

impl Default for AuthFailures {
    /// No bounds.
    fn default() -> Self {
        Self { per_source_max: 0, per_user_max: 0, window: Duration::from_secs(3600) }
    }
}

/// One way in.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Name of the resource.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where it listens: one or more addresses, or a Unix socket.
    pub endpoint: Endpoint,
    /// TLS.
    pub tls: Tls,
    /// SASL.
    pub auth: Auth,
    /// How the client's address is learned.
    pub identity: Identity,
    /// Loopback peers count as local.
    pub loopback_is_local: bool,
    /// In the greeting; by default the platform's.
    pub hostname: Domain,
    /// Tags of every session.
    pub tags: Vec<String>,
    /// Bare CR and LF.
    pub line_ends: LineEnds,
    /// `false`: the client's address stays out of `Received:`.
    pub received_client: bool,
    /// Named bounds.
    pub limits: Limits,
}

/// Protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 6409.
    Submission,
    /// RFC 2033.
    Lmtp,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Every address with the port; port 0 lets the system choose. `[::]` is dual stack unless `v6_only`.
    Tcp {
        /// One socket each.
        addresses: Vec<IpAddr>,
        /// TCP port.
        port: u16,
        /// IPV6_V6ONLY on IPv6 sockets.
        v6_only: bool,
    },
    /// A Unix socket; relative to the state folder where it is not absolute.
    Unix(PathBuf),
}

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Whether and when.
    pub mode: TlsMode,
    /// Names of Secrets in [`Snapshot::certificates`]; the first is served where SNI matches none.
    pub certificates: Vec<String>,
    /// A certificate that the process makes for itself is served where SNI matches none of `certificates`, or there are none.
    pub self_signed: bool,
    /// 1.2 or 1.3.
    pub version_min: TlsVersion,
    /// Certificates of clients.
    pub client_certificates: ClientCertificates,
    /// PEM of the authorities that client certificates are verified by.
    pub client_authorities: Option<Arc<[u8]>>,
}

/// When TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// STARTTLS is not offered.
    Off,
    /// STARTTLS is offered.
    Opportunistic,
    /// Nothing but STARTTLS, EHLO, NOOP and QUIT before TLS.
    Required,
    /// TLS from the first byte.
    Implicit,
}

/// Lowest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Certificates of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    Off,
    /// Asked for and verified where given.
    Optional,
    /// The handshake fails without.
    Required,
}

/// SASL of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// Whether AUTH is offered.
    pub offered: bool,
    /// Whether MAIL needs it.
    pub required: bool,
    /// AUTH is offered without TLS too.
    pub without_tls: bool,
}

/// How the client's address is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The peer of the socket.
    Direct,
    /// PROXY protocol v1 or v2 from these peers; other peers are served under their own address.
    Proxy(Vec<IpNet>),
    /// The peer is some load balancer: the address is not known.
    Unknown,
}

/// Bare CR and LF in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// 550 5.5.2 after the true end.
    Refuse,
    /// Each becomes CRLF.
    Normalise,
}

/// Bounds of a listener's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time. 10,000.
    pub sessions_max: usize,
    /// Sessions of one source (IPv4 address, IPv6 /64) at a time. 100.
    pub sessions_per_source_max: usize,
    /// Octets of a command line with CRLF. 2,048 (RFC 5321 says 512 and more for extensions).
    pub command_line_max_bytes: usize,
    /// Octets of a line of text with CRLF. 1,000,000: over 1,000 is against RFC 5321 but seen.
    pub text_line_max_bytes: usize,
    /// Octets of the header section. 1 MiB.
    pub header_max_bytes: usize,
    /// Header fields. 1,000.
    pub header_fields_max: usize,
    /// Received fields. 50.
    pub received_fields_max: usize,
    /// Recipients of a transaction. 1,000.
    pub recipients_max: usize,
    /// Octets of a message; SIZE. 50 MiB.
    pub message_max_bytes: u64,
    /// Messages of a session. 1,000; what comes after gets 421... 0: no bound.
    pub messages_max: usize,
    /// Commands of a session that are no transaction. 1,000.
    pub commands_max: usize,
    /// Errors before 421. 20.
    pub errors_max: usize,
    /// Failed AUTHs before 421. 3.
    pub auth_failures_max: usize,
    /// Wait for a command. 5 min (RFC 5321 section 4.5.3.2.7).
    pub command_timeout: Duration,
    /// Wait for more of a message. 3 min (RFC 5321 section 4.5.3.2.5).
    pub data_timeout: Duration,
    /// Wait for the TLS handshake. 30 s.
    pub handshake_timeout: Duration,
    /// Wait for the PROXY header. 5 s.
    pub proxy_timeout: Duration,
    /// A whole session. 1 h.
    pub session_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 10_000,
            sessions_per_source_max: 100,
            command_line_max_bytes: 2048,
            text_line_max_bytes: 1_000_000,
            header_max_bytes: 1 << 20,
            header_fields_max: 1000,
            received_fields_max: 50,
            recipients_max: 1000,
            message_max_bytes: 50 << 20,
            messages_max: 1000,
            commands_max: 1000,
            errors_max: 20,
            auth_failures_max: 3,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            handshake_timeout: Duration::from_secs(30),
            proxy_timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(3600),
        }
    }
}

/// A certificate chain and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Leaf first.
    pub chain_pem: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain_bytes", &self.chain_pem.len()).finish_non_exhaustive()
    }
}

/// How recipients leave.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Name of the resource.
    pub name: String,
    /// By what.
    pub kind: TransportKind,
    /// When it is tried again.
    pub schedule: Schedule,
    /// Deliveries of one route in flight at a time. 10; mbox: 1.
    pub route_concurrency_max: usize,
    /// Recipients of one transaction. 100; maildir, mbox, program: 1.
    pub recipients_max: usize,
    /// A whole attempt. 15 min.
    pub attempt_timeout: Duration,
}

/// By what recipients leave.
#[derive(Debug, Clone)]
pub enum TransportKind {
    /// RFC 2033.
    Lmtp {
        /// TCP `host:port`, or a Unix socket.
        target: LmtpTarget,
        /// TLS to a TCP target.
        tls: ClientTls,
    },
    /// One file a message.
    Maildir {
        /// With `%u` address, `%n` local part, `%d` domain; relative to the state folder where it is not absolute.
        path: String,
        /// uid or user name that writes.
        as_user: Option<String>,
    },
    /// One file a mailbox.
    Mbox {
        /// As for maildir.
        path: String,
        /// As for maildir.
        as_user: Option<String>,
    },
    /// A program that reads the message on stdin.
    Program(Program),
    /// Another SMTP server.
    Relay(Relay),
}

/// Where LMTP goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LmtpTarget {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// Relative to the state folder where it is not absolute.
    Unix(PathBuf),
}

/// A program transport.
#[derive(Debug, Clone)]
pub struct Program {
    /// argv; no shell. `%u`, `%n`, `%d`, `%s` (sender), `%i` (message id) are replaced inside arguments.
    pub argv: Vec<String>,
    /// As for maildir.
    pub as_user: Option<String>,
    /// 5 min.
    pub timeout: Duration,
    /// Bytes of output that are kept. 4 KiB.
    pub output_max_bytes: usize,
    /// Names of variables of ours that it sees; nothing else.
    pub environment: Vec<String>,
    /// Fixed variables.
    pub variables: BTreeMap<String, String>,
}

/// A relay transport.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Which hosts.
    pub to: RelayTo,
    /// TLS and its verification.
    pub tls: ClientTls,
    /// SASL PLAIN or LOGIN; only over TLS unless `auth_without_tls`.
    pub auth: Option<Credentials>,
    /// Credentials may travel in the clear.
    pub auth_without_tls: bool,
    /// EHLO argument; the platform's host name by default.
    pub helo: Option<Domain>,
}

/// Where a relay goes.
#[derive(Debug, Clone)]
pub enum RelayTo {
    /// Tried in order.
    Hosts(Vec<HostPort>),
    /// MX of the recipient's domain.
    Mx {
        /// 25.
        port: u16,
        /// Addresses that are never connected to: loopback, link-local, private by default (our own are added while running).
        refuse: Vec<IpNet>,
    },
    /// Domain (or `*`) -> `host:port`, by the name of a static MailTable; what is not listed goes by MX.
    HostTable {
        /// Name of a MailTable.
        table: String,
        /// As for MX.
        mx_port: u16,
        /// As for MX.
        refuse: Vec<IpNet>,
    },
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// TLS of a client.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Whether and when.
    pub mode: ClientTlsMode,
    /// What of the server's certificate is verified.
    pub verify: Verify,
    /// PEM of authorities; by default the system's.
    pub authorities: Option<Arc<[u8]>>,
}

/// When a client uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// Never.
    Off,
    /// STARTTLS where offered.
    Opportunistic,
    /// STARTTLS, or the attempt is deferred.
    Required,
    /// From the first byte.
    Implicit,
}

/// What of a certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Chain and name.
    Full,
    /// Nothing: TLS hides from listeners only.
    None,
}

/// A user name and a password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Does not print.
    pub password: Secret,
}
