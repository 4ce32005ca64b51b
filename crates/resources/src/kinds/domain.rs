use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::values::{DomainName, MailAddress};

/// A domain whose mail is ours.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailDomain",
    namespaced,
    status = "Status",
    doc = "A domain whose mail is ours.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailDomainSpec {
    /// The domain.
    pub domain: DomainName,
    /// Other domains with the same mailboxes: user@alias is user@domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<DomainName>,
    /// How mail reaches the mailboxes.
    pub delivery: DomainDelivery,
    /// Gets the mail that no user has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_all: Option<MailAddress>,
    /// Details in addresses, as in user+detail@domain.
    #[serde(default)]
    pub sub_address: SubAddress,
    /// A MailTable with more users than the MailUsers: asked for an address, its rows hold `password`, and may hold `user` (the mailbox), `forward` and `keep_copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_table: Option<String>,
    /// A MailTable from addresses, or local parts, to addresses: asked before the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_table: Option<String>,
}

/// How mail reaches the mailboxes of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainDelivery {
    /// Name of a MailTransport.
    pub transport: String,
}

/// Details in addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SubAddress {
    /// Characters that begin a detail; empty: addresses have none.
    pub delimiters: String,
    /// The transport sees user+detail@domain, not user@domain.
    pub keep_detail: bool,
}

impl Default for SubAddress {
    fn default() -> Self {
        Self { delimiters: "+".to_owned(), keep_detail: false }
    }
}
