use std::collections::BTreeMap;
use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, Status};
use crate::values::{DomainName, HostAndPort, Network, Size, Span};

/// How recipients leave: exactly one of lmtp, maildir, mbox, program and relay.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailTransport",
    namespaced,
    status = "Status",
    doc = "How recipients leave: exactly one of lmtp, maildir, mbox, program and relay."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailTransportSpec {
    /// To a mail store by LMTP (RFC 2033), such as Dovecot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lmtp: Option<LmtpTransport>,
    /// Into a Maildir: a file for each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maildir: Option<FileTransport>,
    /// Into an mbox: a file for each mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbox: Option<FileTransport>,
    /// To a program that reads the message from its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramTransport>,
    /// To another SMTP server: a smart host, or the MX of the recipient's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayTransport>,
    /// When a delivery is tried again, and for how long.
    #[serde(default)]
    pub retry: Retry,
    /// Bounds of deliveries.
    #[serde(default)]
    pub limits: TransportLimits,
}

/// To a mail store by LMTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LmtpTransport {
    /// Host and port, as in dovecot.mail.svc:24. Either this or `socket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<HostAndPort>,
    /// A Unix socket, as in /run/dovecot/lmtp; relative to the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// TLS to `address`; by default off.
    #[serde(default)]
    pub tls: ClientTlsSpec,
}

/// Into files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileTransport {
    /// Where: %u is the address, %n the local part, %d the domain. Relative to the state folder.
    pub path: String,
    /// Name or uid of the user who writes; only where the platform runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_user: Option<String>,
}

/// To a program. sysexits decide: 0 delivered, 75 (EX_TEMPFAIL) and everything unknown deferred, 64 to 78 else failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgramTransport {
    /// The program, by its absolute path, and its arguments, without a shell. In arguments %u is the address, %n the local part, %d the domain, %s the sender, %i the message id, %% a percent sign.
    #[schemars(length(min = 1))]
    pub argv: Vec<String>,
    /// Name or uid of the user it runs as; only where the platform runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_user: Option<String>,
    /// How long it may run.
    #[serde(default = "program_timeout")]
    pub timeout: Span,
    /// How much of its output is kept for reports.
    #[serde(default = "program_output_max")]
    pub output_max: Size,
    /// Names of environment variables of the platform that it sees; it sees no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Environment variables with fixed values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

fn program_timeout() -> Span {
    Span(Duration::from_secs(300))
}

fn program_output_max() -> Size {
    Size(4096)
}

/// To another SMTP server. Without `hosts` and `hostTable` mail goes to the MX of the recipient's domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayTransport {
    /// Smart hosts, tried in order, as in smtp.example.org:587. Without a port: 587 with authSecretRef, 465 with implicit TLS, else 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostAndPort>,
    /// A static MailTable from domains (or *) to host:port; what is not listed goes by MX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_table: Option<String>,
    /// Delivery to the MX of the recipient's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<RelayMx>,
    /// TLS; by default opportunistic, and required with authSecretRef.
    #[serde(default)]
    pub tls: ClientTlsSpec,
    /// User name and password for the server, in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<AuthSecretRef>,
    /// The password may be sent without TLS.
    #[serde(default)]
    pub allow_auth_without_tls: bool,
    /// What is said in EHLO; by default the host name of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<DomainName>,
}

/// Delivery to the MX of the recipient's domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RelayMx {
    /// Port of the servers.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Networks that are never connected to, whatever DNS says; our own addresses are added while running. By default everything that is no public address: loopback, link-local, private, multicast.
    pub refuse: Vec<Network>,
}

/// No mail server of the world is reachable below these (RFC 6890 and its registries).
const NOT_PUBLIC: [&str; 17] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0.0.0.0/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

impl Default for RelayMx {
    fn default() -> Self {
        Self { port: 25, refuse: NOT_PUBLIC.iter().filter_map(|network| network.parse().ok()).collect() }
    }
}

/// TLS to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientTlsSpec {
    /// `off`; `opportunistic`: STARTTLS where offered; `required`: STARTTLS, or the mail waits; `implicit`: TLS from the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientTlsModeSpec>,
    /// `full`: chain and name of the server's certificate are verified; `none`: nothing is. By default full with required and implicit, none with opportunistic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// PEM of authorities instead of those of the system, in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities_secret_ref: Option<SecretKeyRef>,
    /// PEM of authorities instead of those of the system, in a file. Relative to the folder of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities_file: Option<String>,
}

/// When a client uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientTlsModeSpec {
    Off,
    Opportunistic,
    Required,
    Implicit,
}

/// What of a certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerifySpec {
    Full,
    None,
}

/// User name and password in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthSecretRef {
    /// Name of the Secret.
    pub name: String,
    /// Key of the user name.
    #[serde(default = "user_key")]
    pub user_key: String,
    /// Key of the password.
    #[serde(default = "password_key")]
    pub password_key: String,
}

fn user_key() -> String {
    "username".to_owned()
}

fn password_key() -> String {
    "password".to_owned()
}

/// When a delivery is tried again, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// Wait after the first failure; it doubles with each one more.
    pub delay_first: Span,
    /// The longest wait.
    pub delay_max: Span,
    /// After this the mail goes back to its sender.
    pub age_max: Span,
    /// The sender is told of the delay after this; 0s: never.
    pub warn_after: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            delay_first: Span(Duration::from_secs(300)),
            delay_max: Span(Duration::from_secs(4 * 3600)),
            age_max: Span(Duration::from_secs(5 * 86_400)),
            warn_after: Span(Duration::from_secs(4 * 3600)),
        }
    }
}

/// Bounds of deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TransportLimits {
    /// Deliveries at a time to one destination. By default 10; mbox always 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency_max: Option<u32>,
    /// Recipients of one transaction. By default 100; maildir, mbox and program always 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub recipients_max: Option<u32>,
    /// A whole attempt. By default 15m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Span>,
}
