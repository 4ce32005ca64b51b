use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, Status};
use crate::values::{AddressPattern, MailAddress, PasswordHash, Size};

/// A mailbox and who may use it.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailUser",
    namespaced,
    status = "Status",
    doc = "A mailbox and who may use it.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailUserSpec {
    /// The mailbox, in a domain of ours: also the name to log in with.
    pub address: MailAddress,
    /// Other addresses of the same mailbox, in domains of ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<MailAddress>,
    /// The hash of the password, in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<PasswordRef>,
    /// The hash of the password: SHA-512-crypt, bcrypt or argon2id, with or without Dovecot's {SCHEME}. Without a hash the user cannot log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// Mail is sent on to these instead of the mailbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<MailAddress>,
    /// With forwards: the mailbox gets a copy too.
    #[serde(default)]
    pub keep_copy: bool,
    /// The user may send as these too: addresses, or *@domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send_as: Vec<AddressPattern>,
    /// Size of the mailbox, for `posthouse export dovecot`; Dovecot enforces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Size>,
    /// Name of a MailTransport instead of that of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// The user cannot log in and gets no mail (550 5.2.1).
    #[serde(default)]
    pub disabled: bool,
}

/// A password hash in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in its data.
    #[serde(default = "hash")]
    pub key: String,
}

fn hash() -> String {
    "hash".to_owned()
}

impl From<&PasswordRef> for SecretKeyRef {
    fn from(reference: &PasswordRef) -> Self {
        Self { name: reference.name.clone(), key: reference.key.clone() }
    }
}
