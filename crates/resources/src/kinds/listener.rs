use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, Status, yes};
use crate::snapshot::Limits;
use crate::values::{DomainName, Ip, Network, Size, Span};

/// One way in: where mail is taken, and how.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailListener",
    namespaced,
    status = "Status",
    doc = "One way in: where mail is taken, and how.",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.port")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailListenerSpec {
    /// What is spoken: `smtp` with other servers (RFC 5321), `submission` with mail clients (RFC 6409), `lmtp` (RFC 2033).
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// The address to listen on. Without `address`, `addresses` and `socket`: `::`, which is every address, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ip>,
    /// More addresses, all with the same port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ip>,
    /// TCP port; 0 lets the system choose. By default 25 (smtp), 587 (submission; 465 with implicit TLS), 24 (lmtp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// An IPv6 address takes no IPv4 peers.
    #[serde(default)]
    pub v6_only: bool,
    /// A Unix socket instead of address and port; relative to the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// TLS. Without this section it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Logging in. Without this section it is required by submission and not offered by the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ListenerAuth>,
    /// How the address of the client is learned.
    #[serde(default)]
    pub client_identity: ClientIdentity,
    /// Peers on loopback count as `source: local`. Leave it off where a side-car or a port-forward connects from there.
    #[serde(default)]
    pub loopback_is_local: bool,
    /// The name in the greeting; by default that of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DomainName>,
    /// Tags of every session, for `tagged` in rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What becomes of bare CR and LF in a message.
    #[serde(default)]
    pub line_ends: LineEnding,
    /// Whether the address of the client is written into `Received:`. Users may want it left out.
    #[serde(default = "yes")]
    pub received_client: bool,
    /// Who has logged in may use no addresses but their own, in MAIL FROM and in the header field From. By default true for submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_to_own_addresses: Option<bool>,
    /// Bounds of the sessions.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// The MailPolicy that decides; by default that of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<String>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ListenerProtocol {
    #[default]
    Smtp,
    Submission,
    Lmtp,
}

/// What becomes of bare CR and LF in a message: `refuse` it (550 5.5.2) or `normalise` each to CRLF.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LineEnding {
    #[default]
    Refuse,
    Normalise,
}

/// TLS of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerTls {
    /// `off`; `opportunistic`: STARTTLS is offered; `required`: no mail before STARTTLS; `implicit`: TLS from the first byte.
    pub mode: ListenerTlsMode,
    /// The Secret with the certificate: keys `tls.crt` (chain, leaf first) and `tls.key`, both PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// More Secrets; clients choose by the name that they ask for (SNI), the first is served to all others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// Certificates in files, such as those of certbot; they are watched, and a new certificate is taken without a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CertificateFiles>,
    /// Use a certificate that the platform makes for itself on its first start, where there is no other. By default as the platform says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<bool>,
    /// The lowest version that is spoken.
    pub min_version: MinVersion,
    /// Certificates of clients.
    pub client_certificates: ClientCertificateCheck,
}

/// When a listener uses TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ListenerTlsMode {
    Off,
    #[default]
    Opportunistic,
    Required,
    Implicit,
}

/// Lowest TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MinVersion {
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// A certificate in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the chain, leaf first. Relative to the folder of the document.
    pub certificate: String,
    /// PEM file with the key. Relative to the folder of the document.
    pub key: String,
}

/// Certificates of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientCertificateCheck {
    /// `off`: not asked for; `optional`: verified where given; `required`: no session without.
    pub mode: ClientCertificateMode,
    /// PEM of the authorities that they are verified by, in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities_secret_ref: Option<SecretKeyRef>,
    /// PEM of the authorities that they are verified by, in a file. Relative to the folder of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities_file: Option<String>,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientCertificateMode {
    #[default]
    Off,
    Optional,
    Required,
}

/// Logging in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerAuth {
    /// No mail from who has not logged in.
    pub required: bool,
    /// AUTH is offered, and mail is taken without as well, as the policy says.
    pub optional: bool,
    /// AUTH is offered without TLS too: passwords may travel in the clear.
    pub allow_without_tls: bool,
}

/// How the address of the client is learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientIdentity {
    /// `direct`: it is the peer; `proxyProtocol`: peers in `trusted` tell it in a PROXY header (v1 or v2); `unknown`: peers are load balancers that do not tell, so rules on addresses match nothing.
    pub mode: ClientIdentityMode,
    /// With proxyProtocol: the proxies. One of them without a header within `limits.proxyTimeout` is closed; other peers are served under their own address, and a PROXY header from them closes the connection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<Network>,
}

/// By what the client's address is learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientIdentityMode {
    #[default]
    Direct,
    ProxyProtocol,
    Unknown,
}

/// Bounds of the sessions of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Sessions at a time.
    #[schemars(range(min = 1))]
    pub sessions_max: u32,
    /// Sessions of one source (an IPv4 address, an IPv6 /64) at a time.
    #[schemars(range(min = 1))]
    pub sessions_per_source_max: u32,
    /// Length of a command line. RFC 5321 says 512 bytes, and more for extensions.
    pub command_line_max: Size,
    /// Length of a line of a message. RFC 5321 says 1000 bytes; longer ones are seen.
    pub text_line_max: Size,
    /// Length of the header section.
    pub header_max: Size,
    /// Header fields.
    #[schemars(range(min = 1))]
    pub header_fields_max: u32,
    /// Received fields: more is a loop.
    #[schemars(range(min = 1))]
    pub received_fields_max: u32,
    /// Recipients of a transaction. RFC 5321 says 100 at least.
    #[schemars(range(min = 1))]
    pub recipients_max: u32,
    /// Length of a message: SIZE.
    pub message_max: Size,
    /// Messages of a session; 0: no bound.
    pub messages_max: u32,
    /// Commands of a session that belong to no transaction.
    #[schemars(range(min = 1))]
    pub commands_max: u32,
    /// Faulty commands before the session is closed.
    #[schemars(range(min = 1))]
    pub errors_max: u32,
    /// Failed logins before the session is closed.
    #[schemars(range(min = 1))]
    pub auth_failures_max: u32,
    /// Wait for a command.
    pub command_timeout: Span,
    /// Wait for more of a message.
    pub data_timeout: Span,
    /// Wait for the TLS handshake.
    pub handshake_timeout: Span,
    /// Wait for the PROXY header.
    pub proxy_timeout: Span,
    /// A whole session.
    pub session_timeout: Span,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        let limits = Limits::default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let bytes = |n: usize| Size(n as u64);
        Self {
            sessions_max: count(limits.sessions_max),
            sessions_per_source_max: count(limits.sessions_per_source_max),
            command_line_max: bytes(limits.command_line_max_bytes),
            text_line_max: bytes(limits.text_line_max_bytes),
            header_max: bytes(limits.header_max_bytes),
            header_fields_max: count(limits.header_fields_max),
            received_fields_max: count(limits.received_fields_max),
            recipients_max: count(limits.recipients_max),
            message_max: Size(limits.message_max_bytes),
            messages_max: count(limits.messages_max),
            commands_max: count(limits.commands_max),
            errors_max: count(limits.errors_max),
            auth_failures_max: count(limits.auth_failures_max),
            command_timeout: Span(limits.command_timeout),
            data_timeout: Span(limits.data_timeout),
            handshake_timeout: Span(limits.handshake_timeout),
            proxy_timeout: Span(limits.proxy_timeout),
            session_timeout: Span(limits.session_timeout),
        }
    }
}
