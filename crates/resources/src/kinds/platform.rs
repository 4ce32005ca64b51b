use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Status, yes};
use crate::values::{DnsServer, DomainName, MailAddress, Size, SocketAddress, Span};

/// The installation: host name, defaults and limits. There is exactly one in a folder.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailPlatform",
    namespaced,
    status = "Status",
    doc = "The installation: host name, defaults and limits. There is exactly one in a folder.",
    printcolumn(name = "Hostname", type_ = "string", json_path = ".spec.hostname")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailPlatformSpec {
    /// The name of this host in greetings, HELO, Received and Message-IDs. Other servers look it up.
    pub hostname: DomainName,
    /// Where mail for postmaster goes, at every domain of ours and without a domain (RFC 5321 section 4.5.1), and mail for abuse where nobody has that address.
    pub postmaster: MailAddress,
    /// The MailPolicy of listeners that name none. Without it the built-in policy `default` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<String>,
    /// The MailTransport, of kind relay, of mail that leaves by a rule that names none. The built-in `mx` sends to the MX of each domain.
    #[serde(default = "mx")]
    pub relay_transport: String,
    /// TLS of listeners that do not say otherwise.
    #[serde(default)]
    pub tls: PlatformTls,
    /// The read-only port for metrics and probes.
    #[serde(default)]
    pub admin: Admin,
    /// Name resolution.
    #[serde(default)]
    pub dns: Dns,
    /// Keeping mail.
    #[serde(default)]
    pub queue: Queue,
    /// Taking mail.
    #[serde(default)]
    pub ingress: Ingress,
    /// Delivering mail.
    #[serde(default)]
    pub delivery: DeliveryLimits,
    /// Checking passwords.
    #[serde(default)]
    pub authentication: Authentication,
    /// Bounds of aliases and forwards.
    #[serde(default)]
    pub expansion: Expansion,
    /// Sharing users with Dovecot.
    #[serde(default)]
    pub dovecot: DovecotExport,
    /// Mail of programs on this host.
    #[serde(default)]
    pub sendmail: Sendmail,
    /// How long transactions in flight may go on after SIGTERM.
    #[serde(default = "drain_max")]
    pub drain_max: Span,
}

fn mx() -> String {
    "mx".to_owned()
}

fn drain_max() -> Span {
    Span(std::time::Duration::from_secs(30))
}

/// TLS of listeners that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlatformTls {
    /// Listeners with TLS and without a certificate use one that the platform makes for itself on its first start. Clients cannot verify it.
    pub self_signed: bool,
}

/// The read-only port for metrics and probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Admin {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddress,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddress(([127, 0, 0, 1], 9090).into()) }
    }
}

/// Name resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// Servers to ask, as address or address:port; empty: those of the system.
    pub servers: Vec<DnsServer>,
    /// Whether answers are kept for their time to live; false: every question is asked again.
    pub cache: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), cache: yes() }
    }
}

/// Keeping mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Queue {
    /// Longer bodies are files beside the data base.
    pub inline_body_max: Size,
    /// With less free space than this no mail is taken (452); what is in the queue still leaves.
    pub free_space_min: Size,
    /// How long the history of finished messages is kept for `posthouse trace`.
    pub event_retention: Span,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            inline_body_max: Size(256 << 10),
            free_space_min: Size(256 << 20),
            event_retention: Span(std::time::Duration::from_secs(7 * 86_400)),
        }
    }
}

/// Taking mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ingress {
    /// Bytes of messages that are not committed yet, all sessions together; over it senders wait.
    pub memory_max: Size,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { memory_max: Size(128 << 20) }
    }
}

/// Delivering mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeliveryLimits {
    /// Deliveries at a time, all transports together.
    #[schemars(range(min = 1))]
    pub concurrency_max: u32,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { concurrency_max: 100 }
    }
}

/// Checking passwords.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// The answer to a wrong password or user comes no sooner than this.
    pub failure_floor: Span,
    /// Verifications at a time: each may cost 64 MiB of memory and a processor.
    #[schemars(range(min = 1))]
    pub concurrency_max: u32,
    /// Failed logins of one source (an IPv4 address, an IPv6 /64) in `failureWindow`: more is 421, the right password too; 0: no bound.
    pub failures_per_source_max: u32,
    /// Failed logins under one name in `failureWindow`, from all sources together but those where its user has logged in before: they have as
    /// many of their own. More is 421; 0: no bound.
    pub failures_per_user_max: u32,
    /// How long a failed login counts against the bounds: they are forgiven one by one, evenly.
    pub failure_window: Span,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            failure_floor: Span(std::time::Duration::from_secs(1)),
            concurrency_max: 4,
            failures_per_source_max: 100,
            failures_per_user_max: 50,
            failure_window: Span(std::time::Duration::from_secs(3600)),
        }
    }
}

/// Bounds of aliases and forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expansion {
    /// How often an address may be replaced: a longer chain is a loop.
    #[schemars(range(min = 1))]
    pub depth_max: u32,
    /// How many addresses one recipient may become.
    #[schemars(range(min = 1))]
    pub results_max: u32,
}

impl Default for Expansion {
    fn default() -> Self {
        Self { depth_max: 10, results_max: 1000 }
    }
}

/// Sharing users with Dovecot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DovecotExport {
    /// A passwd-file that is kept current while the platform runs, so that Dovecot logs the same users in. Relative to the state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_file: Option<String>,
}

/// Mail of programs on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sendmail {
    /// Whether the Unix socket of `posthouse sendmail` is there. Rules know it as listener `sendmail`; its mail is `source: local`.
    pub socket: bool,
}

impl Default for Sendmail {
    fn default() -> Self {
        Self { socket: yes() }
    }
}
